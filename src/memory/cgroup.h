// What the control groups around this process allow it: v2 (unified), v1 (`memory` controller) and both at once
// (hybrid). Read anew on every call, because Kubernetes resizes pods in place and systemctl set-property does so too.
//
// LOWERING A LIMIT. The kernel acts on memory.max at once: it writes out and drops page cache, and if what remains is
// above the new limit it kills. No reader is ever fast enough. So, from outside:
//   1. lower memory.high (a server that runs with `auto` follows it), or PUT /v1/espalier/budget (the only way for a
//      server with a budget of its own, which does not follow memory.high);
//   2. wait for the transition's event (GET /v1/espalier/events), or until espalier_memory_used_bytes is below;
//   3. lower memory.max.
// Above memory.high the kernel slows the process down and takes page cache from it, but kills nobody.
// Raising needs no order. v1 has no such soft limit (memory.soft_limit_in_bytes acts only when the machine is short of
// memory, and is not read): PUT first. v1's kernel refuses a limit below what is in use instead of killing, mostly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace espalier {

struct CgroupOptions {
  std::string root = "/sys/fs/cgroup";           // where the hierarchies are mounted (--cgroup-root)
  std::string membership = "/proc/self/cgroup";  // which groups the process is in
};

// One limit: of the process's own group, or of one above it.
struct CgroupBound {
  std::string file;          // which says so: ".../pod7/memory.max"
  bool hard = true;          // exceeding it kills; false: memory.high, exceeding it only slows down
  uint64_t limit_bytes = 0;  // for everything in that group and below it
  // What is in use there, by us and by others, and cannot be taken back: anonymous memory, shared memory, locked pages,
  // and (v2) the kernel's own. Not memory.current: that counts page cache, and a model file that was just read would
  // look like a neighbour who takes all there is.
  uint64_t held_bytes = 0;

  // What this limit leaves for us, `own_anonymous_bytes` being what we have already: limit - what others hold.
  uint64_t ShareBytes(uint64_t own_anonymous_bytes) const;
};

struct CgroupReading {
  std::vector<CgroupBound> bounds;  // from the process's own group upwards; empty: no limit
  Status problem;                   // the first file that could not be understood; `bounds` hold what the others say
};

// Reads the process's group and all above it, up to `root`: about 20 us per level, more where memory.stat is wanted.
//
// Files that do not exist mean no limit: a root group has none, and a group may go at any moment. So do "max" and
// numbers of 2^62 and more (v1 writes 2^63 less a page). Where memory.stat cannot be read, the limit still holds, with
// held_bytes 0. Fails only where it cannot be told which groups the process is in.
//
// The path in `membership` and the mount need not begin at the same group. In a container with a namespace of its own
// the path is "/" and `root` is the container's group. Without one the path is the host's ("/docker/4f..") while the
// mount still shows the container's part only: then the longest end of the path that exists below `root` is taken, or
// else `root` itself. A path that leads out of the namespace ("/../x") names a group that cannot be seen from here:
// `root` alone is read, the nearest that can be known.
Result<CgroupReading> ReadCgroup(const CgroupOptions& options);

// The bound with the smallest share; of the hard ones only if `hard_only`. nullptr if there is none.
const CgroupBound* TightestBound(const CgroupReading& reading, uint64_t own_anonymous_bytes, bool hard_only);

}  // namespace espalier
