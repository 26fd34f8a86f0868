#include "base/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace espalier {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// Files carry these values: they may never change. From the reference implementation's published test vectors for
// empty input.
TEST(Hash, IsXxh3) {
  EXPECT_EQ(Hash64({}), 0x2d06800538d394c2u);
  EXPECT_EQ(HashHex({}), "99aa06d3014798d86001c324468d497f");
}

TEST(Hash, EveryByteAndItsPlaceCount) {
  std::string text(300, 'a');
  std::set<std::string> seen = {HashHex(Bytes(text))};
  std::set<uint64_t> seen64 = {Hash64(Bytes(text))};
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = 'b';
    EXPECT_TRUE(seen.insert(HashHex(Bytes(text))).second) << i;
    EXPECT_TRUE(seen64.insert(Hash64(Bytes(text))).second) << i;
    text[i] = 'a';
  }
}

TEST(Hash, SeedsAreDifferentFunctions) {
  EXPECT_NE(Hash64(Bytes("abc"), 1), Hash64(Bytes("abc"), 2));
  EXPECT_EQ(Hash64(Bytes("abc"), 7), Hash64(Bytes("abc"), 7));
}

}  // namespace
}  // namespace espalier
