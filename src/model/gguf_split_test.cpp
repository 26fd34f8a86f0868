// Models in several files, each written by hand, right or deliberately wrong.
#include "model/gguf_split.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/fingerprint.h"
#include "model/model.h"
#include "support/gguf_bytes.h"
#include "support/sanitizers.h"
#include "support/small_llama.h"
#include "support/sparse_file.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

namespace fs = std::filesystem;

// `model` in files of `most_tensors` tensors, with the keys and types that llama-gguf-split writes.
std::vector<GgufBytes> InParts(const GgufBytes& model, size_t most_tensors, bool no_tensor_first = false) {
  std::vector<GgufBytes> parts;
  if (no_tensor_first) {
    parts.emplace_back();
  }
  for (size_t at = 0; at < model.tensors.size(); at += most_tensors) {
    GgufBytes& part = parts.emplace_back();
    const size_t end = std::min(model.tensors.size(), at + most_tensors);
    part.tensors.assign(model.tensors.begin() + static_cast<std::ptrdiff_t>(at),
                        model.tensors.begin() + static_cast<std::ptrdiff_t>(end));
  }
  parts.front().entries = model.entries;
  for (size_t no = 0; no < parts.size(); ++no) {
    parts[no].version = model.version;
    parts[no].Set("split.no", U16(static_cast<uint16_t>(no)));
    parts[no].Set("split.tensors.count", I32(static_cast<int32_t>(model.tensors.size())));
    parts[no].Set("split.count", U16(static_cast<uint16_t>(parts.size())));
  }
  return parts;
}

class GgufSplitTest : public testing::Test {
 protected:
  GgufSplitTest() {
    std::string pattern = (fs::temp_directory_path() / "espalier-gguf-split-test-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~GgufSplitTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string PathOf(size_t no, size_t count) const {
    return SplitPath(Path("m"), static_cast<int>(no), static_cast<int>(count));
  }
  static void Write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }

  // Writes the parts in place of those that were there before; the path of the first.
  std::string WriteParts(const std::vector<GgufBytes>& parts) const {
    for (const auto& old : fs::directory_iterator(folder_)) {
      fs::remove(old);
    }
    for (size_t no = 0; no < parts.size(); ++no) {
      Write(PathOf(no, parts.size()), WithRandomData(parts[no]));
    }
    return PathOf(0, parts.size());
  }

  // The error is one line that begins with the path and holds every part.
  static void ExpectRefusal(const Result<std::shared_ptr<const GgufFile>>& result, ErrorCode code,
                            const std::string& path, const std::vector<std::string>& parts) {
    ASSERT_FALSE(result.ok());
    const std::string message = result.status().message();
    EXPECT_EQ(result.status().code(), code) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with(path + ": ")) << "expected: " << path << "\nmessage:  " << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << "expected: " << part << "\nmessage:  " << message;
    }
  }

  fs::path folder_;
};

// Data by name.
std::map<std::string, std::string> DataOf(const GgufFile& file) {
  std::map<std::string, std::string> data;
  for (const TensorInfo& tensor : file.tensors()) {
    std::string& bytes = data[tensor.name];
    bytes.resize(tensor.bytes);
    const Status read = file.source().ReadAt(tensor.offset, std::as_writable_bytes(std::span(bytes)));
    EXPECT_TRUE(read.ok()) << read.message();
  }
  return data;
}

