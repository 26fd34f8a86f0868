#include "server/http_target.h"

#include <fmt/format.h>

#include <optional>

namespace espalier {
namespace {

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  if (lower >= 'a' && lower <= 'f') {
    return lower - 'a' + 10;
  }
  return std::nullopt;
}

Result<std::string> DecodePath(std::string_view path) {
  std::string decoded;
  decoded.reserve(path.size());
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      decoded += path[i];
      continue;
    }
    const auto high = i + 1 < path.size() ? HexDigit(path[i + 1]) : std::nullopt;
    const auto low = i + 2 < path.size() ? HexDigit(path[i + 2]) : std::nullopt;
    if (!high || !low) {
      return InvalidArgument(fmt::format("path: '%' at byte {} is not followed by two hexadecimal digits", i));
    }
    const char byte = static_cast<char>(*high * 16 + *low);
    if (byte == '\0') {
      return InvalidArgument(fmt::format("path: %00 at byte {} is not allowed", i));
    }
    decoded += byte;
    i += 2;
  }
  return decoded;
}

}  // namespace

Result<HttpTarget> ParseHttpTarget(std::string_view target) {
  for (size_t i = 0; i < target.size(); ++i) {
    const auto byte = static_cast<unsigned char>(target[i]);
    if (byte <= 0x20 || byte >= 0x7f || byte == '#') {
      return InvalidArgument(fmt::format("request target: byte 0x{:02x} at {} is not allowed", byte, i));
    }
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) == scheme) {
      const size_t end = target.find_first_of("/?", scheme.size());
      target = end == std::string_view::npos ? std::string_view() : target.substr(end);
      if (target.empty() || target.front() == '?') {
        return HttpTarget{"/", std::string(target.empty() ? target : target.substr(1))};
      }
      break;
    }
  }
  if (target.empty() || target.front() != '/') {
    return InvalidArgument("request target: expected a path that begins with '/'");
  }
  const size_t question = target.find('?');
  ESPALIER_ASSIGN_OR_RETURN(std::string path, DecodePath(target.substr(0, question)));
  const auto query = question == std::string_view::npos ? std::string_view() : target.substr(question + 1);
  return HttpTarget{std::move(path), std::string(query)};
}

}  // namespace espalier
