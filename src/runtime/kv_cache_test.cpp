#include "runtime/kv_cache.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

class Kv : public testing::Test {
 protected:
  void SetUp() override {
    auto device = Device::Open("", 1);
    ASSERT_TRUE(device.ok()) << device.status().message();
    device_ = std::move(*device);
    hparams_.n_layer = 2;
    hparams_.n_head_kv = 2;
    hparams_.head_dim = 64;
    kv_ = std::make_unique<KvCache>(hparams_, device_.get(), KvOptions{.capacity = 300});
    ASSERT_TRUE(kv_->AddLayer(0).ok());
  }
  int64_t Add(int32_t sequence, int32_t position, bool written) {
    const int64_t cell = kv_->Take(sequence, position);
    if (written) {
      kv_->MarkWritten(0, cell);
    }
    return cell;
  }
  // Every element of the cell's rows in layer 0 becomes / is `value`.
  void Write(int64_t cell, float value) {
    const std::vector<ggml_fp16_t> row(64, ggml_fp32_to_fp16(value));
    for (ggml_tensor* planes : {kv_->key(0), kv_->value(0)}) {
      for (size_t head = 0; head < 2; ++head) {
        ggml_backend_tensor_set(planes, row.data(), head * planes->nb[2] + static_cast<size_t>(cell) * planes->nb[1],
                                planes->nb[1]);
      }
    }
  }
  void ExpectRows(int64_t cell, float value) {
    for (ggml_tensor* planes : {kv_->key(0), kv_->value(0)}) {
      for (size_t head = 0; head < 2; ++head) {
        std::vector<ggml_fp16_t> row(64);
        ggml_backend_tensor_get(planes, row.data(), head * planes->nb[2] + static_cast<size_t>(cell) * planes->nb[1],
                                planes->nb[1]);
        for (const ggml_fp16_t x : row) {
          ASSERT_EQ(ggml_fp16_to_fp32(x), value) << "cell " << cell << " head " << head;
        }
      }
    }
  }

  std::unique_ptr<Device> device_;
  HyperParameters hparams_;
  std::unique_ptr<KvCache> kv_;
};

TEST_F(Kv, CapacityAndReadExtentAreMultiplesOfThePadding) {
  EXPECT_EQ(kv_->capacity(), 512);
  EXPECT_EQ(kv_->read_extent(), 256);
  for (int32_t i = 0; i < 257; ++i) {
    Add(0, i, true);
  }
  EXPECT_EQ(kv_->read_extent(), 512);
}

TEST_F(Kv, ASequenceIsCompleteOnlyWhereAllItsRowsAre) {
  Add(4, 0, true);
  Add(4, 1, true);
  Add(5, 0, false);
  EXPECT_TRUE(kv_->Complete(0, 4));
  EXPECT_FALSE(kv_->Complete(0, 5));
  EXPECT_TRUE(kv_->Complete(0, 6));   // empty
  EXPECT_FALSE(kv_->Complete(1, 4));  // no such layer
  kv_->RemoveLayer(0);
  EXPECT_FALSE(kv_->Complete(0, 4));
  ASSERT_TRUE(kv_->AddLayer(0).ok());
  EXPECT_FALSE(kv_->Complete(0, 4));  // the layer is back, its rows are not
}

TEST_F(Kv, CompactMovesRowsIntoHolesAndZeroesTheTail) {
  constexpr int32_t kTokens = 100;
  for (int32_t i = 0; i < kTokens; ++i) {
    for (const int32_t sequence : {0, 1}) {
      const int64_t cell = Add(sequence, i, true);
      Write(cell, static_cast<float>(1000 * sequence + i));
    }
  }
  const uint64_t full = kv_->committed_bytes();
  kv_->Free(0, 0);
  EXPECT_EQ(kv_->used(), kTokens);
  kv_->Compact();
  EXPECT_EQ(kv_->high_water(), kTokens);
  EXPECT_LT(kv_->committed_bytes(), full);
  EXPECT_TRUE(kv_->Complete(0, 1));
  for (int64_t cell = 0; cell < kTokens; ++cell) {
    const KvCell& found = kv_->cells()[static_cast<size_t>(cell)];
    ASSERT_EQ(found.sequence, 1);
    ExpectRows(cell, static_cast<float>(1000 + found.position));
  }
  for (int64_t cell = kTokens; cell < kv_->capacity(); ++cell) {
    ExpectRows(cell, 0);
  }
  kv_->Free(1, 0);
  kv_->Compact();
  EXPECT_EQ(kv_->committed_bytes(), 0U);
  ExpectRows(0, 0);
}

TEST_F(Kv, TakeUsesTheLowestHole) {
  for (int32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(Add(i, 0, true), i);
  }
  kv_->Free(2, 0);
  kv_->Free(4, 0);
  EXPECT_EQ(Add(9, 0, true), 2);
  EXPECT_EQ(Add(9, 1, true), 4);
  EXPECT_EQ(Add(9, 2, true), 6);
}

}  // namespace
}  // namespace espalier
