// A cgroup tree in a temporary folder, with the files that this layer reads.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "memory/cgroup.h"

namespace espalier {

class FakeCgroup {
 public:
  FakeCgroup() {
    std::string pattern = (std::filesystem::temp_directory_path() / "espalier-cgroup-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    std::filesystem::create_directories(folder_ / "cgroup");
  }
  ~FakeCgroup() { std::filesystem::remove_all(folder_); }
  FakeCgroup(const FakeCgroup&) = delete;
  FakeCgroup& operator=(const FakeCgroup&) = delete;

  // `path` is below the root; folders are made as needed.
  void Write(const std::string& path, const std::string& content) { WriteAt(folder_ / "cgroup" / path, content); }
  void WriteMembership(const std::string& content) { WriteAt(folder_ / "membership", content); }
  void WriteMeminfo(const std::string& content) { WriteAt(folder_ / "meminfo", content); }
  void Remove(const std::string& path) { std::filesystem::remove_all(folder_ / "cgroup" / path); }

  CgroupOptions options() const {
    return {.root = (folder_ / "cgroup").string(), .membership = (folder_ / "membership").string()};
  }
  std::string meminfo() const { return (folder_ / "meminfo").string(); }

 private:
  static void WriteAt(const std::filesystem::path& path, const std::string& content) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }

  std::filesystem::path folder_;
};

}  // namespace espalier
