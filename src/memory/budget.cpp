#include "memory/budget.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/bytes.h"
#include "base/check.h"

namespace espalier {

Budget Budget::Percent(double percent) {
  ESPALIER_CHECK(percent > 0 && percent <= 100);
  return Budget(0, percent);
}

Result<Budget> Budget::Parse(std::string_view text) {
  if (text == "auto") {
    return Unsupported(
        "memory budget 'auto': follows the machine's free memory while serving, which this command does not do; "
        "expected bytes (700MiB) or a percentage (70%)");
  }
  if (!text.empty() && text.back() == '%') {
    const std::string_view number = text.substr(0, text.size() - 1);
    const char* const end = number.data() + number.size();
    double percent = 0;
    const auto [rest, error] = std::from_chars(number.data(), end, percent);
    if (error != std::errc() || rest != end || !(percent > 0 && percent <= 100)) {
      return InvalidArgument(fmt::format(
          "memory budget '{}': expected a percentage above 0 and at most 100, such as 70%", text.substr(0, 64)));
    }
    return Percent(percent);
  }
  auto bytes = ParseBytes(text);
  if (!bytes.ok()) {
    return InvalidArgument(
        fmt::format("memory budget '{}': expected bytes (700MiB) or a percentage (70%)", text.substr(0, 64)));
  }
  if (*bytes == 0) {
    return InvalidArgument("memory budget '0': expected more than 0 bytes");
  }
  return Bytes(*bytes);
}

uint64_t Budget::LimitBytes(const BudgetBase& base) const {
  if (!is_percent()) {
    return bytes_;
  }
  return base.process_bytes +
         static_cast<uint64_t>(std::llround(percent_ / 100 * static_cast<double>(base.dense_peak_bytes)));
}

std::string Budget::ToText() const { return is_percent() ? fmt::format("{}%", percent_) : FormatBytes(bytes_); }

}  // namespace espalier