TEST_F(GgufSplitTest, NamesFollowLlamaCppsRule) {
  EXPECT_EQ(SplitPath("/models/name", 0, 3), "/models/name-00001-of-00003.gguf");
  EXPECT_EQ(SplitPath("x", 11, 100000), "x-00012-of-100000.gguf");
  EXPECT_EQ(SplitPrefix("/models/name-00001-of-00003.gguf", 0, 3), "/models/name");
  EXPECT_EQ(SplitPrefix("a-00001-of-00003.gguf-00002-of-00003.gguf", 1, 3), "a-00001-of-00003.gguf");
  EXPECT_EQ(SplitPrefix("name-00001-of-00003.gguf", 1, 3), std::nullopt);
  EXPECT_EQ(SplitPrefix("name-00001-of-00003.gguf", 0, 4), std::nullopt);
  EXPECT_EQ(SplitPrefix("name-1-of-3.gguf", 0, 3), std::nullopt);
  EXPECT_EQ(SplitPrefix("-00001-of-00003.gguf", 0, 3), std::nullopt) << "llama.cpp wants a prefix";
}

TEST_F(GgufSplitTest, HoweverItIsSplitTheModelIsTheSame) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes model = TinyLlama();
    model.version = version;
    Write(Path("whole.gguf"), WithRandomData(model));
    const auto whole = GgufFile::Open(Path("whole.gguf"));
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    const auto whole_data = DataOf(**whole);
    const auto fingerprint = Fingerprint(**Model::FromGguf(*whole));
    EXPECT_EQ((*whole)->paths().size(), 1u);
    for (const bool no_tensor_first : {false, true}) {
      for (size_t most = 1; most <= model.tensors.size(); ++most) {
        SCOPED_TRACE(fmt::format("version {}, {} tensors a file, {}", version, most, no_tensor_first));
        const auto parts = InParts(model, most, no_tensor_first);
        const auto opened = GgufFile::Open(WriteParts(parts));
        ASSERT_TRUE(opened.ok()) << opened.status().message();
        const GgufFile& file = **opened;
        EXPECT_EQ(file.path(), PathOf(0, parts.size()));
        ASSERT_EQ(file.paths().size(), parts.size());
        uint64_t bytes = 0;
        for (size_t no = 0; no < parts.size(); ++no) {
          EXPECT_EQ(file.paths()[no], PathOf(no, parts.size()));
          bytes += fs::file_size(PathOf(no, parts.size()));
        }
        EXPECT_EQ(file.source().size(), bytes);
        EXPECT_EQ(file.version(), version);
        EXPECT_EQ(file.entries().size(), parts[0].entries.size()) << "the first file's, no more";
        EXPECT_EQ(DataOf(file), whole_data);
        for (const TensorInfo& tensor : (*whole)->tensors()) {
          const TensorInfo* found = file.FindTensor(tensor.name);
          ASSERT_NE(found, nullptr) << tensor.name;
          EXPECT_EQ(found->ne, tensor.ne);
        }
        const auto loaded = Model::FromGguf(*opened);
        ASSERT_TRUE(loaded.ok()) << loaded.status().message();
        EXPECT_EQ(*Fingerprint(**loaded), *fingerprint) << "a profile serves both";
      }
    }
  }
}

TEST_F(GgufSplitTest, EachFileHasItsOwnAlignment) {
  // As llama-gguf-split leaves it: the key is in the first file alone.
  auto parts = InParts(TinyLlama(), 5);
  parts[0].alignment = 4096;
  parts[0].Set("general.alignment", U32(4096));
  parts[2].alignment = 8;
  parts[2].Set("general.alignment", U32(8));
  const auto opened = GgufFile::Open(WriteParts(parts));
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_EQ((*opened)->alignment(), 4096u);
  Write(Path("whole"), WithRandomData(TinyLlama()));
  EXPECT_EQ(DataOf(**opened), DataOf(**GgufFile::Open(Path("whole"))));
}

TEST_F(GgufSplitTest, AFileThatWasMergedIsWhole) {
  for (const auto count : {uint16_t{0}, uint16_t{1}}) {
    GgufBytes merged = TinyLlama();
    merged.Set("split.no", U16(0));
    merged.Set("split.tensors.count", I32(12));
    merged.Set("split.count", U16(count));
    Write(Path("any name"), merged.Build());
    const auto opened = GgufFile::Open(Path("any name"));
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    EXPECT_EQ((*opened)->paths().size(), 1u);
    EXPECT_EQ(*SplitCount(**opened), 1);
  }
}

