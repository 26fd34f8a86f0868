// Names and text out of a file, made fit for an error message or a terminal.
#pragma once

#include <string>
#include <string_view>

namespace espalier {

// `text` without control characters or broken UTF-8 (each such byte becomes '?'): a file must not be able to break a
// message into lines or send escape sequences to a terminal. Cut to `limit` bytes, "..." added, where it is longer.
std::string Printable(std::string_view text, size_t limit = 80);

// 'text', printable, in single quotes.
std::string Quote(std::string_view text);

}  // namespace espalier
