#include "cli/number_check.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>

#include "model/quote.h"

namespace espalier {
namespace {

// `allows` is asked about finite numbers only.
template <class Number, class Allows>
CLI::Validator Check(std::string expected, Allows allows) {
  const std::string description = expected;
  return CLI::Validator(
      [expected = std::move(expected), allows](std::string& text) {
        Number number = 0;
        if (CLI::detail::lexical_cast(text, number) && std::isfinite(static_cast<double>(number)) && allows(number)) {
          return std::string();
        }
        return fmt::format("expected {}, found {}", expected, Quote(text));
      },
      description);
}

}  // namespace

CLI::Validator InRange(double lowest, double highest) {
  return Check<double>(fmt::format("a number in {} to {}", lowest, highest),
                       [=](double number) { return number >= lowest && number <= highest; });
}

CLI::Validator InRange(int64_t lowest, int64_t highest) {
  return Check<int64_t>(fmt::format("an integer in {} to {}", lowest, highest),
                        [=](int64_t number) { return number >= lowest && number <= highest; });
}

CLI::Validator AtLeast(double lowest) {
  return Check<double>(fmt::format("a number of at least {}", lowest), [=](double number) { return number >= lowest; });
}

CLI::Validator AtLeast(int64_t lowest) {
  return Check<int64_t>(fmt::format("an integer of at least {}", lowest),
                        [=](int64_t number) { return number >= lowest; });
}

CLI::Validator MoreThan(double bound) {
  return Check<double>(fmt::format("a number above {}", bound), [=](double number) { return number > bound; });
}

CLI::Validator Finite() {
  return Check<double>("a number", [](double) { return true; });
}

}  // namespace espalier