struct Refusal {
  std::string what;
  std::function<void(std::vector<GgufBytes>&)> spoil;
  size_t culprit;  // the file that is named
  std::vector<std::string> parts;
  ErrorCode code = ErrorCode::kCorrupt;
};

TEST_F(GgufSplitTest, RefusesPartsThatDoNotBelongTogether) {
  const auto set = [](size_t no, const char* key, const RawValue& value) {
    return [=](std::vector<GgufBytes>& p) { p[no].Set(key, value); };
  };
  const auto remove = [](size_t no, const char* key) { return [=](std::vector<GgufBytes>& p) { p[no].Remove(key); }; };
  const std::vector<Refusal> refusals = {
      {"two files changed places", [](auto& p) { std::swap(p[1], p[2]); }, 1, {"'split.no'", "expected 1", "found 2"}},
      {"a second first one", [](auto& p) { p[2] = p[0]; }, 2, {"'split.no'", "expected 2", "found 0"}},
      {"no number", remove(2, "split.no"), 2, {"'split.no'", "found none"}},
      {"no number in the first", remove(0, "split.no"), 0, {"'split.no'", "found none"}},
      {"number beyond the count", set(0, "split.no", U16(3)), 0, {"'split.no'", "expected 0 to 2, found 3"}},
      {"another count", set(1, "split.count", U16(4)), 1, {"'split.count'", "expected 3", "found 4"}},
      {"another number of tensors", set(1, "split.tensors.count", I32(13)), 1, {"expected 12", "found 13"}},
      {"a negative number of tensors", set(0, "split.tensors.count", I32(-1)), 0, {"found -1"}},
      {"tensors without bound", set(0, "split.tensors.count", I32(1 << 30)), 0, {"1 to 16384, found 1073741824"}},
      {"no number of tensors", remove(0, "split.tensors.count"), 0, {"'split.tensors.count'", "found none"}},
      {"a tensor less",
       [](auto& p) { p[1].tensors.pop_back(); },
       0,
       {"tensor count", "expected 12 in the model's 3 files", "'split.tensors.count'", "found 11"}},
      {"a tensor more",
       [](auto& p) { p[2].Tensor("extra").ne = {8}; },
       2,
       {"tensor count", "expected at most 12", "found 13"}},
      {"more tensors in the first than in all",
       [](auto& p) {
         for (GgufBytes& part : p) {
           part.Set("split.tensors.count", I32(4));
         }
       },
       1,
       {"tensor count", "expected at most 4", "found 10"}},
      {"a tensor twice",
       [](auto& p) { p[2].tensors[0].name = p[0].tensors[1].name; },
       2,
       {"tensor 'output_norm.weight'", "expected in one", "m-00001-of-00003.gguf"}},
      // libllama refuses the first file's, and aborts on the others'.
      {"number of another type", set(1, "split.no", U32(1)), 1, {"'split.no'", "uint16", "uint32"}},
      {"numbers", set(1, "split.no", Numbers<uint16_t>(2, {1})), 1, {"'split.no'", "uint16", "array"}},
      {"first number of another type", set(0, "split.no", U32(0)), 0, {"'split.no'", "uint16", "uint32"}},
      {"count of another type", set(0, "split.count", U32(3)), 0, {"'split.count'", "uint16", "uint32"}},
      {"number of tensors of another type",
       set(0, "split.tensors.count", U32(12)),
       0,
       {"'split.tensors.count'", "int32", "uint32"}},
      {"a later file that is no GGUF", [](auto& p) { p[1].magic = "GGML"; }, 1, {"not a GGUF file"}},
      {"a later file with a bad tensor", [](auto& p) { p[1].tensors[0].offset = 32; }, 1, {"offset", "found 32"}},
      {"an offset near 2^64",
       [](auto& p) { p[1].tensors[1].offset = ~uint64_t{31}; },
       1,
       {"found 18446744073709551584"}},
      {"a data size near 2^64",
       [](auto& p) {
         p[2].tensors.back().data_bytes = 512;
         p[2].tensors.back().ne = {int64_t{1} << 61};
       },
       2,
       {"'blk.0.ffn_down.weight'", "2305843009213693952 blocks"}},
  };
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.what);
    auto parts = InParts(TinyLlama(), 5);
    ASSERT_EQ(parts.size(), 3u);
    refusal.spoil(parts);
    for (size_t no = 0; no < parts.size(); ++no) {
      Write(PathOf(no, 3), parts[no].Build());
    }
    ExpectRefusal(GgufFile::Open(PathOf(0, 3)), refusal.code, PathOf(refusal.culprit, 3), refusal.parts);
  }
}

