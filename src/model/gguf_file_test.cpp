#include "model/gguf_file.h"

#include <gguf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <limits>

#include "support/gguf_bytes.h"
#include "support/sparse_file.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

Result<std::shared_ptr<const GgufFile>> ParseBytesOf(const GgufBytes& file) {
  return GgufFile::Parse(Source(file.Build()));
}

// The error is one line that names the file and holds every part.
void ExpectRefusal(const Result<std::shared_ptr<const GgufFile>>& result, ErrorCode code,
                   const std::vector<std::string>& parts) {
  ASSERT_FALSE(result.ok());
  const std::string message = result.status().message();
  EXPECT_EQ(result.status().code(), code) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_NE(message.find("<memory>"), std::string::npos) << message;
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "expected: " << part << "\nmessage:  " << message;
  }
}

struct Refusal {
  std::string what;
  std::function<void(GgufBytes&)> spoil;
  std::vector<std::string> parts;
  ErrorCode code = ErrorCode::kCorrupt;
};

void ExpectRefusals(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.what);
    GgufBytes file = TinyLlama();
    refusal.spoil(file);
    ExpectRefusal(ParseBytesOf(file), refusal.code, refusal.parts);
  }
}

TEST(GgufFile, ReadsEveryTypeOfValue) {
  GgufBytes file = TinyLlama();
  file.Set("x.u8", U8(255));
  file.Set("x.i8", {1, Raw<int8_t>(-128)});
  file.Set("x.u16", {2, Raw<uint16_t>(65535)});
  file.Set("x.i16", {3, Raw<int16_t>(-32768)});
  file.Set("x.i32", I32(-5));
  file.Set("x.f32", F32(0.5f));
  file.Set("x.true", Bool(1));
  file.Set("x.u64", U64(~uint64_t{0}));
  file.Set("x.i64", I64(-(int64_t{1} << 62)));
  file.Set("x.f64", F64(0.1));
  file.Set("x.empty", Str(""));
  file.Set("x.bools", Numbers<uint8_t>(7, {0, 1}));
  const auto parsed = ParseBytesOf(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const GgufFile& gguf = **parsed;
  const auto entry = [&](const char* key) { return gguf.FindEntry(key)->value; };
  EXPECT_EQ(std::get<uint64_t>(entry("x.u8")), 255u);
  EXPECT_EQ(std::get<int64_t>(entry("x.i8")), -128);
  EXPECT_EQ(std::get<uint64_t>(entry("x.u16")), 65535u);
  EXPECT_EQ(std::get<int64_t>(entry("x.i16")), -32768);
  EXPECT_EQ(std::get<int64_t>(entry("x.i32")), -5);
  EXPECT_EQ(std::get<double>(entry("x.f32")), 0.5);
  EXPECT_TRUE(std::get<bool>(entry("x.true")));
  EXPECT_EQ(std::get<uint64_t>(entry("x.u64")), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(std::get<int64_t>(entry("x.i64")), -(int64_t{1} << 62));
  EXPECT_EQ(std::get<double>(entry("x.f64")), 0.1);
  EXPECT_EQ(std::get<std::string>(entry("x.empty")), "");
  EXPECT_EQ(std::get<GgufArray>(entry("x.bools")).numbers, (std::vector<double>{0, 1}));
  EXPECT_EQ(std::get<GgufArray>(entry("tokenizer.ggml.tokens")).strings[2], "</s>");
  EXPECT_EQ(gguf.entries().size(), 29u);
  EXPECT_EQ(gguf.entries()[0].key, "general.architecture");
  EXPECT_EQ(gguf.FindEntry("x.none"), nullptr);
}

TEST(GgufFile, PlacesTensorsByAlignment) {
  for (const uint32_t alignment : {8u, 32u, 4096u}) {
    GgufBytes file = TinyLlama();
    file.alignment = alignment;
    file.Set("general.alignment", U32(alignment));
    const auto parsed = ParseBytesOf(file);
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    const GgufFile& gguf = **parsed;
    EXPECT_EQ(gguf.alignment(), alignment);
    uint64_t expected = file.Metadata().size();
    for (const TensorInfo& tensor : gguf.tensors()) {
      EXPECT_EQ(tensor.offset, expected) << tensor.name;
      expected += file.Padded(tensor.bytes);
    }
    const TensorInfo* down = gguf.FindTensor("blk.0.ffn_down.weight");
    ASSERT_NE(down, nullptr);
    EXPECT_EQ(down->bytes, 16u * 8 * sizeof(float));
    EXPECT_EQ(down->n_dims, 2);
    EXPECT_EQ(down->ne, (std::array<int64_t, 4>{16, 8, 1, 1}));
    EXPECT_EQ(gguf.FindTensor("blk.0.ffn_down"), nullptr);
  }
}

TEST(GgufFile, Versions2And3ReadAlike) {
  GgufBytes file = TinyLlama();
  const auto third = ParseBytesOf(file);
  file.version = 2;
  const auto second = ParseBytesOf(file);
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ((*second)->version(), 2u);
  EXPECT_EQ((*third)->version(), 3u);
  ASSERT_EQ((*second)->entries().size(), (*third)->entries().size());
  for (size_t i = 0; i < file.entries.size(); ++i) {
    EXPECT_EQ((*second)->entries()[i].key, (*third)->entries()[i].key);
    EXPECT_EQ((*second)->entries()[i].type, (*third)->entries()[i].type);
  }
  for (const TensorInfo& tensor : (*third)->tensors()) {
    EXPECT_EQ((*second)->FindTensor(tensor.name)->offset, tensor.offset) << tensor.name;
    EXPECT_EQ((*second)->FindTensor(tensor.name)->ne, tensor.ne) << tensor.name;
  }
}

TEST(GgufFile, AcceptsVersion2AndAMissingLastPadding) {
  GgufBytes file = TinyLlama();
  file.version = 2;
  file.Tensor("blk.0.ffn_down.weight").ne = {15, 1};
  std::string bytes = file.Build();
  bytes.resize(bytes.size() - (64 - 60));
  EXPECT_TRUE(GgufFile::Parse(Source(bytes)).ok());
  bytes.pop_back();
  EXPECT_FALSE(GgufFile::Parse(Source(bytes)).ok());
}

TEST(GgufFile, TypedLookUpsNameKeyExpectedAndFound) {
  GgufBytes file = TinyLlama();
  file.Set("x.big", U64(~uint64_t{0}));
  file.Set("x.negative", I32(-3));
  file.Set("x.nan", F32(std::numeric_limits<float>::quiet_NaN()));
  file.Set("x.flag", Bool(1));
  const auto parsed = ParseBytesOf(file);
  ASSERT_TRUE(parsed.ok());
  const GgufFile& gguf = **parsed;
  EXPECT_EQ(*gguf.Integer("llama.block_count", 1, 9), 1);
  EXPECT_EQ(*gguf.Integer("x.negative", -3, -3), -3);
  EXPECT_EQ(*gguf.String("general.name"), "tiny");
  EXPECT_FLOAT_EQ(static_cast<float>(*gguf.Number("llama.attention.layer_norm_rms_epsilon")), 1e-5f);
  EXPECT_EQ(**gguf.FindBool("x.flag"), true);
  EXPECT_FALSE(gguf.FindInteger("x.none", 0, 1)->has_value());
  EXPECT_FALSE(gguf.FindNumber("x.none")->has_value());
  EXPECT_FALSE(gguf.FindString("x.none")->has_value());
  EXPECT_FALSE(gguf.FindBool("x.none")->has_value());
  EXPECT_EQ(gguf.Integer("x.none", 0, 1).status().message(),
            "<memory>: key 'x.none': expected in the metadata, found none");
  EXPECT_EQ(gguf.Integer("x.big", 0, 7).status().message(),
            "<memory>: key 'x.big': expected 0 to 7, found 18446744073709551615");
  EXPECT_EQ(gguf.Integer("x.negative", 0, 7).status().message(),
            "<memory>: key 'x.negative': expected 0 to 7, found -3");
  EXPECT_EQ(gguf.Integer("general.name", 0, 7).status().message(),
            "<memory>: key 'general.name': expected an integer, found a value of type string");
  EXPECT_EQ(gguf.String("x.flag").status().message(),
            "<memory>: key 'x.flag': expected a string, found a value of type bool");
  EXPECT_FALSE(gguf.Number("x.nan").ok());
  EXPECT_FALSE(gguf.Number("x.big").ok());
  EXPECT_FALSE(gguf.FindBool("x.big").ok());
}

TEST(GgufFile, RefusesABadHeader) {
  const auto version = [](uint32_t v) { return [v](GgufBytes& f) { f.version = v; }; };
  ExpectRefusals({
      {"magic", [](GgufBytes& f) { f.magic = "GGML"; }, {"not a GGUF file", "'GGUF'", "'GGML'"}},
      {"magic with control characters", [](GgufBytes& f) { f.magic = "\x1b[2\n"; }, {"'?[2?'"}},
      {"version 0", version(0), {"expected 2 or 3, found 0"}, ErrorCode::kUnsupported},
      {"version 1", version(1), {"expected 2 or 3, found 1"}, ErrorCode::kUnsupported},
      {"version 4", version(4), {"expected 2 or 3, found 4"}, ErrorCode::kUnsupported},
      {"big endian", version(0x03000000), {"big endian", "little endian"}, ErrorCode::kUnsupported},
      {"tensor count", [](GgufBytes& f) { f.n_tensors = ~uint64_t{0}; }, {"tensor count", "18446744073709551615"}},
      {"metadata count", [](GgufBytes& f) { f.n_entries = uint64_t{1} << 62; }, {"metadata count"}},
      {"more tensors than bytes",
       [](GgufBytes& f) { f.n_tensors = 200; },
       {"truncated", "200 tensors", "at offset 24"}},
      {"one entry too many", [](GgufBytes& f) { f.n_entries = f.entries.size() + 1; }, {}},
      {"one entry too few", [](GgufBytes& f) { f.n_entries = f.entries.size() - 1; }, {}},
      {"one tensor too many", [](GgufBytes& f) { f.n_tensors = f.tensors.size() + 1; }, {"tensor 13 of 13"}},
  });
}

TEST(GgufFile, RefusesBadMetadata) {
  const auto add = [](const char* key, RawValue value) {
    return [=](GgufBytes& f) { f.entries.push_back({key, value}); };
  };
  const std::string huge = Raw(uint64_t{1} << 40);
  ExpectRefusals({
      {"empty key", add("", U32(1)), {"metadata key 18 of 18", "expected 1 to 65535 bytes, found 0"}},
      {"long key", [](GgufBytes& f) { f.Set(std::string(65536, 'k'), U32(1)); }, {"found 65536"}},
      {"key with NUL", [](GgufBytes& f) { f.Set(std::string("a\0b", 3), U32(1)); }, {"NUL", "'a?b'"}},
      {"same key twice", add("general.name", Str("x")), {"key 'general.name'", "found twice"}},
      {"unknown type", add("x", {13, Raw(0)}), {"key 'x'", "0 to 12, found 13"}},
      {"huge type", add("x", {~0u, Raw(0)}), {"key 'x'", "found 4294967295"}},
      {"bool of 2", add("x", Bool(2)), {"key 'x'", "0 or 1, found 2"}},
      {"bool of 2 in an array", add("x", Numbers<uint8_t>(7, {0, 2})), {"key 'x'", "found 2"}},
      {"string beyond the end", add("x", {8, Raw(uint64_t{1} << 20)}), {"truncated", "key 'x'", "1048576"}},
      {"string of 2^40 bytes", add("x", {8, huge}), {"key 'x'", "1099511627776"}},
      {"array of arrays",
       add("x", Array(9, 1, Raw(0) + Raw(uint64_t{0}))),
       {"key 'x'", "array of arrays"},
       ErrorCode::kUnsupported},
      {"array of unknown type", add("x", Array(13, 1, "")), {"key 'x'", "0 to 12, found 13"}},
      {"array beyond the end",
       add("x", Array(4, 1 << 20, "")),
       {"truncated", "1048576 elements of key 'x'", "4194304"}},
      {"array of 2^62 elements", add("x", Array(10, uint64_t{1} << 62, "")), {"key 'x'", "4611686018427387904"}},
      {"strings beyond the end", add("x", Array(8, 1 << 20, "")), {"truncated", "1048576 elements of key 'x'"}},
      {"string in an array beyond the end", add("x", Array(8, 1, huge)), {"key 'x'", "1099511627776"}},
      {"alignment 0", add("general.alignment", U32(0)), {"general.alignment", "found 0"}},
      {"alignment 4", add("general.alignment", U32(4)), {"general.alignment", "found 4"}},
      {"alignment 48", add("general.alignment", U32(48)), {"general.alignment", "found 48"}},
      {"alignment 2^31", add("general.alignment", U32(1u << 31)), {"general.alignment", "found 2147483648"}},
      {"alignment of another type", add("general.alignment", U64(32)), {"expected a uint32", "uint64"}},
      {"split model",
       add("split.count", {2, Raw<uint16_t>(3)}),
       {"3 parts", "split.count", "llama-gguf-split"},
       ErrorCode::kUnsupported},
  });
}

TEST(GgufFile, RefusesBadTensors) {
  const std::string name = "blk.0.attn_q.weight";
  // The file keeps the data of the tensor as it was: only the table lies.
  const auto change = [=](std::function<void(RawTensor&)> edit) {
    return [=](GgufBytes& f) {
      f.Tensor(name).data_bytes = f.Tensor(name).bytes();
      edit(f.Tensor(name));
    };
  };
  const int64_t big = int64_t{1} << 40;
  ExpectRefusals({
      {"empty name", change([](RawTensor& t) { t.name = ""; }), {"name of tensor 5 of 12", "1 to 63 bytes, found 0"}},
      {"long name", change([](RawTensor& t) { t.name = std::string(64, 'n'); }), {"1 to 63 bytes, found 64"}},
      {"name with NUL", change([](RawTensor& t) { t.name = std::string("a\0b", 3); }), {"NUL"}},
      {"same name twice", change([](RawTensor& t) { t.name = "output.weight"; }), {"'output.weight'", "found twice"}},
      {"no dimension", change([](RawTensor& t) { t.n_dims = 0; }), {name, "expected 1 to 4, found 0"}},
      {"five dimensions", change([](RawTensor& t) { t.n_dims = 5; }), {name, "expected 1 to 4, found 5"}},
      {"extent 0",
       change([](RawTensor& t) {
         t.ne = {8, 0};
       }),
       {name, "dimension 1", "found 0"}},
      {"negative extent",
       change([](RawTensor& t) {
         t.ne = {-8, 8};
       }),
       {name, "dimension 0", "found -8"}},
      {"2^80 elements",
       change([=](RawTensor& t) {
         t.ne = {big, big};
       }),
       {name, "dimension 1", "2^63"}},
      {"2^64 elements",
       change([=](RawTensor& t) {
         t.ne = {int64_t{1} << 62, 4};
       }),
       {name, "dimension 1", "2^63"}},
      {"2^42 bytes", change([=](RawTensor& t) { t.ne = {big}; }), {"truncated", name, "4398046511104 bytes"}},
      {"2^62 bytes",
       change([=](RawTensor& t) {
         t.ne = {big, 1 << 20};
       }),
       {name, "blocks of 4 bytes"}},
      {"type beyond the last",
       change([](RawTensor& t) { t.type = GGML_TYPE_COUNT; }),
       {name, "ggml knows"},
       ErrorCode::kUnsupported},
      {"type -1", change([](RawTensor& t) { t.type = ~0u; }), {name, "type 4294967295"}, ErrorCode::kUnsupported},
      {"removed type", change([](RawTensor& t) { t.type = 4; }), {name, "found type 4"}, ErrorCode::kUnsupported},
      {"removed repacked type",
       change([](RawTensor& t) { t.type = 31; }),
       {name, "found type 31"},
       ErrorCode::kUnsupported},
      {"row of a part block",
       change([](RawTensor& t) { t.type = GGML_TYPE_Q4_0; }),
       {name, "multiple of 32", "found 8"}},
      {"offset off the grid", change([](RawTensor& t) { t.offset = 17; }), {name, "multiple of the alignment 32"}},
      {"offset in its predecessor", change([](RawTensor& t) { t.offset = 32; }), {name, "overlap", "found 32"}},
      {"offset beyond", change([](RawTensor& t) { t.offset = 1 << 20; }), {name, "gap", "found 1048576"}},
      {"offset 2^64 - 32", change([](RawTensor& t) { t.offset = ~uint64_t{31}; }), {name, "18446744073709551584"}},
      {"data beyond the end",
       [](GgufBytes& f) { f.tensors.back().data_bytes = 480; },
       {"truncated", "'blk.0.ffn_down.weight'", "512 bytes"}},
  });
}

TEST(GgufFile, RefusesEveryTruncation) {
  const std::string bytes = TinyLlama().Build();
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto result = GgufFile::Parse(Source(bytes.substr(0, length)));
    ASSERT_FALSE(result.ok()) << "at " << length << " of " << bytes.size() << " bytes";
    ASSERT_EQ(result.status().code(), ErrorCode::kCorrupt);
    const std::string expected = length == 0 ? "<memory>: empty: " : "<memory>: truncated: ";
    ASSERT_EQ(result.status().message().rfind(expected, 0), 0u) << length << " bytes: " << result.status().message();
  }
}

// What we accept, other parsers see next: none of it may surprise them.
TEST(GgufFile, WhatItAcceptsGgmlAcceptsToo) {
  ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  const std::string bytes = TinyLlama().Build();
  const size_t metadata = TinyLlama().Metadata().size();
  int accepted = 0;
  for (size_t at = 0; at < metadata; ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string spoiled = bytes;
      spoiled[at] = static_cast<char>(spoiled[at] ^ flip);
      if (!GgufFile::Parse(Source(spoiled)).ok()) {
        continue;
      }
      ++accepted;
      ggml_context* tensors = nullptr;
      gguf_context* gguf = gguf_init_from_buffer(spoiled.data(), spoiled.size(), {/*no_alloc=*/true, &tensors});
      ASSERT_NE(gguf, nullptr) << "byte " << at << " xor " << flip;
      gguf_free(gguf);
      ggml_free(tensors);
    }
  }
  EXPECT_GT(accepted, 100);  // letters of names and keys, values of numbers
  ggml_log_set(nullptr, nullptr);
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name) : path_(std::filesystem::temp_directory_path() / fmt_name(name)) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  std::string path() const { return path_.string(); }

 private:
  static std::string fmt_name(const std::string& name) { return "espalier-" + std::to_string(::getpid()) + "-" + name; }
  std::filesystem::path path_;
};

