#include "profile/profile_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "model/quote.h"
#include "profile/profile_layout.h"

namespace espalier::profile_layout {
namespace {

using Bytes = std::span<const std::byte>;

Result<std::shared_ptr<const GgufFile>> ParseTable(Bytes bytes, const std::string& name) {
  return GgufFile::Parse(std::make_shared<MemorySource>(bytes, name), {.may_be_cut = true});
}

bool HeaderIsSound(const GgufFile& gguf, Bytes bytes) {
  const auto header = HeaderOf(gguf, bytes);
  if (!header) {
    return false;
  }
  std::vector<std::byte> copy(header->begin(), header->end());
  const auto digits = ChecksumDigits(copy);
  if (digits.empty()) {
    return false;
  }
  const std::string found(reinterpret_cast<const char*>(digits.data()), digits.size());
  return ChecksumHolds(found, HeaderChecksum(copy));
}

bool LooksLikeProfile(Bytes bytes) {
  const Bytes start = bytes.first(std::min<size_t>(bytes.size(), 4096));
  const std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  return text.find(kHeaderChecksumKey) != std::string_view::npos ||
         text.find(kArchitecture) != std::string_view::npos || !HeaderCopy(bytes).empty() ||
         (text.size() < 64 && text.starts_with(std::string_view("GGUF").substr(0, text.size())));
}

}  // namespace

std::optional<std::span<const std::byte>> HeaderOf(const GgufFile& gguf, std::span<const std::byte> bytes) {
  if (gguf.tensors().empty() || gguf.tensors().front().offset > bytes.size()) {
    return std::nullopt;
  }
  return bytes.first(gguf.tensors().front().offset);
}

std::span<const std::byte> HeaderCopy(std::span<const std::byte> bytes) {
  if (bytes.size() < kCopyFooterBytes ||
      std::memcmp(bytes.last(kCopyMagicBytes).data(), kCopyMagic, kCopyMagicBytes) != 0) {
    return {};
  }
  const auto length = LoadAt<uint64_t>(bytes.last(kCopyFooterBytes), 0);
  const Bytes before = bytes.first(bytes.size() - kCopyFooterBytes);
  return length <= before.size() / 2 ? before.last(length) : Bytes();
}

Result<std::shared_ptr<const GgufFile>> FindHeader(std::vector<std::byte>& bytes, const std::string& name,
                                                   RecoveryNotes* notes) {
  const auto front = ParseTable(bytes, name);
  if (front.ok() && HeaderIsSound(**front, bytes)) {
    return front;
  }
  if (const Bytes copy = HeaderCopy(bytes); !copy.empty()) {
    std::vector<std::byte> mended = bytes;
    std::copy(copy.begin(), copy.end(), mended.begin());
    const auto table = ParseTable(mended, name);
    if (table.ok() && HeaderIsSound(**table, mended)) {
      notes->push_back(fmt::format("{}: the header is damaged; its copy at the end is sound and was taken", name));
      bytes = std::move(mended);
      return ParseTable(bytes, name);
    }
  }
  if (LooksLikeProfile(bytes)) {
    return Corrupt(fmt::format("{}: damaged profile: neither its header nor the header's copy can be read{}", name,
                               front.ok() ? "" : " (" + front.status().message() + ")"));
  }
  if (!front.ok()) {
    return InvalidArgument(
        fmt::format("{}: expected an Espalier profile, found something else ({})", name, front.status().message()));
  }
  const auto architecture = (*front)->FindString("general.architecture");
  return InvalidArgument(fmt::format("{}: expected an Espalier profile, found a GGUF file of architecture {}", name,
                                     architecture.ok() ? Quote(architecture->value_or("none")) : std::string("none")));
}

}  // namespace espalier::profile_layout