TEST_F(GgufSplitTest, KeysThatLibllamaDoesNotAskForMayBeMissing) {
  auto parts = InParts(TinyLlama(), 5);
  for (size_t no = 1; no < parts.size(); ++no) {
    parts[no].Remove("split.count");
    parts[no].Remove("split.tensors.count");
  }
  EXPECT_TRUE(GgufFile::Open(WriteParts(parts)).ok());
}

TEST_F(GgufSplitTest, AnotherFileThanTheFirstIsRefusedWithTheNameOfTheFirst) {
  const auto parts = InParts(TinyLlama(), 5);
  WriteParts(parts);
  for (const size_t no : {size_t{1}, size_t{2}}) {
    ExpectRefusal(GgufFile::Open(PathOf(no, 3)), ErrorCode::kInvalidArgument, PathOf(no, 3),
                  {"expected the first of the model's 3 files, " + PathOf(0, 3), fmt::format("found file {}", no + 1)});
  }
  fs::rename(PathOf(1, 3), Path("renamed.gguf"));
  ExpectRefusal(GgufFile::Open(Path("renamed.gguf")), ErrorCode::kInvalidArgument, Path("renamed.gguf"),
                {"expected the first of the model's 3 files, found file 2"});
}

TEST_F(GgufSplitTest, AFirstFileOfAnotherNameIsRefusedWithTheRule) {
  WriteParts(InParts(TinyLlama(), 5));
  for (const std::string name : {"model.gguf", "m-00001-of-00004.gguf", "m-00002-of-00003.gguf", "m-1-of-3.gguf"}) {
    fs::copy_file(PathOf(0, 3), Path(name), fs::copy_options::overwrite_existing);
    ExpectRefusal(GgufFile::Open(Path(name)), ErrorCode::kInvalidArgument, Path(name),
                  {"NAME-00001-of-00003.gguf", "found another"});
  }
}

TEST_F(GgufSplitTest, EveryMissingFileIsNamed) {
  for (const size_t missing : {size_t{1}, size_t{2}}) {
    const std::string first = WriteParts(InParts(TinyLlama(), 5));
    fs::remove(PathOf(missing, 3));
    ExpectRefusal(GgufFile::Open(first), ErrorCode::kNotFound, PathOf(missing, 3),
                  {"No such file", fmt::format("file {} of the 3", missing + 1)});
  }
}

TEST_F(GgufSplitTest, EveryTruncationOfALaterFileIsRefusedByItsName) {
  const std::string first = WriteParts(InParts(TinyLlama(), 5));
  const std::string last = PathOf(2, 3);
  for (uint64_t size = fs::file_size(last); size-- > 0;) {
    fs::resize_file(last, size);
    const auto opened = GgufFile::Open(first);
    ASSERT_FALSE(opened.ok()) << size;
    ASSERT_EQ(opened.status().code(), ErrorCode::kCorrupt) << opened.status().message();
    ASSERT_TRUE(opened.status().message().starts_with(last + ": ")) << opened.status().message();
  }
}

