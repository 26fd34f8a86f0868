#include "memory/cgroup.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <span>
#include <string_view>

#include "memory/kernel_file.h"
#include "model/quote.h"

namespace espalier {
namespace {

constexpr uint64_t kNoLimit = uint64_t{1} << 62;
constexpr size_t kMaxDepth = 64;

enum class Version { kV1, kV2 };

// One hierarchy, and the process's group in it.
struct Hierarchy {
  Version version;
  std::string root;
  std::vector<std::string> groups;  // names from below the root down to the process's group
};

bool IsDirectory(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void Note(const Status& problem, CgroupReading* reading) {
  if (reading->problem.ok()) {
    reading->problem = problem;
  }
}

// The names in `path`; none for one that leads out of the namespace.
std::vector<std::string> SplitPath(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view name = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    if (name == "..") {
      return {};
    }
    if (!name.empty() && name != ".") {
      names.emplace_back(name);
    }
  }
  return names;
}

std::string Join(const std::string& root, auto begin, auto end) {
  std::string path = root;
  for (auto name = begin; name != end; ++name) {
    path += '/';
    path += *name;
  }
  return path;
}

// Drops leading names until the rest exists, as the mount may show only a part of the hierarchy. If no end of the path
// does, the process's group has just gone, and the nearest above it that exists counts.
std::vector<std::string> Visible(const std::string& root, std::vector<std::string> groups) {
  for (auto first = groups.begin(); first != groups.end(); ++first) {
    if (IsDirectory(Join(root, first, groups.end()))) {
      return {first, groups.end()};
    }
  }
  while (!groups.empty() && !IsDirectory(Join(root, groups.begin(), groups.end()))) {
    groups.pop_back();
  }
  return groups;
}

bool NamesMemory(std::string_view controllers) {
  while (!controllers.empty()) {
    const size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == "memory") {
      return true;
    }
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

// Lines are "<hierarchy>:<controllers>:<path>"; v2 is "0::<path>". A path may have colons in it.
Result<std::vector<Hierarchy>> FindHierarchies(const CgroupOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string content, ReadKernelFile(options.membership));
  std::vector<Hierarchy> found;
  std::string_view rest = content;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos || line.substr(second + 1, 1) != "/") {
      return Corrupt(fmt::format("{}: expected lines such as '0::/group', found {}", options.membership,
                                 Quote(line.substr(0, 40))));
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    Hierarchy hierarchy = {Version::kV2, options.root, SplitPath(line.substr(second + 1))};
    if (hierarchy.groups.size() > kMaxDepth) {
      return Corrupt(fmt::format("{}: expected at most {} nested groups, found {}", options.membership, kMaxDepth,
                                 hierarchy.groups.size()));
    }
    if (NamesMemory(controllers)) {
      hierarchy.version = Version::kV1;
      hierarchy.root += "/memory";
    } else if (line.substr(0, first) != "0" || !controllers.empty()) {
      continue;
    } else if (IsDirectory(options.root + "/unified")) {
      hierarchy.root += "/unified";  // hybrid
    }
    hierarchy.groups = Visible(hierarchy.root, std::move(hierarchy.groups));
    found.push_back(std::move(hierarchy));
  }
  return found;
}

// Empty: no limit.
Result<std::optional<uint64_t>> ReadLimit(const std::string& path) {
  auto content = ReadKernelFile(path);
  if (!content.ok()) {
    if (content.status().code() == ErrorCode::kNotFound) {
      return std::optional<uint64_t>();
    }
    return content.status();
  }
  std::string_view text = *content;
  text = text.substr(0, std::min(text.find('\n'), text.size()));
  if (text == "max") {
    return std::optional<uint64_t>();
  }
  uint64_t bytes = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  if (rest != text.data() + text.size() || error == std::errc::invalid_argument) {
    return Corrupt(fmt::format("{}: expected a number of bytes or 'max', found {}", path, Quote(text.substr(0, 40))));
  }
  return error == std::errc() && bytes < kNoLimit ? std::optional(bytes) : std::nullopt;
}

// The sum of those fields that there are; which ones there are depends on the kernel's version.
Result<uint64_t> SumFields(const std::string& path, const std::string& stat, const std::string& prefix,
                           std::initializer_list<std::string_view> keys) {
  uint64_t sum = 0;
  for (const std::string_view key : keys) {
    const auto value = KernelField(path, stat, prefix + std::string(key));
    if (!value.ok() && value.status().code() != ErrorCode::kNotFound) {
      return value.status();
    }
    sum += value.ok() ? std::min(*value, kNoLimit / 16) : 0;
  }
  return sum;
}

// Anonymous and shared memory stand in memory.stat twice: by kind, and by the kernel's lists, where locked pages of
// files are with them. The larger sum is what cannot be taken back: adding `unevictable` to the first would count
// locked anonymous memory, such as our own weights, twice.
Result<uint64_t> HeldBytes(Version version, const std::string& path, const std::string& stat) {
  const char* const anonymous = version == Version::kV2 ? "anon" : "rss";
  // v1's plain figures leave out the groups below.
  const std::string prefix = version == Version::kV1 && KernelField(path, stat, "total_rss").ok() ? "total_" : "";
  ESPALIER_RETURN_IF_ERROR(KernelField(path, stat, prefix + anonymous).status());
  ESPALIER_ASSIGN_OR_RETURN(const uint64_t kinds, SumFields(path, stat, prefix, {anonymous, "shmem"}));
  ESPALIER_ASSIGN_OR_RETURN(const uint64_t lists,
                            SumFields(path, stat, prefix, {"inactive_anon", "active_anon", "unevictable"}));
  uint64_t kernel = 0;
  // v1 has one figure for the kernel's memory, with caches in it that it can drop: that is left to the margin.
  if (version == Version::kV2) {
    ESPALIER_ASSIGN_OR_RETURN(kernel, SumFields(path, stat, "",
                                                {"kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc",
                                                 "slab_unreclaimable", "sock"}));
  }
  return std::max(kinds, lists) + kernel;
}

// v1 writes the smallest limit of all groups above into memory.stat, those above the mount included.
void AddHierarchicalLimit(const std::string& path, const std::string& stat, CgroupReading* reading,
                          std::vector<CgroupBound>* bounds) {
  const auto limit = KernelField(path, stat, "hierarchical_memory_limit");
  if (!limit.ok()) {
    if (limit.status().code() != ErrorCode::kNotFound) {
      Note(limit.status(), reading);
    }
  } else if (*limit < kNoLimit) {
    bounds->push_back({.file = path, .hard = true, .limit_bytes = *limit});
  }
}

// `innermost`: the first of the walk; in v1 its memory.stat tells of limits beyond what the mount shows.
void ReadGroup(Version version, const std::string& group, bool innermost, CgroupReading* reading) {
  struct LimitFile {
    const char* name;
    bool hard;
  };
  static constexpr LimitFile kV1Files[] = {{"/memory.limit_in_bytes", true}};
  static constexpr LimitFile kV2Files[] = {{"/memory.max", true}, {"/memory.high", false}};

  std::vector<CgroupBound> bounds;
  for (const LimitFile& file : version == Version::kV1 ? std::span<const LimitFile>(kV1Files) : kV2Files) {
    const auto limit = ReadLimit(group + file.name);
    if (!limit.ok()) {
      Note(limit.status(), reading);
    } else if (limit->has_value()) {
      bounds.push_back({.file = group + file.name, .hard = file.hard, .limit_bytes = **limit});
    }
  }
  const bool wants_hierarchical = version == Version::kV1 && innermost;
  if (bounds.empty() && !wants_hierarchical) {
    return;  // memory.stat is the dear one
  }
  const std::string stat_path = group + "/memory.stat";
  const auto stat = ReadKernelFile(stat_path);
  uint64_t held_bytes = 0;
  if (stat.ok()) {
    if (wants_hierarchical) {
      AddHierarchicalLimit(stat_path, *stat, reading, &bounds);
    }
    const auto held = HeldBytes(version, stat_path, *stat);
    if (held.ok()) {
      held_bytes = *held;
    } else if (!bounds.empty()) {
      Note(held.status(), reading);
    }
  } else if (!bounds.empty() || stat.status().code() != ErrorCode::kNotFound) {
    Note(stat.status(), reading);
  }
  for (CgroupBound& bound : bounds) {
    bound.held_bytes = held_bytes;
    reading->bounds.push_back(std::move(bound));
  }
}

}  // namespace