TEST(GgufFile, ReadsATensorBeyond4GiB) {
  GgufBytes file;
  file.entries = {{"general.name", Str("large")}};
  const int64_t big = (int64_t{1} << 30) + 8;  // 4 GiB + 32 bytes
  file.tensors = {{"first", {big}, GGML_TYPE_F32, {}, {}, {}}, {"second", {8}, GGML_TYPE_F32, {}, {}, {}}};
  const std::string metadata = file.Metadata();
  const uint64_t second = metadata.size() + static_cast<uint64_t>(big) * sizeof(float);
  const std::vector<float> data = {1, 2, 3, 4, 5, 6, 7, 8};
  const TemporaryFile target("large.gguf");
  if (!MakeSparse(target.path(), second + 32)) {
    GTEST_SKIP() << kNoSparseFiles << target.path();
  }
  ASSERT_TRUE(WriteAt(target.path(), 0, metadata));
  ASSERT_TRUE(WriteAt(target.path(), second, {reinterpret_cast<const char*>(data.data()), 32}));

  const auto opened = GgufFile::Open(target.path());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_EQ((*opened)->FindTensor("first")->bytes, (uint64_t{4} << 30) + 32);
  const TensorInfo* tensor = (*opened)->FindTensor("second");
  EXPECT_EQ(tensor->offset, second);
  EXPECT_GT(tensor->offset, uint64_t{4} << 30);
  std::vector<float> read(8);
  ASSERT_TRUE((*opened)->source().ReadAt(tensor->offset, std::as_writable_bytes(std::span(read))).ok());
  EXPECT_EQ(read, data);

  ASSERT_EQ(::truncate(target.path().c_str(), static_cast<off_t>(second + 31)), 0);
  const auto cut = GgufFile::Open(target.path());
  ASSERT_FALSE(cut.ok());
  EXPECT_NE(cut.status().message().find("truncated: tensor 'second' needs 32 bytes"), std::string::npos)
      << cut.status().message();
}

TEST(GgufFile, OpenNamesTheFileThatIsMissing) {
  const auto result = GgufFile::Open("/nonexistent/model.gguf");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(result.status().message().find("/nonexistent/model.gguf"), std::string::npos);
}

}  // namespace
}  // namespace espalier
