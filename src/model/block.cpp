#include "model/block.h"

#include <fmt/format.h>

#include <charconv>

namespace espalier {

std::string BlockName(BlockId block) { return fmt::format("{}{}", block.is_attention() ? 'a' : 'f', block.layer()); }

Result<BlockId> ParseBlockName(std::string_view name, int n_layer) {
  const auto unknown = [&] {
    return InvalidArgument(
        fmt::format("unknown block '{}': expected a0 to a{} (attention) or f0 to f{} (FFN), the blocks of this model",
                    name.substr(0, 32), n_layer - 1, n_layer - 1));
  };
  if (name.size() < 2 || (name[0] != 'a' && name[0] != 'f')) {
    return unknown();
  }
  int layer = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + 1, end, layer);
  if (error != std::errc() || rest != end || layer < 0 || layer >= n_layer || name[1] == '-') {
    return unknown();
  }
  return name[0] == 'a' ? BlockId::Attention(layer) : BlockId::Ffn(layer);
}

}  // namespace espalier
