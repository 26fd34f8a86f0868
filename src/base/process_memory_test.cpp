#include "base/process_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "support/sanitizers.h"

namespace espalier {
namespace {

// The compiler must not remove an allocation that nobody reads.
void Touch(void* memory, size_t size) {
  std::memset(memory, 1, size);
  asm volatile("" : : "r"(memory) : "memory");
}

TEST(ProcessMemory, PartsAddUp) {
  const auto memory = ReadProcessMemory();
  ASSERT_TRUE(memory.ok()) << memory.status().message();
  EXPECT_GT(memory->anonymous_bytes, 0u);
  EXPECT_GT(memory->file_bytes, 0u) << "the program's own code is a file mapping";
  EXPECT_EQ(memory->resident_bytes, memory->anonymous_bytes + memory->file_bytes);
}

TEST(ProcessMemory, FreedHeapGoesBackInEveryCycleNotInTheFirstOnly) {
  if (test::kSanitized) {
    GTEST_SKIP() << "the sanitizer's allocator keeps freed memory";
  }
  ReturnFreedMemoryToSystem();
  // The block size that shows the trap: below glibc's default threshold of 128 KiB, as a Q4 attention block of the
  // reference model is, and one above it.
  for (const size_t block : {size_t{108} * kKiB, size_t{4} * kMiB}) {
    const size_t count = 64 * kMiB / block;
    for (int cycle = 0; cycle < 3; ++cycle) {
      const uint64_t before = ReadProcessMemory().value().anonymous_bytes;
      std::vector<void*> blocks(count);
      for (void*& memory : blocks) {
        ASSERT_EQ(posix_memalign(&memory, 64, block), 0);
        Touch(memory, block);
      }
      const uint64_t held = ReadProcessMemory().value().anonymous_bytes;
      for (void* memory : blocks) {
        std::free(memory);
      }
      const uint64_t after = ReadProcessMemory().value().anonymous_bytes;
      EXPECT_GE(held - before, count * block) << "block " << block << ", cycle " << cycle;
      EXPECT_GE(static_cast<double>(held - after), 0.99 * static_cast<double>(count * block))
          << "block " << block << ", cycle " << cycle;
    }
  }
}

}  // namespace
}  // namespace espalier
