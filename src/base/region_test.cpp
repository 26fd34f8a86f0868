#include "base/region.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/process_memory.h"
#include "support/sanitizers.h"

namespace espalier {
namespace {

// What measuring itself and the test runner may allocate meanwhile.
constexpr uint64_t kSlack = 128 * kKiB;

uint64_t Anonymous() { return ReadProcessMemory().value().anonymous_bytes; }

// The thread sanitizer commits shadow memory for every byte written and keeps it: figures mean nothing there, contents
// do.
constexpr bool kMeasurable = !test::kThreadSanitizer;

void ExpectChange(uint64_t before, uint64_t after, int64_t change, const char* what) {
  if (!kMeasurable) {
    return;
  }
  const auto found = static_cast<int64_t>(after) - static_cast<int64_t>(before);
  EXPECT_LE(std::abs(found - change), static_cast<int64_t>(kSlack))
      << what << ": anonymous memory changed by " << found << " bytes, expected " << change;
}

Region MapOrDie(uint64_t size, Region::Pages pages) {
  auto region = Region::Map(size, pages);
  EXPECT_TRUE(region.ok()) << region.status().message();
  return std::move(region).value();
}

bool AllBytesAre(const Region& region, uint64_t offset, uint64_t length, int value) {
  const std::byte* at = region.data() + offset;
  return std::all_of(at, at + length, [&](std::byte b) { return std::to_integer<int>(b) == value; });
}

class RegionOfBothKinds : public testing::TestWithParam<Region::Pages> {};

TEST_P(RegionOfBothKinds, ReadsAsZeroAndHoldsWhatIsWritten) {
  const Region region = MapOrDie(3 * kMiB + 1, GetParam());
  EXPECT_EQ(region.size(), RoundUp(3 * kMiB + 1, Region::PageSize()));
  EXPECT_TRUE(AllBytesAre(region, 0, region.size(), 0));
  std::memset(region.data(), 7, region.size());
  EXPECT_TRUE(AllBytesAre(region, 0, region.size(), 7));
}

TEST_P(RegionOfBothKinds, MappingAloneCostsNoMemory) {
  const uint64_t before = Anonymous();
  const Region region = MapOrDie(kGiB, GetParam());
  ExpectChange(before, Anonymous(), 0, "a mapped region nobody wrote to");
}

TEST_P(RegionOfBothKinds, GivesEverythingBackInEveryCycle) {
  const uint64_t size = 32 * kMiB;
  for (int cycle = 0; cycle < 3; ++cycle) {
    const uint64_t before = Anonymous();
    {
      Region region = MapOrDie(size, GetParam());
      std::memset(region.data(), 1, region.size());
      ExpectChange(before, Anonymous(), static_cast<int64_t>(size), "written region");
    }
    ExpectChange(before, Anonymous(), 0, "destroyed region");
  }
}

TEST_P(RegionOfBothKinds, DiscardLowersAnonymousMemoryAndReadsAsZeroAfterwards) {
  const uint64_t size = 32 * kMiB;
  Region region = MapOrDie(size, GetParam());
  const uint64_t empty = Anonymous();
  for (int cycle = 0; cycle < 3; ++cycle) {
    std::memset(region.data(), 5, size);
    ExpectChange(empty, Anonymous(), static_cast<int64_t>(size), "written region");
    region.Discard(size / 4, size / 2);
    ExpectChange(empty, Anonymous(), static_cast<int64_t>(size / 2), "half of it discarded");
    EXPECT_TRUE(AllBytesAre(region, 0, size / 4, 5)) << "bytes before the discarded part changed";
    EXPECT_TRUE(AllBytesAre(region, size * 3 / 4, size / 4, 5)) << "bytes behind the discarded part changed";
    region.Discard(0, size);
    ExpectChange(empty, Anonymous(), 0, "all of it discarded");
    EXPECT_TRUE(AllBytesAre(region, size / 4, kMiB, 0));
    region.Discard(0, size);
  }
}

TEST_P(RegionOfBothKinds, NeighboursKeepTheirBytesAndTheirMemory) {
  const uint64_t size = 5 * kMiB;  // odd in huge pages, so that neighbours could share one
  std::vector<Region> regions;
  for (int i = 0; i < 5; ++i) {
    regions.push_back(MapOrDie(size, GetParam()));
    std::memset(regions.back().data(), i + 1, size);
  }
  const uint64_t all = Anonymous();
  regions.erase(regions.begin() + 2);
  ExpectChange(all, Anonymous(), -static_cast<int64_t>(size), "one of five regions destroyed");
  regions[2].Discard(0, size);
  ExpectChange(all, Anonymous(), -2 * static_cast<int64_t>(size), "one more discarded");
  EXPECT_TRUE(AllBytesAre(regions[0], 0, size, 1));
  EXPECT_TRUE(AllBytesAre(regions[1], 0, size, 2));
  EXPECT_TRUE(AllBytesAre(regions[2], 0, size, 0));
  EXPECT_TRUE(AllBytesAre(regions[3], 0, size, 5));
}

TEST_P(RegionOfBothKinds, PopulateCommitsAllPagesAndKeepsWhatWasWritten) {
  const uint64_t size = 16 * kMiB;
  const uint64_t before = Anonymous();
  Region region = MapOrDie(size, GetParam());
  region.data()[12345] = std::byte{9};
  region.Populate();
  ExpectChange(before, Anonymous(), static_cast<int64_t>(size), "populated region");
  EXPECT_EQ(region.data()[12345], std::byte{9});
}

INSTANTIATE_TEST_SUITE_P(Pages, RegionOfBothKinds, testing::Values(Region::Pages::kSmall, Region::Pages::kHuge),
                         [](const auto& kind) { return kind.param == Region::Pages::kSmall ? "Small" : "Huge"; });

TEST(Region, DiscardTakesOnlyWholePagesInside) {
  const uint64_t page = Region::PageSize();
  Region region = MapOrDie(4 * page, Region::Pages::kSmall);
  std::memset(region.data(), 3, region.size());
  region.Discard(1, page);  // from inside page 0 to the first byte of page 1: no whole page
  EXPECT_TRUE(AllBytesAre(region, 0, region.size(), 3));
  region.Discard(page - 1, page + 2);  // page 1 whole, one byte of its neighbours
  EXPECT_TRUE(AllBytesAre(region, 0, page, 3));
  EXPECT_TRUE(AllBytesAre(region, page, page, 0));
  EXPECT_TRUE(AllBytesAre(region, 2 * page, 2 * page, 3));
  region.Discard(3 * page, 0);
  EXPECT_TRUE(AllBytesAre(region, 3 * page, page, 3));
}

TEST(Region, HugeRegionsStartOnAHugePage) {
  for (int i = 0; i < 4; ++i) {
    const Region region = MapOrDie(kMiB, Region::Pages::kHuge);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(region.data()) % (2 * kMiB), 0u);
  }
}

TEST(RegionDeathTest, PagesBesideItAreFences) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Region region = MapOrDie(Region::PageSize(), Region::Pages::kSmall);
  volatile std::byte* data = region.data();
  EXPECT_DEATH({ data[-1] = std::byte{1}; }, "");
  EXPECT_DEATH({ data[static_cast<ptrdiff_t>(region.size())] = std::byte{1}; }, "");
}

TEST(Region, MovesHandOverTheMemory) {
  Region a = MapOrDie(kMiB, Region::Pages::kSmall);
  std::byte* const data = a.data();
  data[0] = std::byte{42};
  Region b = std::move(a);
  EXPECT_FALSE(a);  // NOLINT: that a moved-from region is empty is what is tested
  EXPECT_EQ(a.size(), 0u);
  EXPECT_EQ(b.data(), data);
  Region c = MapOrDie(kMiB, Region::Pages::kSmall);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.data()[0], std::byte{42});
}

TEST(Region, RefusesSizesOutOfRange) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1} << 47, ~uint64_t{0}}) {
    const auto region = Region::Map(size, Region::Pages::kSmall);
    ASSERT_FALSE(region.ok());
    EXPECT_EQ(region.status().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(region.status().message().find(std::to_string(size)), std::string::npos) << region.status().message();
  }
}

}  // namespace
}  // namespace espalier
