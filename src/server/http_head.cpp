#include "server/http_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/beast/http/status.hpp>
#include <ctime>

namespace espalier {
namespace {

constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

// "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale.
std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[static_cast<size_t>(utc.tm_wday)], utc.tm_mday,
                     kMonths[static_cast<size_t>(utc.tm_mon)], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

bool IsOurs(std::string_view name) {
  return SameHttpName(name, "Content-Length") || SameHttpName(name, "Transfer-Encoding") ||
         SameHttpName(name, "Connection") || SameHttpName(name, "Date") || SameHttpName(name, "Server");
}

// An echoed request must not be able to add headers, or a second answer.
std::string OneLine(std::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; }, ' ');
  return line;
}

}  // namespace

bool SameHttpName(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

bool HttpStatusHasBody(int status) { return status >= 200 && status != 204 && status != 304; }

std::string FormatHttpHead(const HttpResponse& response, const HttpHeadForm& form) {
  const auto phrase =
      boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(static_cast<unsigned>(response.status)));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\nServer: espalier\r\n", response.status,
                                 std::string_view(phrase.data(), phrase.size()), HttpDate());
  if (!response.content_type.empty() && HttpStatusHasBody(response.status)) {
    head += fmt::format("Content-Type: {}\r\n", OneLine(response.content_type));
  }
  for (const auto& [name, value] : response.headers) {
    if (!IsOurs(name)) {
      head += fmt::format("{}: {}\r\n", OneLine(name), OneLine(value));
    }
  }
  if (HttpStatusHasBody(response.status)) {
    if (form.body == HttpHeadForm::Body::kSized) {
      head += fmt::format("Content-Length: {}\r\n", form.length);
    } else if (form.body == HttpHeadForm::Body::kChunked) {
      head += "Transfer-Encoding: chunked\r\n";
    }
  }
  if (!form.keep_alive) {
    head += "Connection: close\r\n";
  } else if (form.http10) {
    head += "Connection: keep-alive\r\n";
  }
  head += "\r\n";
  return head;
}

}  // namespace espalier
