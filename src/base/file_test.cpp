#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/file_size_limit_for_test.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  FileTest() {
    std::string pattern = (fs::temp_directory_path() / "espalier-file-test-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~FileTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  static std::string Content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  fs::path folder_;
};

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST_F(FileTest, ReadsAnyPartAndNothingBeyond) {
  const auto file = File::Open(Write("f", "0123456789"));
  ASSERT_TRUE(file.ok()) << file.status().message();
  const File& f = **file;
  EXPECT_EQ(f.size(), 10u);
  EXPECT_EQ(f.name(), Path("f"));
  for (uint64_t offset = 0; offset <= 11; ++offset) {
    for (uint64_t length = 0; length <= 12; ++length) {
      std::string out(length, '?');
      const Status status = f.ReadAt(offset, std::as_writable_bytes(std::span(out)));
      ASSERT_EQ(status.ok(), offset + length <= 10) << offset << "+" << length;
      if (status.ok()) {
        EXPECT_EQ(out, std::string("0123456789").substr(offset, length));
      }
    }
  }
}

TEST_F(FileTest, OffsetsThatWouldWrapAroundAreOutOfRange) {
  const auto file = File::Open(Write("f", "0123456789"));
  const std::string content = "0123456789";
  const MemorySource memory(Bytes(content), "in memory");
  for (const ByteSource* source :
       {static_cast<const ByteSource*>(file->get()), static_cast<const ByteSource*>(&memory)}) {
    std::byte out[8];
    const Status status = source->ReadAt(~uint64_t{0} - 3, out);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT_NE(status.message().find(source->name()), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("10 bytes"), std::string::npos) << status.message();
    EXPECT_TRUE(source->ReadAt(10, std::span<std::byte>()).ok());
  }
}

TEST_F(FileTest, OpenNamesWhatIsMissingOrNoFile) {
  const auto missing = File::Open(Path("nothing"));
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), ErrorCode::kNotFound);
  EXPECT_NE(missing.status().message().find(Path("nothing")), std::string::npos) << missing.status().message();
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);  // nobody writes into it
  for (const auto& [path, found] : std::vector<std::pair<std::string, std::string>>{
           {folder_.string(), "a folder"}, {"/dev/null", "a device"}, {Path("pipe"), "a pipe"}}) {
    const auto file = File::Open(path);
    ASSERT_FALSE(file.ok()) << path;
    EXPECT_EQ(file.status().code(), ErrorCode::kIo);
    EXPECT_EQ(file.status().message(), path + ": expected a regular file, found " + found);
  }
}

TEST_F(FileTest, AFileThatShrinksGivesAReadErrorNotZeros) {
  const std::string path = Write("f", std::string(20000, 'x'));
  const auto file = File::Open(path);
  ASSERT_EQ(::truncate(path.c_str(), 5000), 0);
  std::string out(20000, '?');
  const Status status = (*file)->ReadAt(0, std::as_writable_bytes(std::span(out)));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kIo);
  EXPECT_NE(status.message().find("expected 20000 bytes, found 5000"), std::string::npos) << status.message();
}

