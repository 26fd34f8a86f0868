#include "model/quote.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Quote, KeepsTextAndReplacesControlCharacters) {
  EXPECT_EQ(Quote("blk.0.attn_q.weight"), "'blk.0.attn_q.weight'");
  EXPECT_EQ(Quote("a\nb\t\x1b[31m\x7f"), "'a?b??[31m?'");
  EXPECT_EQ(Quote(std::string_view("a\0b", 3)), "'a?b'");
  EXPECT_EQ(Quote("\u2581Tränke \U0001F600"), "'\u2581Tränke \U0001F600'");
  EXPECT_EQ(Quote("\xc2\x9b"
                  "31m"),
            "'?31m'");  // C1: an escape sequence in one character
}

TEST(Quote, ReplacesBytesThatAreNoUtf8) {
  EXPECT_EQ(Quote("\xff\xfe"), std::string("'?") + "?'");
  EXPECT_EQ(Quote("\xe2\x96"), std::string("'?") + "?'");  // cut short
  EXPECT_EQ(Quote("\xc0\x80"), std::string("'?") + "?'");  // overlong NUL
  EXPECT_EQ(Quote("\xc3"
                  "a"),
            "'?a'");
}

TEST(Printable, CutsLongTextBetweenCharacters) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abcdef...");
  EXPECT_EQ(Printable("abcde\u2581", 6), "abcde...");
  EXPECT_EQ(Printable("", 6), "");
}

}  // namespace
}  // namespace espalier
