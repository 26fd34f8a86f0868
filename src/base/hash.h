// Hashes that tell contents apart (XXH3). Fast and well spread, but no defence against somebody who makes collisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace espalier {

// 64 bits: checksums of sections and records. Different seeds, different functions.
uint64_t Hash64(std::span<const std::byte> bytes, uint64_t seed = 0);

// 128 bits as 32 hexadecimal digits: identities that are written to files (model fingerprint, hash of tokens).
std::string HashHex(std::span<const std::byte> bytes);

}  // namespace espalier