uint64_t CgroupBound::ShareBytes(uint64_t own_anonymous_bytes) const {
  const uint64_t others = held_bytes > own_anonymous_bytes ? held_bytes - own_anonymous_bytes : 0;
  return limit_bytes > others ? limit_bytes - others : 0;
}

Result<CgroupReading> ReadCgroup(const CgroupOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(const std::vector<Hierarchy> hierarchies, FindHierarchies(options));
  CgroupReading reading;
  for (const Hierarchy& hierarchy : hierarchies) {
    for (auto end = hierarchy.groups.end();; --end) {
      ReadGroup(hierarchy.version, Join(hierarchy.root, hierarchy.groups.begin(), end), end == hierarchy.groups.end(),
                &reading);
      if (end == hierarchy.groups.begin()) {
        break;
      }
    }
  }
  return reading;
}

const CgroupBound* TightestBound(const CgroupReading& reading, uint64_t own_anonymous_bytes, bool hard_only) {
  const CgroupBound* tightest = nullptr;
  for (const CgroupBound& bound : reading.bounds) {
    if ((bound.hard || !hard_only) &&
        (tightest == nullptr || bound.ShareBytes(own_anonymous_bytes) < tightest->ShareBytes(own_anonymous_bytes))) {
      tightest = &bound;
    }
  }
  return tightest;
}

}  // namespace espalier
