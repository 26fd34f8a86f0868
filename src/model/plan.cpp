#include "model/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace espalier {
namespace {

// Calls `each` with every item between spaces and commas.
template <class Each>
Status ForEachItem(std::string_view text, Each each) {
  constexpr std::string_view kSeparators = " ,\t\r\n";
  size_t at = text.find_first_not_of(kSeparators);
  while (at != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kSeparators, at), text.size());
    ESPALIER_RETURN_IF_ERROR(each(text.substr(at, end - at)));
    at = text.find_first_not_of(kSeparators, end);
  }
  return Status::Ok();
}

}  // namespace

Plan Plan::Dense(int n_layer) { return Plan(n_layer); }

Plan Plan::Nothing(int n_layer) {
  Plan plan(n_layer);
  std::fill(plan.keep_.begin(), plan.keep_.end(), 0.0);
  return plan;
}

Result<Plan> Plan::Parse(std::string_view text, int n_layer) {
  Plan plan(n_layer);
  if (text == "dense") {
    return plan;
  }
  std::vector<bool> seen(plan.keep_.size(), false);
  ESPALIER_RETURN_IF_ERROR(ForEachItem(text, [&](std::string_view item) -> Status {
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return InvalidArgument(fmt::format(
          "plan item '{}': expected BLOCK=FRACTION, such as a3=0 (--drop takes bare block names)", item.substr(0, 32)));
    }
    ESPALIER_ASSIGN_OR_RETURN(const BlockId block, ParseBlockName(item.substr(0, equals), n_layer));
    const std::string_view number = item.substr(equals + 1);
    double fraction = -1;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), fraction);
    if (error != std::errc() || rest != number.data() + number.size() || !(fraction >= 0 && fraction <= 1)) {
      return InvalidArgument(
          fmt::format("plan item '{}': expected a keep fraction from 0 to 1 after '='", item.substr(0, 32)));
    }
    if (seen[static_cast<size_t>(block.index)]) {
      return InvalidArgument(fmt::format("plan names block {} twice", BlockName(block)));
    }
    seen[static_cast<size_t>(block.index)] = true;
    plan.set_keep(block, fraction);
    return Status::Ok();
  }));
  return plan;
}

Result<Plan> Plan::ParseDrop(std::string_view text, int n_layer) {
  Plan plan(n_layer);
  ESPALIER_RETURN_IF_ERROR(ForEachItem(text, [&](std::string_view item) -> Status {
    ESPALIER_ASSIGN_OR_RETURN(const BlockId block, ParseBlockName(item, n_layer));
    plan.Drop(block);
    return Status::Ok();
  }));
  return plan;
}

void Plan::set_keep(BlockId block, double fraction) {
  ESPALIER_CHECK(block.index >= 0 && block.index < n_block());
  ESPALIER_CHECK(fraction >= 0 && fraction <= 1);
  keep_[static_cast<size_t>(block.index)] = fraction;
}

bool Plan::dense() const {
  return std::all_of(keep_.begin(), keep_.end(), [](double k) { return k == 1; });
}

bool Plan::whole_blocks_only() const {
  return std::all_of(keep_.begin(), keep_.end(), [](double k) { return k == 0 || k == 1; });
}

std::vector<BlockId> Plan::dropped() const {
  std::vector<BlockId> blocks;
  for (int i = 0; i < n_block(); ++i) {
    if (!kept({i})) {
      blocks.push_back({i});
    }
  }
  return blocks;
}

int Plan::kept_attention() const {
  int n = 0;
  for (int il = 0; il < n_layer(); ++il) {
    n += kept(BlockId::Attention(il)) ? 1 : 0;
  }
  return n;
}

int Plan::kept_ffn() const {
  int n = 0;
  for (int il = 0; il < n_layer(); ++il) {
    n += kept(BlockId::Ffn(il)) ? 1 : 0;
  }
  return n;
}

std::string Plan::ToText() const {
  if (dense()) {
    return "dense";
  }
  std::string text;
  for (int i = 0; i < n_block(); ++i) {
    if (keep({i}) != 1) {
      fmt::format_to(std::back_inserter(text), "{}{}={}", text.empty() ? "" : " ", BlockName({i}), keep({i}));
    }
  }
  return text;
}

}  // namespace espalier
