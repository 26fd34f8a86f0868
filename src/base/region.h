// Anonymous memory that is really given back when it is released.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace espalier {

// A private anonymous mapping of its own: no neighbour ever shares a page with it, huge or small. Pages are committed
// when they are first written, read as zero before that, and go back to the system with Discard() or the destructor.
// Thread rule: none of its own; the owner synchronises.
class Region {
 public:
  enum class Pages {
    kSmall,  // for memory that is committed bit by bit (KV)
    kHuge,   // 2 MiB pages where the system grants them: fewer TLB misses on weights that are always read whole
  };

  Region() = default;
  // `size` bytes, rounded up to whole pages. Huge regions start on a 2 MiB boundary; both kinds are fenced by an
  // inaccessible page on either side, because the kernel merges neighbouring mappings and a huge page that spans two
  // of them is not freed with one.
  static Result<Region> Map(uint64_t size, Pages pages);
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;

  explicit operator bool() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }  // a multiple of the page size

  // Gives the whole pages inside [offset, offset + length) back; they read as zero afterwards.
  void Discard(uint64_t offset, uint64_t length);

  // Commits all pages now, so that later use cannot fail for want of memory. Best effort on old kernels.
  void Populate();

  static uint64_t PageSize();

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  void* mapping_ = nullptr;
  uint64_t mapping_size_ = 0;
};

// Commits the whole pages of [data, data + size) in one go, before they are written: cheaper than a fault for each.
// REQUIRES: private writable memory. Best effort: without kernel support nothing happens.
void PopulatePages(void* data, uint64_t size);

}  // namespace espalier
