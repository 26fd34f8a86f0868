#include "base/region.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.h"

namespace espalier {
namespace {
constexpr uint64_t kHugePage = 2 * kMiB;
}

uint64_t Region::PageSize() {
  static const auto size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Result<Region> Region::Map(uint64_t size, Pages pages) {
  const uint64_t page = PageSize();
  if (size == 0 || size > (uint64_t{1} << 46)) {
    return InvalidArgument(fmt::format("memory region: {} bytes asked for, expected 1 to 2^46", size));
  }
  Region region;
  region.size_ = RoundUp(size, page);
  const uint64_t alignment = pages == Pages::kHuge ? kHugePage : page;
  // PROT_NONE first: the fences stay inaccessible and cost no memory. At least one fence page on each side.
  region.mapping_size_ = region.size_ + alignment + page;
  void* mapping = ::mmap(nullptr, region.mapping_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return Status(ErrorCode::kIo,
                  fmt::format("memory region: mapping {} failed: {}", FormatBytes(region.size_), std::strerror(errno)));
  }
  region.mapping_ = mapping;
  const auto start = RoundUp(reinterpret_cast<uintptr_t>(mapping) + page, alignment);
  auto* const data = reinterpret_cast<std::byte*>(start);
  if (::mprotect(data, region.size_, PROT_READ | PROT_WRITE) != 0) {
    return Status(ErrorCode::kIo, fmt::format("memory region: {} cannot be made writable: {}",
                                              FormatBytes(region.size_), std::strerror(errno)));
  }
  region.data_ = data;
  ::madvise(data, region.size_, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return region;
}

Region::~Region() {
  if (mapping_ != nullptr) {
    ::munmap(mapping_, mapping_size_);
  }
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_size_(std::exchange(other.mapping_size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_size_, other.mapping_size_);
  return *this;
}

void Region::Discard(uint64_t offset, uint64_t length) {
  const uint64_t begin = RoundUp(offset, PageSize());
  const uint64_t end = RoundDown(offset + length, PageSize());
  if (end > begin) {
    ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
  }
}

void Region::Populate() {
#ifdef MADV_POPULATE_WRITE
  if (::madvise(data_, size_, MADV_POPULATE_WRITE) == 0) {
    return;
  }
#endif
  for (uint64_t at = 0; at < size_; at += PageSize()) {
    auto* byte = reinterpret_cast<volatile unsigned char*>(data_ + at);
    *byte = *byte;
  }
}

void PopulatePages(void* data, uint64_t size) {
#ifdef MADV_POPULATE_WRITE
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uint64_t begin = RoundUp(address, Region::PageSize());
  const uint64_t end = RoundDown(address + size, Region::PageSize());
  if (end > begin) {
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
  }
#else
  (void)data;
  (void)size;
#endif
}

}  // namespace espalier
