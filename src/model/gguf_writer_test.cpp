#include "model/gguf_writer.h"

#include <gtest/gtest.h>

#include <array>

#include "model/gguf_file.h"
#include "support/gguf_bytes.h"

namespace espalier {
namespace {

std::shared_ptr<const GgufFile> ParseOrFail(const std::string& bytes, const GgufParseOptions& options = {}) {
  const auto file = GgufFile::Parse(test::Source(bytes), options);
  EXPECT_TRUE(file.ok()) << file.status().message();
  return file.ok() ? *file : nullptr;
}

std::string HeaderBytes(const GgufHeader& header) {
  const auto bytes = header.Bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(GgufHeader, ReadsBackAsSetInOrder) {
  GgufHeader header;
  header.SetText("z.text", "a b");
  header.SetUint32("u32", 7);
  header.SetUint64("u64", UINT64_MAX);
  header.SetInt64("i64", -5);
  header.SetFloat("f32", 0.5f);
  header.SetTexts("texts", std::array<std::string, 2>{"x", ""});
  header.SetFloats("floats", std::array<float, 2>{1, 2});
  header.SetInt32s("ints", std::array<int32_t, 3>{1, -2, 3});
  const auto file = ParseOrFail(HeaderBytes(header));
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(file->entries().size(), 8u);
  EXPECT_EQ(file->entries()[0].key, "z.text");
  EXPECT_EQ(*file->String("z.text"), "a b");
  EXPECT_EQ(*file->Integer("u32", 0, 100), 7);
  EXPECT_EQ(std::get<uint64_t>(file->FindEntry("u64")->value), UINT64_MAX);
  EXPECT_EQ(*file->Integer("i64", -10, 10), -5);
  EXPECT_EQ(*file->Number("f32"), 0.5);
  EXPECT_EQ(std::get<GgufArray>(file->FindEntry("texts")->value).strings, (std::vector<std::string>{"x", ""}));
  EXPECT_EQ(std::get<GgufArray>(file->FindEntry("floats")->value).numbers, (std::vector<double>{1, 2}));
  EXPECT_EQ(std::get<GgufArray>(file->FindEntry("ints")->value).numbers, (std::vector<double>{1, -2, 3}));
}

TEST(GgufHeader, LaysTensorsOutOneBehindTheOther) {
  GgufHeader header;
  header.AddTensor("a", GGML_TYPE_F64, std::array<int64_t, 2>{2, 3});
  header.AddTensor("b", GGML_TYPE_I8, std::array<int64_t, 1>{5});
  std::string bytes = HeaderBytes(header);
  const size_t start = bytes.size();
  EXPECT_EQ(start % kGgufAlignment, 0u);
  bytes.resize(start + 64 + 32);
  const auto file = ParseOrFail(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->FindTensor("a")->offset, start);
  EXPECT_EQ(file->FindTensor("a")->bytes, 48u);
  EXPECT_EQ(file->FindTensor("b")->offset, start + 64);
  EXPECT_EQ(file->FindTensor("b")->n_dims, 1);
}

TEST(GgufFile, ThatWasCutGivesItsTableWhereThatIsAskedFor) {
  GgufHeader header;
  header.SetUint32("x", 3);
  header.AddTensor("a", GGML_TYPE_F64, std::array<int64_t, 2>{1 << 20, 4});
  header.AddTensor("b", GGML_TYPE_I8, std::array<int64_t, 1>{5});
  const std::string bytes = HeaderBytes(header);
  EXPECT_FALSE(GgufFile::Parse(test::Source(bytes)).ok());
  const auto file = ParseOrFail(bytes, {.may_be_cut = true});
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->Integer("x", 0, 9), 3);
  EXPECT_EQ(file->FindTensor("a")->bytes, uint64_t{8} << 22);
  EXPECT_EQ(file->FindTensor("b")->offset, bytes.size() + (uint64_t{8} << 22));
  for (size_t size = 0; size + kGgufAlignment < bytes.size(); ++size) {
    EXPECT_FALSE(GgufFile::Parse(test::Source(bytes.substr(0, size)), {.may_be_cut = true}).ok()) << size;
  }
}

TEST(GgufFile, CutOrNotTensorsHaveBounds) {
  test::GgufBytes file;
  file.Tensor("a").ne = {int64_t{1} << 60};
  EXPECT_FALSE(GgufFile::Parse(test::Source(file.Metadata()), {.may_be_cut = true}).ok());
}

}  // namespace
}  // namespace espalier
