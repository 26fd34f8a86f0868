#include "memory/kernel_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace espalier {
namespace {

TEST(KernelFile, ReadsFilesWhoseSizeIsGivenAsZero) {
  ASSERT_EQ(std::filesystem::file_size("/proc/self/status"), 0u);
  const auto content = ReadKernelFile("/proc/self/status");
  ASSERT_TRUE(content.ok()) << content.status().message();
  EXPECT_EQ(*KernelField("status", *content, "Pid"), static_cast<uint64_t>(getpid()));
}

TEST(KernelFile, WhatIsNotThereIsNotFoundAndAFolderIsAnError) {
  EXPECT_EQ(ReadKernelFile("/proc/self/no-such-file").status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(ReadKernelFile("/proc/self/status/below").status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(ReadKernelFile("/proc/self").status().code(), ErrorCode::kIo);
}

TEST(KernelFile, RefusesWhatIsTooLargeForSuchAFileAndDoesNotWaitForAPipe) {
  std::string pattern = (std::filesystem::temp_directory_path() / "espalier-kernel-file-XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(pattern.data());
  std::ofstream(folder / "large") << std::string(300 * 1024, '1');
  const auto large = ReadKernelFile((folder / "large").string());
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.status().code(), ErrorCode::kIo);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const auto pipe = ReadKernelFile((folder / "pipe").string());
  ASSERT_TRUE(pipe.ok());
  EXPECT_EQ(*pipe, "");
  std::filesystem::remove_all(folder);
}

TEST(KernelField, FindsTheKeyAsAWholeWordAtTheStartOfALine) {
  const std::string content = "total_anon 1\nanon_thp 2\nanon 3\nMemTotal:   4 kB\nlast 5";
  EXPECT_EQ(*KernelField("f", content, "anon"), 3u);
  EXPECT_EQ(*KernelField("f", content, "total_anon"), 1u);
  EXPECT_EQ(*KernelField("f", content, "MemTotal"), 4u);
  EXPECT_EQ(*KernelField("f", content, "last"), 5u);
  EXPECT_EQ(KernelField("f", content, "file").status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(KernelField("f", "", "file").status().code(), ErrorCode::kNotFound);
}

TEST(KernelField, AnythingButANumberIsCorruptAndNamed) {
  for (const char* content :
       {"anon", "anon ", "anon\n1", "anon -1", "anon 12x", "anon x", "anon 18446744073709551616"}) {
    const auto value = KernelField("memory.stat", content, "anon");
    ASSERT_FALSE(value.ok()) << content;
    EXPECT_EQ(value.status().code(), ErrorCode::kCorrupt) << content;
    EXPECT_NE(value.status().message().find("memory.stat: 'anon'"), std::string::npos) << value.status().message();
  }
}

}  // namespace
}  // namespace espalier
