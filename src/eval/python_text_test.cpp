#include "eval/python_text.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(CountCharacters, CountsCodePointsNotBytes) {
  EXPECT_EQ(CountCharacters(""), 0);
  EXPECT_EQ(CountCharacters("cat"), 3);
  EXPECT_EQ(CountCharacters("naïve — 日本語 🙂"), 13);
}

TEST(Strip, TakesUnicodeWhiteSpaceFromBothEnds) {
  EXPECT_EQ(Strip(" \t\n\v\f\r\x1c\x1f a b \xc2\xa0"), "a b");
  EXPECT_EQ(Strip("\xe2\x80\x83\xe3\x80\x80x\xc2\x85"), "x");
  EXPECT_EQ(Strip("\xe1\x9a\x80"), "");
  EXPECT_EQ(Strip(""), "");
}

TEST(Strip, LeavesWhatPythonLeaves) {
  for (const char* text : {"\xe2\x80\x8b", "\xef\xbb\xbf", "\x1b", "é", "日", "🙂"}) {
    EXPECT_EQ(Strip(text), text);
  }
}

TEST(StripRight, LeavesTheBeginning) {
  EXPECT_EQ(StripRight(" a \n"), " a");
  EXPECT_EQ(StripRight("日\xe3\x80\x80"), "日");
}

TEST(StripRight, SurvivesBytesThatAreNotUtf8) {
  EXPECT_EQ(StripRight("a\x80\x80\x80\x80\x80 "), "a\x80\x80\x80\x80\x80");
  EXPECT_EQ(StripRight("\xff \xff"), "\xff \xff");
}

}  // namespace
}  // namespace espalier
