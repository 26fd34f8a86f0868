#include "model/sequential_reader.h"

#include <gtest/gtest.h>

#include "support/gguf_bytes.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

// Remembers the largest read, which is the most memory that a reader held for it.
class CountingSource final : public ByteSource {
 public:
  explicit CountingSource(const ByteSource& source) : source_(source) {}
  const std::string& name() const override { return source_.name(); }
  uint64_t size() const override { return source_.size(); }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    largest_ = std::max<uint64_t>(largest_, out.size());
    return source_.ReadAt(offset, out);
  }
  uint64_t largest() const { return largest_; }

 private:
  const ByteSource& source_;
  mutable uint64_t largest_ = 0;
};

TEST(SequentialReader, ReadsAcrossWindows) {
  constexpr size_t kLength = (size_t{3} << 20) + 5;
  std::string text(kLength, '\0');
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 2654435761u >> 24);
  }
  const auto bytes = Source(Raw<uint8_t>(7) + RawString(text) + Raw<uint32_t>(0x01020304) + Raw<double>(0.5));
  const CountingSource source(*bytes);
  SequentialReader reader(source);
  EXPECT_EQ(*reader.Number<uint8_t>("x"), 7);
  EXPECT_EQ(*reader.String(0, kLength, "x"), text);
  EXPECT_EQ(*reader.Number<uint32_t>("x"), 0x01020304u);
  EXPECT_EQ(reader.position(), 1 + 8 + kLength + 4);
  EXPECT_EQ(*reader.Number<double>("x"), 0.5);
  EXPECT_EQ(reader.remaining(), 0u);
  EXPECT_FALSE(reader.Number<uint8_t>("x").ok());
  EXPECT_LE(source.largest(), uint64_t{1} << 20);
}

TEST(SequentialReader, RefusesLengthsBeforeItReads) {
  const auto bytes = Source(Raw(uint64_t{1} << 50) + "rest");
  const CountingSource source(*bytes);
  {
    SequentialReader reader(source);
    const auto result = reader.String(0, 100, "the title");
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().message(),
              "<memory>: length of the title at offset 0: expected 0 to 100 bytes, found 1125899906842624");
  }
  {
    SequentialReader reader(source);
    const auto result = reader.String(0, ~uint64_t{0}, "the title");
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().message(),
              "<memory>: truncated: the title needs 1125899906842624 bytes at offset 8, found 4");
  }
  EXPECT_LE(source.largest(), 12u);
}

TEST(SequentialReader, PassesReadErrorsOn) {
  class BrokenSource final : public ByteSource {
   public:
    const std::string& name() const override { return name_; }
    uint64_t size() const override { return 100; }
    Status ReadAt(uint64_t, std::span<std::byte>) const override { return IoError("disk on fire"); }

   private:
    std::string name_ = "broken";
  };
  const BrokenSource source;
  SequentialReader reader(source);
  const auto result = reader.Number<uint32_t>("x");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kIo);
}

}  // namespace
}  // namespace espalier
