#include "base/joined_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/sparse_file.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

using Parts = std::vector<std::shared_ptr<const ByteSource>>;

std::span<std::byte> BytesOf(std::string& text) { return std::as_writable_bytes(std::span(text)); }

std::shared_ptr<const ByteSource> Memory(const std::string& text, const std::string& name = "<memory>") {
  return std::make_shared<MemorySource>(std::as_bytes(std::span(text)), name);
}

class JoinedSourceTest : public testing::Test {
 protected:
  JoinedSourceTest() {
    std::string pattern = (fs::temp_directory_path() / "espalier-joined-source-test-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~JoinedSourceTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::shared_ptr<const ByteSource> Written(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    const int fd = ::open(Path(name).c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::fsync(fd), 0);  // only clean pages can be dropped
    ::close(fd);
    return *File::Open(Path(name));
  }

  fs::path folder_;
};

TEST_F(JoinedSourceTest, ReadsEveryRangeAsOneFileWould) {
  const std::vector<std::string> texts = {"", "012", "3", "", "", "45678", "9", ""};
  Parts parts;
  for (const std::string& text : texts) {
    parts.push_back(Memory(text));
  }
  const std::string whole = "0123456789";
  const auto joined = JoinedSource::Join(std::move(parts));
  ASSERT_TRUE(joined.ok()) << joined.status().message();
  const JoinedSource& source = **joined;
  EXPECT_EQ(source.size(), whole.size());
  for (uint64_t offset = 0; offset <= 12; ++offset) {
    for (uint64_t length = 0; length <= 12; ++length) {
      std::string out(length, '?');
      const Status status = source.ReadAt(offset, BytesOf(out));
      ASSERT_EQ(status.ok(), offset + length <= whole.size()) << offset << "+" << length;
      if (status.ok()) {
        EXPECT_EQ(out, whole.substr(offset, length));
      }
    }
  }
  EXPECT_EQ(source.start(1), 0u);
  EXPECT_EQ(source.start(5), 4u);
  EXPECT_EQ(source.PartAt(0), 1u) << "the first part has no bytes";
  EXPECT_EQ(source.PartAt(3), 2u);
  EXPECT_EQ(source.PartAt(9), 6u);
}

TEST_F(JoinedSourceTest, ARangeBeyondTheEndNamesTheFirstPartAndTheWholeSize) {
  const std::string a = "012";
  const std::string b = "34";
  const auto joined = JoinedSource::Join({Memory(a, "first"), Memory(b, "second")});
  std::string out(4, '?');
  for (const uint64_t offset : {uint64_t{2}, ~uint64_t{0} - 3, ~uint64_t{0}}) {
    const Status status = (*joined)->ReadAt(offset, BytesOf(out));
    ASSERT_FALSE(status.ok()) << offset;
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT_NE(status.message().find("first: 4 bytes wanted at offset"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("5 bytes"), std::string::npos) << status.message();
  }
}

TEST_F(JoinedSourceTest, AReadErrorNamesThePartThatFailed) {
  const auto joined = JoinedSource::Join({Written("a", "0123"), Written("b", "4567"), Written("c", "89")});
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ((*joined)->name(), Path("a"));
  ASSERT_EQ(::truncate(Path("b").c_str(), 1), 0);
  std::string out(10, '?');
  const Status status = (*joined)->ReadAt(0, BytesOf(out));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kIo);
  EXPECT_EQ(status.message(), Path("b") + ": file shrank while it was in use: expected 4 bytes, found 1");
  out.resize(2);
  EXPECT_TRUE((*joined)->ReadAt(8, BytesOf(out)).ok()) << "the other parts are whole";
}

TEST_F(JoinedSourceTest, CountsAndDropsThePageCacheOfEveryPart) {
  const uint64_t page = 4096;
  const auto joined = JoinedSource::Join(
      {Written("a", std::string(4 * page, 'a')), Written("b", "b"), Written("c", std::string(8 * page, 'c'))});
  ASSERT_TRUE(joined.ok());
  const JoinedSource& source = **joined;
  std::string out(source.size(), '?');
  ASSERT_TRUE(source.ReadAt(0, BytesOf(out)).ok());
  EXPECT_EQ(source.CachedBytes(0, source.size()), 13 * page);
  EXPECT_EQ(source.CachedBytes(4 * page - 1, 3), 3 * page) << "a byte of each";
  EXPECT_EQ(source.CachedBytes(source.start(2), page), page);
  EXPECT_EQ(source.CachedBytes(0, source.size() + 1), 0u) << "a range that is not in it";
  source.DropCache(0, source.size() + 1);
  source.DropCache(0, source.start(2) + 2 * page);
  const uint64_t after = source.CachedBytes(0, source.size());
  if (after == 13 * page) {
    GTEST_SKIP() << folder_ << " keeps its pages, as tmpfs does: DropCache cannot be seen here";
  }
  EXPECT_EQ(source.CachedBytes(0, 4 * page), 0u);
  EXPECT_EQ(source.CachedBytes(source.start(2) + 2 * page, 6 * page), 6 * page) << "not asked to be forgotten";
}

// Notes what is asked of it.
class Recorder final : public ByteSource {
 public:
  explicit Recorder(uint64_t size) : size_(size) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  Status ReadAt(uint64_t /*offset*/, std::span<std::byte> /*out*/) const override { return Status::Ok(); }
  void DropCache(uint64_t offset, uint64_t length) const override { dropped.emplace_back(offset, length); }

