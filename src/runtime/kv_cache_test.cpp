#include "runtime/kv_cache.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/process_memory.h"
#include "support/sanitizers.h"

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
    Make({.capacity = 300, .max_sequences = 3});
  }
  void Make(const KvOptions& options) {
    kv_ = std::make_unique<KvCache>(hparams_, device_.get(), options);
    ASSERT_TRUE(kv_->AddLayer(0).ok());
  }
  int64_t Add(int32_t sequence, bool written) {
    kv_->TakeSlot(sequence);
    const int64_t cell = kv_->Append(sequence);
    if (written) {
      kv_->MarkWritten(0, cell);
    }
    return cell;
  }
  // Calls each(plane row as bytes' offset) for all of a cell's rows in layer 0.
  template <class Each>
  void ForEachRow(int64_t cell, Each each) {
    for (ggml_tensor* planes : {kv_->key(0), kv_->value(0)}) {
      for (size_t head = 0; head < 2; ++head) {
        each(planes, head * planes->nb[2] + static_cast<size_t>(cell) * planes->nb[1]);
      }
    }
  }
  // Every element of the cell's rows in layer 0 becomes / is `value`.
  void Write(int64_t cell, float value) {
    const std::vector<ggml_fp16_t> row(64, ggml_fp32_to_fp16(value));
    ForEachRow(cell, [&](ggml_tensor* planes, size_t offset) {
      ggml_backend_tensor_set(planes, row.data(), offset, planes->nb[1]);
    });
  }
  void ExpectRows(int64_t cell, float value) {
    ForEachRow(cell, [&](ggml_tensor* planes, size_t offset) {
      std::vector<ggml_fp16_t> row(64);
      ggml_backend_tensor_get(planes, row.data(), offset, planes->nb[1]);
      for (const ggml_fp16_t x : row) {
        ASSERT_EQ(ggml_fp16_to_fp32(x), value) << "cell " << cell;
      }
    });
  }

  std::unique_ptr<Device> device_;
  HyperParameters hparams_;
  std::unique_ptr<KvCache> kv_;
};

TEST_F(Kv, CapacityAndReadExtentAreMultiplesOfThePadding) {
  EXPECT_EQ(kv_->capacity(), 512);
  EXPECT_EQ(kv_->stride(), 512) << "on the host each sequence may use all of it";
  EXPECT_EQ(kv_->read_extent(0), 256);
  EXPECT_EQ(kv_->read_extent(256), 256);
  EXPECT_EQ(kv_->read_extent(257), 512);
}

TEST_F(Kv, ASequenceMayBeLimited) {
  Make({.capacity = 4096, .max_sequences = 3, .max_sequence_cells = 300});
  EXPECT_EQ(kv_->capacity(), 4096);
  EXPECT_EQ(kv_->stride(), 512);
}

TEST_F(Kv, SequencesHaveSlotsAndTheirCellsAreInOrderOfPosition) {
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(Add(7, true), i);
    EXPECT_EQ(Add(3, true), 512 + i);
  }
  EXPECT_EQ(kv_->used(), 10);
  EXPECT_EQ(kv_->length(3), 5);
  EXPECT_EQ(kv_->length(99), 0);
  EXPECT_EQ(kv_->slot(99), kNoSlot);
  EXPECT_EQ(kv_->free_slots(), 1);
  kv_->Truncate(7, 0);
  EXPECT_EQ(kv_->free_slots(), 2);
  EXPECT_EQ(Add(8, true), 0) << "the lowest free slot";
  EXPECT_EQ(kv_->used(), 6);
}

TEST_F(Kv, ASequenceIsCompleteOnlyWhereAllItsRowsAre) {
  Add(4, true);
  Add(4, true);
  Add(5, false);
  EXPECT_TRUE(kv_->Complete(0, 4));
  EXPECT_FALSE(kv_->Complete(0, 5));
  EXPECT_TRUE(kv_->Complete(0, 6));   // empty
  EXPECT_FALSE(kv_->Complete(1, 4));  // no such layer
  kv_->RemoveLayer(0);
  EXPECT_FALSE(kv_->Complete(0, 4));
  ASSERT_TRUE(kv_->AddLayer(0).ok());
  EXPECT_FALSE(kv_->Complete(0, 4));  // the layer is back, its rows are not
}

TEST_F(Kv, WhatIsCutOffReadsAsZeroAndNobodyElsesRowsDo) {
  constexpr int64_t kTokens = 100;  // rows of 128 bytes: three pages and a bit
  for (int64_t i = 0; i < kTokens; ++i) {
    for (const int32_t sequence : {0, 1, 2}) {
      Write(Add(sequence, true), static_cast<float>(500 * sequence + i));
    }
  }
  for (const int64_t length : {70, 64, 33, 0}) {
    kv_->Truncate(1, length);
    for (int64_t i = 0; i < kTokens; ++i) {
      ExpectRows(i, static_cast<float>(i));
      ExpectRows(512 + i, i < length ? static_cast<float>(500 + i) : 0);
      ExpectRows(1024 + i, static_cast<float>(1000 + i));
    }
    EXPECT_EQ(kv_->used(), 2 * kTokens + length);
    EXPECT_TRUE(kv_->Complete(0, 1));
  }
}

TEST_F(Kv, CommittedBytesAreThePagesThatTheKernelCounts) {
  if (test::kSanitized) {
    GTEST_SKIP() << "sanitizers hold memory of their own";
  }
  hparams_.n_head_kv = 4;
  for (const auto& [type, row] : {std::pair{GGML_TYPE_F16, 128}, {GGML_TYPE_Q8_0, 68}, {GGML_TYPE_Q4_0, 36}}) {
    Make({.capacity = 2000, .max_sequences = 8, .key_type = type, .value_type = type});
    const int64_t stride = kv_->stride();
    EXPECT_EQ(stride * row % 4096, 0) << "slots begin with a page";
    const uint64_t before = ReadProcessMemory()->anonymous_bytes;
    uint64_t expected = 0;
    for (int32_t sequence = 0; sequence < 8; ++sequence) {
      const int64_t length = 30 + 31 * sequence;
      expected += KvBytes(kv_->geometry(), length);
      for (int64_t i = 0; i < length; ++i) {
        const int64_t cell = Add(sequence, true);
        for (ggml_tensor* planes : {kv_->key(0), kv_->value(0)}) {
          for (size_t head = 0; head < 4; ++head) {
            const std::vector<char> bytes(planes->nb[1], 1);
            ggml_backend_tensor_set(planes, bytes.data(),
                                    head * planes->nb[2] + static_cast<size_t>(cell) * planes->nb[1], bytes.size());
          }
        }
      }
    }
    EXPECT_EQ(kv_->committed_bytes(), expected);
    EXPECT_NEAR(static_cast<double>(ReadProcessMemory()->anonymous_bytes - before), static_cast<double>(expected),
                128e3);
    kv_->Truncate(5, 40);
    EXPECT_EQ(kv_->committed_bytes(), expected - KvBytes(kv_->geometry(), 185) + KvBytes(kv_->geometry(), 40));
    for (int32_t sequence = 0; sequence < 8; ++sequence) {
      kv_->Truncate(sequence, 0);
    }
    EXPECT_EQ(kv_->committed_bytes(), 0U);
    EXPECT_NEAR(static_cast<double>(ReadProcessMemory()->anonymous_bytes), static_cast<double>(before), 128e3);
  }
}

}  // namespace
}  // namespace espalier