TEST_F(GgufSplitTest, TooManyFilesAreRefusedBeforeAnyIsOpened) {
  for (const auto count : {uint16_t{kMaxSplitParts + 1}, uint16_t{65535}}) {
    auto parts = InParts(TinyLlama(), 5);
    parts[0].Set("split.count", U16(count));
    const std::string path = PathOf(0, count);
    Write(path, parts[0].Build());
    ExpectRefusal(GgufFile::Open(path), ErrorCode::kUnsupported, path,
                  {"at most 1024 files", fmt::format("found {}", count), "llama-gguf-split --merge"});
  }
}

int LowestFreeDescriptor() {
  const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(fd);
  return fd;
}

TEST_F(GgufSplitTest, WithTooFewDescriptorsTheErrorSaysWhereItStoppedAndNoneIsLost) {
  if (test::kSanitized) {
    GTEST_SKIP() << "the check of virtual tables opens pipes, and takes it for a wrong table when it cannot";
  }
  const std::string first = WriteParts(InParts(TinyLlama(), 2));  // 6 files
  const int free = LowestFreeDescriptor();
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit three = {static_cast<rlim_t>(free) + 3, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &three), 0);
  const auto opened = GgufFile::Open(first);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ExpectRefusal(opened, ErrorCode::kIo, PathOf(3, 6), {"Too many open files", "file 4 of the 6"});
  EXPECT_EQ(LowestFreeDescriptor(), free);
}

// Two files of 5 GiB, sparse: the second one's tensors lie beyond 5 GiB of the whole, and its last beyond 10.
TEST_F(GgufSplitTest, ReadsTensorsBeyond4GiBOfEveryFile) {
  GgufBytes model;
  model.entries = {{"general.name", Str("large")}};
  const int64_t many = int64_t{5} << 28;  // 5 GiB of floats
  for (const char* name : {"a.vast", "a.last", "b.vast", "b.last"}) {
    model.Tensor(name).ne = {name[2] == 'v' ? many : 8};
  }
  const auto parts = InParts(model, 2);
  std::vector<uint64_t> sizes;
  for (size_t no = 0; no < parts.size(); ++no) {
    const std::string metadata = parts[no].Metadata();
    const uint64_t last = metadata.size() + static_cast<uint64_t>(many) * sizeof(float);
    sizes.push_back(last + 32);
    if (!MakeSparse(PathOf(no, 2), sizes[no])) {
      GTEST_SKIP() << kNoSparseFiles << folder_;
    }
    ASSERT_TRUE(WriteAt(PathOf(no, 2), 0, metadata));
    ASSERT_TRUE(WriteAt(PathOf(no, 2), last, std::string(32, no == 0 ? 'a' : 'b')));
    ASSERT_TRUE(WriteAt(PathOf(no, 2), last - 16, std::string(16, no == 0 ? 'A' : 'B')));
  }
  const auto opened = GgufFile::Open(PathOf(0, 2));
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const GgufFile& file = **opened;
  EXPECT_EQ(file.source().size(), sizes[0] + sizes[1]);
  EXPECT_EQ(file.FindTensor("b.last")->offset, sizes[0] + sizes[1] - 32);
  for (const char letter : {'a', 'b'}) {
    const std::string name(1, letter);
    std::string data(32, '?');
    const auto read = [&](const TensorInfo* tensor, uint64_t at) {
      return file.source().ReadAt(tensor->offset + at, std::as_writable_bytes(std::span(data))).ok();
    };
    ASSERT_TRUE(read(file.FindTensor(name + ".last"), 0));
    EXPECT_EQ(data, std::string(32, letter));
    const TensorInfo* vast = file.FindTensor(name + ".vast");
    EXPECT_EQ(vast->bytes, uint64_t{5} << 30);
    ASSERT_TRUE(read(vast, vast->bytes - 32));
    EXPECT_EQ(data, std::string(16, '\0') + std::string(16, static_cast<char>(std::toupper(letter))));
  }
}

}  // namespace
}  // namespace espalier
