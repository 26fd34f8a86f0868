// What a flag's number may be. Unlike CLI11's own checks these let no NaN through, name the range in a few digits, and
// come before the conversion, so that a number too large for its type is told its range, too.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>

namespace espalier {

// Ends included.
CLI::Validator InRange(double lowest, double highest);
CLI::Validator InRange(int64_t lowest, int64_t highest);
inline CLI::Validator InRange(int lowest, int highest) { return InRange(int64_t{lowest}, int64_t{highest}); }

// Finite, and no less.
CLI::Validator AtLeast(double lowest);
CLI::Validator AtLeast(int64_t lowest);
inline CLI::Validator AtLeast(int lowest) { return AtLeast(int64_t{lowest}); }

CLI::Validator MoreThan(double bound);  // finite
CLI::Validator Finite();

}  // namespace espalier