TEST_F(FileTest, CachedBytesCountsPagesInTheCacheAndDropCacheEmptiesIt) {
  const uint64_t size = 64 * 4096;
  const std::string path = Write("f", std::string(size, 'x'));
  const auto file = File::Open(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::fsync(fd), 0);  // only clean pages can be dropped
  ::close(fd);
  std::string out(size, '?');
  ASSERT_TRUE((*file)->ReadAt(0, std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ((*file)->CachedBytes(0, size), size);
  EXPECT_EQ((*file)->CachedBytes(4095, 2), 2 * 4096u) << "two bytes that touch two pages";
  EXPECT_EQ((*file)->CachedBytes(0, size + 1), 0u) << "a range that is not in the file";
  (*file)->DropCache(0, size);
  // A file system that lives in memory keeps its pages; elsewhere they are gone.
  const uint64_t after = (*file)->CachedBytes(0, size);
  if (after == size) {
    GTEST_SKIP() << folder_ << " keeps its pages, as tmpfs does: DropCache cannot be seen here";
  }
  EXPECT_EQ(after, 0u);
}

TEST_F(FileTest, CommitReplacesTheWholeFile) {
  Write("out", "old");
  auto writer = AtomicFileWriter::Create(Path("out"));
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  ASSERT_TRUE((*writer)->Append(Bytes("new ")).ok());
  ASSERT_TRUE((*writer)->Append(Bytes("content")).ok());
  EXPECT_EQ((*writer)->size(), 11u);
  EXPECT_EQ(Content(Path("out")), "old") << "nothing is visible before Commit";
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_EQ(Content(Path("out")), "new content");
  EXPECT_EQ(Names(), std::vector<std::string>{"out"});
  struct stat info = {};
  ASSERT_EQ(::stat(Path("out").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0644u);
}

TEST_F(FileTest, WithoutCommitTheOldFileStaysAndTheTemporaryGoes) {
  Write("out", "old");
  {
    auto writer = AtomicFileWriter::Create(Path("out"));
    ASSERT_TRUE((*writer)->Append(Bytes("half of the new")).ok());
    EXPECT_EQ(Names().size(), 2u);
  }
  EXPECT_EQ(Content(Path("out")), "old");
  EXPECT_EQ(Names(), std::vector<std::string>{"out"});
}

TEST_F(FileTest, ADiskThatFillsUpInMidWriteLeavesTheOldFileWhole) {
  Write("out", "old");
  {
    auto writer = AtomicFileWriter::Create(Path("out"));
    ASSERT_TRUE(writer.ok());
    const FileSizeLimit limit(100000);
    const std::string chunk(64 * kKiB, 'n');
    ASSERT_TRUE((*writer)->Append(Bytes(chunk)).ok());
    const Status status = (*writer)->Append(Bytes(chunk));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), ErrorCode::kIo);
    EXPECT_NE(status.message().find(Path("out")), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("100000 bytes"), std::string::npos)
        << "how far it came is said: " << status.message();
  }
  EXPECT_EQ(Content(Path("out")), "old");
  EXPECT_EQ(Names(), std::vector<std::string>{"out"});
}

TEST_F(FileTest, WriteWholeFileIsAllOrNothing) {
  ASSERT_TRUE(WriteWholeFile(Path("out"), "old").ok());
  {
    const FileSizeLimit limit(1000);
    const Status status = WriteWholeFile(Path("out"), std::string(5000, 'n'));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), ErrorCode::kIo);
  }
  EXPECT_EQ(Content(Path("out")), "old");
  EXPECT_EQ(Names(), std::vector<std::string>{"out"});
}

TEST_F(FileTest, PlacesThatCannotBeWrittenAreNamed) {
  for (const std::string& path : {Path("no-such-folder/out"), std::string("/proc/espalier-test")}) {
    const auto writer = AtomicFileWriter::Create(path);
    ASSERT_FALSE(writer.ok()) << path;
    EXPECT_EQ(writer.status().code(), ErrorCode::kIo);
    EXPECT_NE(writer.status().message().find(path), std::string::npos) << writer.status().message();
  }
  fs::create_directory(folder_ / "folder");
  std::ofstream(Path("folder/file"));
  const Status status = WriteWholeFile(Path("folder"), "x");
  ASSERT_FALSE(status.ok()) << "a file replaced a folder";
  EXPECT_NE(status.message().find(Path("folder")), std::string::npos) << status.message();
  EXPECT_EQ(Names(), std::vector<std::string>{"folder"});
}

TEST_F(FileTest, ADeviceOrPipeIsNotReplaced) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  const Status status = WriteWholeFile(Path("pipe"), "x");
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(Path("pipe") + ": exists and is not a regular file"), std::string::npos)
      << status.message();
  EXPECT_TRUE(fs::is_fifo(Path("pipe")));
  EXPECT_EQ(Names(), std::vector<std::string>{"pipe"});
}

TEST_F(FileTest, ReadWholeFileReturnsEveryByteAndRefusesMoreThanItsLimit) {
  std::string content(70000, '\0');
  for (size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<char>(i * 31);
  }
  Write("f", content);
  const auto read = ReadWholeFile(Path("f"), content.size());
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read.value(), content);
  const auto refused = ReadWholeFile(Path("f"), content.size() - 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("70000"), std::string::npos) << refused.status().message();
  EXPECT_NE(refused.status().message().find("69999"), std::string::npos) << refused.status().message();
}

}  // namespace
}  // namespace espalier
