#include "model/footprint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace espalier {
namespace {

// The pages that rows 0 to cells-1 of every plane touch, counted one row at a time; each plane begins with a page.
uint64_t KvBytesByTouchingPages(const KvGeometry& kv, int64_t cells) {
  const int planes = kv.n_planes / 2;
  uint64_t bytes = 0;
  for (int plane = 0; plane < kv.n_planes; ++plane) {
    const uint64_t row_bytes = (plane < planes ? kv.key_bytes_per_cell : kv.value_bytes_per_cell) / planes;
    std::set<uint64_t> pages;
    for (int64_t cell = 0; cell < std::min(cells, kv.capacity); ++cell) {
      const uint64_t first = static_cast<uint64_t>(cell) * row_bytes;
      for (uint64_t page = first / kv.page_bytes; page <= (first + row_bytes - 1) / kv.page_bytes; ++page) {
        pages.insert(page);
      }
    }
    bytes += pages.size() * kv.page_bytes;
  }
  return bytes;
}

// Rows of 64 halves, of 64 values in q8_0 (68 bytes), and of a width that divides nothing; keys and values may differ.
std::vector<KvGeometry> Geometries(int64_t capacity, uint64_t page) {
  std::vector<KvGeometry> geometries;
  for (const auto& [key_row, value_row] : {std::pair<uint64_t, uint64_t>{128, 128}, {68, 68}, {128, 68}, {100, 4100}}) {
    for (const int n_head_kv : {1, 2, 5}) {
      geometries.push_back({.key_bytes_per_cell = key_row * n_head_kv,
                            .value_bytes_per_cell = value_row * n_head_kv,
                            .n_planes = 2 * n_head_kv,
                            .page_bytes = page,
                            .capacity = capacity});
    }
  }
  return geometries;
}

TEST(KvBytes, EqualsThePagesThatRowsTouch) {
  for (const int64_t capacity : {1, 31, 256, 700}) {
    for (const uint64_t page : {uint64_t{4096}, uint64_t{16384}}) {
      for (const KvGeometry& kv : Geometries(capacity, page)) {
        for (int64_t cells = 0; cells <= capacity + 1; cells += 1 + capacity / 37) {
          ASSERT_EQ(KvBytes(kv, cells), KvBytesByTouchingPages(kv, cells)) << cells << " of " << capacity;
        }
      }
    }
  }
}

TEST(KvBytes, OfADeviceIsAllOfIt) {
  for (KvGeometry kv : Geometries(700, 1)) {
    EXPECT_EQ(KvBytes(kv, 3), 3 * kv.bytes_per_cell());
    kv.commits_everything = true;
    EXPECT_EQ(KvBytes(kv, 3), 700 * kv.bytes_per_cell());
    EXPECT_EQ(KvBytes(kv, Workload::Uniform(9, 2)), 700 * kv.bytes_per_cell());
  }
}

TEST(KvBytes, OfAWorkloadIsExactForEqualSequencesAndABoundForOthers) {
  std::mt19937_64 random(3);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  for (const KvGeometry& kv : Geometries(100'000, 4096)) {
    for (int i = 0; i < 200; ++i) {
      const int n = 1 + static_cast<int>(below(20));
      const int64_t tokens = 1 + below(300);
      EXPECT_EQ(KvBytes(kv, Workload::Uniform(n, tokens)), static_cast<uint64_t>(n) * KvBytes(kv, tokens));
      Workload mixed = {n, 0, 0};
      uint64_t held = 0;
      for (int s = 0; s < n; ++s) {
        const int64_t length = 1 + below(tokens);
        mixed.kv_cells += length;
        mixed.longest_sequence = std::max(mixed.longest_sequence, length);
        held += KvBytes(kv, length);
      }
      EXPECT_GE(KvBytes(kv, mixed), held);
      EXPECT_LE(KvBytes(kv, mixed), held + static_cast<uint64_t>(n * kv.n_planes) * kv.page_bytes);
      // More of anything never takes less, or what was found to fit would not.
      Workload more = mixed;
      more.n_sequences += static_cast<int>(below(2));
      more.kv_cells += below(2) * below(100);
      more.longest_sequence += below(2) * below(100);
      EXPECT_GE(KvBytes(kv, more), KvBytes(kv, mixed));
    }
  }
}

TEST(KvBytes, NoPlanesHoldNothing) { EXPECT_EQ(KvBytes(KvGeometry{.n_planes = 0, .capacity = 512}, 512), 0u); }

MemoryModel SmallModel() {
  MemoryModel model;
  model.block_bytes = {1000, 20000, 3000, 40000, 5000, 60000};
  model.block_staging_bytes = {1, 200, 30, 400, 50, 600};
  model.global_bytes = 7000000;
  model.global_staging_bytes = 100;
  model.kv = {.key_bytes_per_cell = 256, .value_bytes_per_cell = 256, .n_planes = 4, .capacity = 512};
  model.compute_bytes = 100000000;
  model.work_bytes = 2000000000;
  model.host_bytes = 30000000000;
  return model;
}

TEST(PredictFootprint, SumsKeptBlocksForEveryPlan) {
  const MemoryModel model = SmallModel();
  for (int mask = 0; mask < 64; ++mask) {
    Plan plan = Plan::Dense(3);
    uint64_t weights = model.global_bytes;
    uint64_t staging = model.global_staging_bytes;
    uint64_t attention_blocks = 0;
    for (int i = 0; i < 6; ++i) {
      if ((mask >> i & 1) != 0) {
        plan.Drop({i});
      } else {
        weights += model.block_bytes[static_cast<size_t>(i)];
        staging = std::max(staging, model.block_staging_bytes[static_cast<size_t>(i)]);
        attention_blocks += i % 2 == 0 ? 1 : 0;
      }
    }
    const Footprint footprint = PredictFootprint(model, plan, Workload::Uniform(2, 100));
    EXPECT_EQ(footprint.weight_bytes, weights) << plan.ToText();
    EXPECT_EQ(footprint.staging_bytes, staging) << plan.ToText();
    // Twice 100 cells of 128 bytes: 12800 bytes or 4 pages in each of 4 planes.
    EXPECT_EQ(footprint.kv_bytes, attention_blocks * 2 * 4 * 4 * 4096) << plan.ToText();
    EXPECT_EQ(footprint.compute_bytes, 32100000000u);
    EXPECT_EQ(footprint.managed_bytes(), weights + footprint.kv_bytes + 32100000000u);
    EXPECT_EQ(footprint.peak_bytes(), footprint.managed_bytes() + staging);
  }
}

TEST(PlanFootprint, IsThePredictionForEveryPlanOnTheWay) {
  std::mt19937_64 random(7);
  for (int model_seed = 0; model_seed < 40; ++model_seed) {
    MemoryModel model = SmallModel();
    for (uint64_t& staging : model.block_staging_bytes) {
      staging = random() % 4 * 100;  // some equal, some 0
    }
    model.global_staging_bytes = random() % 3 * 100;
    const Workload workload = Workload::Uniform(2, static_cast<int64_t>(random() % 300));
    PlanFootprint plan(model, workload);
    EXPECT_TRUE(plan.plan().dense());
    for (int step = 0; step < 100; ++step) {
      const Footprint expected = PredictFootprint(model, plan.plan(), workload);
      ASSERT_EQ(plan.footprint().weight_bytes, expected.weight_bytes) << plan.plan().ToText();
      ASSERT_EQ(plan.footprint().kv_bytes, expected.kv_bytes) << plan.plan().ToText();
      ASSERT_EQ(plan.footprint().compute_bytes, expected.compute_bytes) << plan.plan().ToText();
      ASSERT_EQ(plan.footprint().staging_bytes, expected.staging_bytes) << plan.plan().ToText();
      const BlockId block = {static_cast<int>(random() % model.block_bytes.size())};
      const uint64_t before = plan.footprint().managed_bytes();
      if (plan.plan().kept(block)) {
        plan.Drop(block);
        EXPECT_EQ(before - plan.bytes_of(block), plan.footprint().managed_bytes());
      } else {
        plan.Restore(block);
        EXPECT_EQ(before + plan.bytes_of(block), plan.footprint().managed_bytes());
      }
    }
  }
}

TEST(PredictFootprintDeathTest, APlanOfAnotherModelIsAProgrammersMistake) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(PredictFootprint(SmallModel(), Plan::Dense(2), Workload::Uniform(1, 1)), "internal error");
}

}  // namespace
}  // namespace espalier
