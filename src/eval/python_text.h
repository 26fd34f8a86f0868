// Text as Python sees it: lm-evaluation-harness's rules are made of these.
#pragma once

#include <cstdint>
#include <string_view>

namespace espalier {

// len: code points. Bytes that are not UTF-8 count as whatever their bits say.
int64_t CountCharacters(std::string_view text);

// rstrip and strip: white space is Unicode's.
std::string_view StripRight(std::string_view text);
std::string_view Strip(std::string_view text);

}  // namespace espalier
