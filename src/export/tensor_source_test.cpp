#include "export/tensor_source.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <string>

namespace espalier {
namespace {

// Three bytes before the tensors, as a file has a header.
constexpr uint64_t kStart = 3;

TensorInfo Info(ggml_type type, std::vector<int64_t> ne, uint64_t offset) {
  TensorInfo info;
  info.type = type;
  info.n_dims = static_cast<int>(ne.size());
  std::copy(ne.begin(), ne.end(), info.ne.begin());
  info.offset = offset;
  info.bytes = ggml_row_size(type, info.ne[0]) * static_cast<uint64_t>(info.ne[1]);
  return info;
}

std::vector<std::byte> SomeBytes(size_t n) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < n; ++i) {
    bytes.push_back(static_cast<std::byte>(i * 131 + i / 256));
  }
  return bytes;
}

struct Taken {
  std::vector<std::byte> bytes;
  size_t largest_piece = 0;
};

Taken All(const TensorSource& tensor, const ByteSource& source, uint64_t piece_bytes) {
  Taken taken;
  const Status status = tensor.Read(
      source,
      [&](std::span<const std::byte> piece) {
        taken.bytes.insert(taken.bytes.end(), piece.begin(), piece.end());
        taken.largest_piece = std::max(taken.largest_piece, piece.size());
        return Status::Ok();
      },
      piece_bytes);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(taken.bytes.size(), tensor.bytes());
  return taken;
}

TEST(TensorSource, RowsOfEveryHeadComeToWhereNormRopeHasThem) {
  constexpr int kHead = 12;
  // Of three heads: a matrix, one that is quantised, and a vector, whose elements are its rows.
  for (const TensorInfo& info : {Info(GGML_TYPE_F16, {10, 3 * kHead}, kStart),
                                 Info(GGML_TYPE_Q8_0, {64, 3 * kHead}, kStart), Info(GGML_TYPE_F32, {36}, kStart)}) {
    const auto file = SomeBytes(kStart + info.bytes);
    const MemorySource source(file);
    const size_t row = info.bytes / (3 * kHead);
    for (const uint64_t piece_bytes : {uint64_t{1}, 4 * row, 5 * row, 1000 * row}) {
      const Taken taken = All(TensorSource::ForNormRope(info, kHead), source, piece_bytes);
      EXPECT_LE(taken.largest_piece, std::max<size_t>(piece_bytes, 2 * row));
      ASSERT_EQ(taken.bytes.size(), info.bytes);
      for (size_t head = 0; head < 3; ++head) {
        for (size_t i = 0; i < kHead; ++i) {
          const size_t old = head * kHead + (i % 2 == 0 ? i / 2 : i / 2 + kHead / 2);
          for (size_t b = 0; b < row; ++b) {
            ASSERT_EQ(taken.bytes[(head * kHead + i) * row + b], file[kStart + old * row + b]) << head << " " << i;
          }
        }
      }
    }
  }
}

TEST(TensorSource, JoinedTensorsFollowEachOther) {
  const TensorInfo first = Info(GGML_TYPE_Q8_0, {32, 4}, 200);
  const TensorInfo second = Info(GGML_TYPE_Q8_0, {32, 2}, kStart);
  const auto file = SomeBytes(400);
  const MemorySource source(file);
  std::vector<std::byte> expected(file.begin() + 200, file.begin() + 200 + static_cast<int>(first.bytes));
  expected.insert(expected.end(), file.begin() + kStart, file.begin() + kStart + static_cast<int>(second.bytes));
  for (const uint64_t piece_bytes : {1, 7, 1000}) {
    const Taken taken = All(TensorSource::Joined({&first, &second}), source, piece_bytes);
    EXPECT_EQ(taken.bytes, expected);
    EXPECT_LE(taken.largest_piece, piece_bytes);
  }
  EXPECT_EQ(All(TensorSource::Copied(second), source, 1000).bytes.size(), second.bytes);
  EXPECT_EQ(All(TensorSource::Made(SomeBytes(5)), source, 1000).bytes, SomeBytes(5));
}

TEST(TensorSource, FailuresEndReading) {
  const TensorInfo info = Info(GGML_TYPE_F32, {4, 4}, kStart);
  const auto file = SomeBytes(kStart + info.bytes);
  const MemorySource source(file);
  const MemorySource cut{std::span(file).first(file.size() - 1)};
  for (const TensorSource& tensor : {TensorSource::Copied(info), TensorSource::ForNormRope(info, 4)}) {
    int pieces = 0;
    const Status stopped = tensor.Read(source, [&](std::span<const std::byte>) { return ++pieces, Aborted("enough"); });
    EXPECT_EQ(stopped.code(), ErrorCode::kAborted);
    EXPECT_EQ(pieces, 1);
    EXPECT_EQ(tensor.Read(cut, [](std::span<const std::byte>) { return Status::Ok(); }).code(), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace espalier
