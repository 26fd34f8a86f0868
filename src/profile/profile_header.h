// Where the header of a profile's GGUF is: in front, and once more at the end (docs/formats/profile.md).
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/gguf_file.h"
#include "profile/profile_file.h"

namespace espalier::profile_layout {

// Bytes in front of the first tensor's data; empty where the file ends before it.
std::optional<std::span<const std::byte>> HeaderOf(const GgufFile& gguf, std::span<const std::byte> bytes);
// The copy of the header that ends the file; empty if there is none.
std::span<const std::byte> HeaderCopy(std::span<const std::byte> bytes);

// The header where it is sound: in front, or in its copy at the end, which is then put in front in `bytes` and noted.
// kCorrupt if neither is; kInvalidArgument if this is no profile.
Result<std::shared_ptr<const GgufFile>> FindHeader(std::vector<std::byte>& bytes, const std::string& name,
                                                   RecoveryNotes* notes);

}  // namespace espalier::profile_layout
