#include "model/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace espalier {

Result<Workload> Workload::Parse(std::string_view text) {
  constexpr int64_t kMaxSequences = 65536;
  constexpr int64_t kMaxCells = int64_t{1} << 27;
  const auto bad = [&] {
    return InvalidArgument(fmt::format(
        "workload '{}': expected SEQUENCESxTOKENS, such as 8x512, with 1 to {} sequences and at most {} tokens in all",
        text.substr(0, 32), kMaxSequences, kMaxCells));
  };
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  int64_t first = 0;
  auto parsed = std::from_chars(at, end, first);
  if (parsed.ec != std::errc()) {
    return bad();
  }
  int64_t sequences = 1;
  int64_t tokens = first;
  if (parsed.ptr != end) {
    if (*parsed.ptr != 'x') {
      return bad();
    }
    sequences = first;
    parsed = std::from_chars(parsed.ptr + 1, end, tokens);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return bad();
    }
  }
  if (sequences < 1 || sequences > kMaxSequences || tokens < 1 || tokens > kMaxCells / sequences) {
    return bad();
  }
  return Uniform(static_cast<int>(sequences), tokens);
}

std::string Workload::ToText() const {
  if (kv_cells == n_sequences * longest_sequence) {
    return fmt::format("{}x{}", n_sequences, longest_sequence);
  }
  return fmt::format("{} sequences, {} cells, longest {}", n_sequences, kv_cells, longest_sequence);
}

Workload& Workload::operator+=(const Workload& other) {
  n_sequences += other.n_sequences;
  kv_cells += other.kv_cells;
  longest_sequence = std::max(longest_sequence, other.longest_sequence);
  return *this;
}

Workload Max(const Workload& a, const Workload& b) {
  return {std::max(a.n_sequences, b.n_sequences), std::max(a.kv_cells, b.kv_cells),
          std::max(a.longest_sequence, b.longest_sequence)};
}

bool Workload::Within(const Workload& other) const { return Max(*this, other) == other; }

}  // namespace espalier
