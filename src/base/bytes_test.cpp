#include "base/bytes.h"

#include <gtest/gtest.h>

#include <limits>

namespace espalier {
namespace {

TEST(ParseBytes, ReadsEveryUnitOfTheContract) {
  const std::pair<const char*, uint64_t> cases[] = {
      {"4096", 4096},
      {"0", 0},
      {"1b", 1},
      {"700MiB", 700 * kMiB},
      {"2.5 GiB", 5 * kGiB / 2},
      {"2.5GIB", 5 * kGiB / 2},
      {"64k", 64 * kKiB},
      {"3M", 3 * kMiB},
      {"1g", kGiB},
      {"1T", 1024 * kGiB},
      {"1kib", kKiB},
      {"1TiB", 1024 * kGiB},
      {"1kB", 1000},
      {"1MB", 1000000},
      {"1GB", 1000000000},
      {"2tb", 2000000000000},
      {"1e3", 1000},
      {"0.5KiB", 512},
  };
  for (const auto& [text, bytes] : cases) {
    const auto parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
    EXPECT_EQ(parsed.value(), bytes) << text;
  }
}

TEST(ParseBytes, RefusesEverythingElseAndNamesIt) {
  for (const char* text : {"", "MiB", "-1", "-0", "1 2", "12 apples", "1kibi", "nan", "inf", "1e300",
                           "9223372036854775808", "8388608TiB", "0x10", "1,5GiB", "%", " "}) {
    const auto parsed = ParseBytes(text);
    ASSERT_FALSE(parsed.ok()) << "'" << text << "' gave " << parsed.value();
    EXPECT_EQ(parsed.status().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(parsed.status().message().find(std::string("'") + text + "'"), std::string::npos)
        << parsed.status().message();
    EXPECT_NE(parsed.status().message().find("700MiB"), std::string::npos) << "the message shows what is expected";
  }
}

TEST(ParseBytes, CutsLongInputInItsMessage) {
  const auto parsed = ParseBytes(std::string(100000, 'z'));
  ASSERT_FALSE(parsed.ok());
  EXPECT_LT(parsed.status().message().size(), 300u);
}

TEST(FormatBytes, PicksTheUnitThatReadsBest) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(31037849), "29.6 MiB");
  EXPECT_EQ(FormatBytes(kMiB - 1), "1.0 MiB") << "not 1024.0 KiB";
  EXPECT_EQ(FormatBytes(3 * kGiB / 2), "1.5 GiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "16384.0 PiB");
}

TEST(FormatBytes, IsReadBackWithinItsOneDecimal) {
  for (uint64_t bytes = 1; bytes < (uint64_t{1} << 49); bytes = bytes * 3 + 1) {
    const auto back = ParseBytes(FormatBytes(bytes));
    ASSERT_TRUE(back.ok()) << FormatBytes(bytes);
    const double error = std::abs(static_cast<double>(back.value()) - static_cast<double>(bytes));
    EXPECT_LE(error, 0.051 * static_cast<double>(bytes)) << bytes;
  }
}

TEST(Rounding, LandsOnMultiplesAndLeavesThemAlone) {
  EXPECT_EQ(RoundUp(0, 4096), 0u);
  EXPECT_EQ(RoundUp(1, 4096), 4096u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
  EXPECT_EQ(RoundUp(4097, 4096), 8192u);
  EXPECT_EQ(RoundDown(4095, 4096), 0u);
  EXPECT_EQ(RoundDown(8191, 4096), 4096u);
}

}  // namespace
}  // namespace espalier