  mutable std::vector<std::pair<uint64_t, uint64_t>> dropped;

 private:
  uint64_t size_;
  std::string name_ = "recorder";
};

// Where the file system keeps its pages, the test above cannot see this.
TEST_F(JoinedSourceTest, DropsInEachPartWhatLiesInIt) {
  using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;
  const std::vector<std::shared_ptr<Recorder>> parts = {std::make_shared<Recorder>(10), std::make_shared<Recorder>(5),
                                                        std::make_shared<Recorder>(20)};
  const auto joined = JoinedSource::Join({parts[0], parts[1], parts[2]});
  (*joined)->DropCache(7, 10);
  (*joined)->DropCache(10, 5);
  (*joined)->DropCache(34, 1);
  (*joined)->DropCache(34, 2);  // not in it
  EXPECT_EQ(parts[0]->dropped, (Ranges{{7, 3}}));
  EXPECT_EQ(parts[1]->dropped, (Ranges{{0, 5}, {0, 5}}));
  EXPECT_EQ(parts[2]->dropped, (Ranges{{0, 2}, {19, 1}}));
}

TEST_F(JoinedSourceTest, SourcesThatAreNoFilesHaveNoPageCache) {
  const std::string text = "0123";
  const auto joined = JoinedSource::Join({Memory(text), Memory(text)});
  EXPECT_EQ((*joined)->CachedBytes(0, 8), 0u);
  (*joined)->DropCache(0, 8);
}

TEST_F(JoinedSourceTest, ReadsAcrossPartsBeyond4GiB) {
  const uint64_t large = (uint64_t{5} << 30) + 3;
  if (!test::MakeSparse(Path("a"), large) || !test::MakeSparse(Path("b"), large)) {
    GTEST_SKIP() << test::kNoSparseFiles << folder_;
  }
  ASSERT_TRUE(test::WriteAt(Path("a"), large - 2, "01"));
  ASSERT_TRUE(test::WriteAt(Path("b"), 0, "23"));
  ASSERT_TRUE(test::WriteAt(Path("b"), large - 2, "45"));
  const auto joined = JoinedSource::Join({*File::Open(Path("a")), *File::Open(Path("b")), Written("c", "67")});
  ASSERT_TRUE(joined.ok()) << joined.status().message();
  EXPECT_EQ((*joined)->size(), 2 * large + 2);
  std::string out(6, '?');
  ASSERT_TRUE((*joined)->ReadAt(large - 3, BytesOf(out)).ok());
  EXPECT_EQ(out, std::string("\0"
                             "0123"
                             "\0",
                             6));
  ASSERT_TRUE((*joined)->ReadAt(2 * large - 4, BytesOf(out)).ok());
  EXPECT_EQ(out, std::string("\0\0"
                             "4567",
                             6));
  EXPECT_FALSE((*joined)->ReadAt(2 * large - 3, BytesOf(out)).ok());
}

TEST_F(JoinedSourceTest, RefusesMoreBytesThanAFileCanHave) {
  class Vast final : public ByteSource {
   public:
    const std::string& name() const override { return name_; }
    uint64_t size() const override { return uint64_t{1} << 62; }
    Status ReadAt(uint64_t /*offset*/, std::span<std::byte> /*out*/) const override { return Status::Ok(); }

   private:
    std::string name_ = "vast";
  };
  const auto vast = std::make_shared<Vast>();
  EXPECT_TRUE(JoinedSource::Join({vast}).ok());
  const auto joined = JoinedSource::Join({vast, vast});
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(joined.status().message().find("vast: expected at most 9223372036854775807 bytes"), std::string::npos)
      << joined.status().message();
  EXPECT_FALSE(JoinedSource::Join({vast, vast, vast, vast, vast}).ok()) << "2^62 when it has wrapped around";
}

}  // namespace
}  // namespace espalier
