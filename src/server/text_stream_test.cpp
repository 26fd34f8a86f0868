#include "server/text_stream.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <random>
#include <string>
#include <vector>

#include "server/utf8.h"

namespace espalier {
namespace {

constexpr const char* kEuro = "\xE2\x82\xAC";

struct Streamed {
  std::string text;
  std::string word;
  friend bool operator==(const Streamed&, const Streamed&) = default;
};

Streamed StreamInPieces(const std::string& text, const std::vector<std::string>& stops,
                        const std::vector<size_t>& sizes) {
  TextStream stream(stops);
  std::string out;
  size_t from = 0;
  for (size_t i = 0; from < text.size(); ++i) {
    const size_t size = sizes[i % sizes.size()];
    out += stream.Push(std::string_view(text).substr(from, size));
    EXPECT_TRUE(IsUtf8(out)) << "text is given in whole characters";
    from += size;
  }
  out += stream.Flush();
  EXPECT_EQ(stream.characters_sent(), static_cast<int64_t>(CountCodePoints(out)));
  EXPECT_EQ(stream.has_new_line(), out.find('\n') != std::string::npos);
  return {out, stream.stopping_word()};
}

// The definition, on the whole text at once: the stop string that ends first, of those the longest.
Streamed Expected(const std::string& bytes, const std::vector<std::string>& stops) {
  const std::string text = MendUtf8(bytes);
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      if (!stop.empty() && text.substr(0, end).ends_with(stop) && stop.size() > best.size()) {
        best = stop;
      }
    }
    if (!best.empty()) {
      return {text.substr(0, end - best.size()), best};
    }
  }
  return {text, ""};
}

TEST(TextStream, GivesTextAtOnceWhenNothingHasToBeHeldBack) {
  TextStream stream({"END"});
  EXPECT_EQ(stream.Push("Hello"), "Hello");
  EXPECT_EQ(stream.Push(" world"), " world");
  EXPECT_EQ(stream.characters(), 11);
  EXPECT_EQ(stream.Flush(), "");
}

TEST(TextStream, HoldsHalfACharacterBackUntilItIsWhole) {
  TextStream stream;
  EXPECT_EQ(stream.Push("a\xE2"), "a");
  EXPECT_EQ(stream.characters(), 1);
  EXPECT_EQ(stream.Push("\x82"), "");
  EXPECT_EQ(stream.Push("\xAC!"), std::string(kEuro) + "!");
  EXPECT_EQ(stream.characters(), 3);
}

TEST(TextStream, MendsWhatCanNeverBecomeACharacter) {
  TextStream stream;
  EXPECT_EQ(stream.Push("\xE2\x82"), "");
  EXPECT_EQ(stream.Push("x\xFFy"), "\uFFFDx\uFFFDy");
  EXPECT_EQ(stream.Push("\xF0\x9F"), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Push("late"), "");
}

TEST(TextStream, FindsAStopStringAcrossPieces) {
  TextStream stream({"</s>"});
  EXPECT_EQ(stream.Push("one <"), "one ");
  EXPECT_EQ(stream.Push("/"), "");
  EXPECT_EQ(stream.Push("b> two </"), "</b> two ");
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Push("s> three"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.stopping_word(), "</s>");
  EXPECT_EQ(stream.Push("more"), "");
  EXPECT_EQ(stream.Flush(), "");
  EXPECT_EQ(stream.characters_sent(), 13);
}

TEST(TextStream, GivesWhatWasHeldBackAtTheEnd) {
  TextStream stream({"abc"});
  EXPECT_EQ(stream.Push("xab"), "x");
  EXPECT_EQ(stream.Flush(), "ab");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStream, TheStopStringThatEndsFirstWinsAndThenTheLongest) {
  EXPECT_EQ(StreamInPieces("xabcdy", {"abcd", "bc"}, {6}), (Streamed{"xa", "bc"}));
  EXPECT_EQ(StreamInPieces("xabcy", {"c", "abc", "bc"}, {6}), (Streamed{"x", "abc"}));
}

TEST(TextStream, FallsBackWithinAStopStringThatOverlapsItself) {
  EXPECT_EQ(StreamInPieces("aabaabaaab", {"aabaaa"}, {1}), (Streamed{"aab", "aabaaa"}));
  EXPECT_EQ(StreamInPieces("\n\n\n##", {"\n\n##"}, {2}), (Streamed{"\n", "\n\n##"}));
}

TEST(TextStream, StopStringsMayBeAnyCharacters) {
  const std::string euro = kEuro;
  EXPECT_EQ(StreamInPieces("5" + euro + "x", {euro}, {1}), (Streamed{"5", euro}));
  // Another character with the same first bytes is none.
  EXPECT_EQ(StreamInPieces("5\xE2\x82\xAA", {euro}, {1}), (Streamed{"5\xE2\x82\xAA", ""}));
  // What stands for half a character at the end can complete one.
  EXPECT_EQ(StreamInPieces("a\xE2", {"\uFFFD"}, {1}), (Streamed{"a", "\uFFFD"}));
}

TEST(TextStream, EmptyStopStringsAreIgnored) {
  EXPECT_EQ(StreamInPieces("text", {"", ""}, {2}), (Streamed{"text", ""}));
}

TEST(TextStream, CuttingTheTextElsewhereChangesNothing) {
  std::mt19937 random(7);
  const std::vector<std::string> letters = {"a", "b", "ab", "\n", kEuro, "\xE2", "\x82", "\xF0\x9F\x98\x80", "\xC3"};
  for (int round = 0; round < 2000; ++round) {
    const auto draw = [&](size_t n) { return random() % n; };
    std::string text;
    for (size_t i = draw(24); i-- > 0;) {
      text += letters[draw(letters.size())];
    }
    std::vector<std::string> stops;
    for (size_t i = draw(4); i-- > 0;) {
      std::string stop;
      for (size_t k = 1 + draw(4); k-- > 0;) {
        stop += letters[draw(5)];
      }
      stops.push_back(stop);
    }
    const std::vector<size_t> sizes = {1 + draw(4), 1 + draw(3), 1 + draw(9)};
    EXPECT_EQ(StreamInPieces(text, stops, sizes), Expected(text, stops)) << "round " << round;
  }
}

TEST(Utf8, MendsAndEscapesAsNlohmannDoes) {
  std::mt19937 random(11);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 12; i-- > 0;) {
      // Lead and continuation bytes of all kinds more often than ASCII.
      text += static_cast<char>(random() % 4 == 0 ? random() % 128 : 128 + random() % 128);
    }
    std::string ours;
    AppendJsonString(text, &ours);
    EXPECT_EQ(ours, nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    EXPECT_EQ(nlohmann::json::parse(ours).get<std::string>(), MendUtf8(text));
    EXPECT_EQ(IsUtf8(text), MendUtf8(text) == text);
  }
}

TEST(Utf8, EscapesEveryAsciiCharacterAsNlohmannDoes) {
  for (int c = 0; c < 128; ++c) {
    const std::string text(1, static_cast<char>(c));
    std::string ours;
    AppendJsonString(text, &ours);
    EXPECT_EQ(ours, nlohmann::json(text).dump());
  }
}

}  // namespace
}  // namespace espalier
