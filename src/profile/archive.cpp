#include "profile/archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace espalier {
namespace {

std::string FixedKeeps(const Plan& plan) {
  std::string bytes;
  bytes.reserve(2 * static_cast<size_t>(plan.n_block()));
  for (int i = 0; i < plan.n_block(); ++i) {
    const auto fixed = static_cast<uint16_t>(KeepToFixed(plan.keep({i})));
    bytes += static_cast<char>(fixed & 0xff);
    bytes += static_cast<char>(fixed >> 8);
  }
  return bytes;
}

Plan Rounded(const Plan& plan) {
  Plan rounded = plan;
  for (int i = 0; i < plan.n_block(); ++i) {
    rounded.set_keep({i}, KeepFromFixed(KeepToFixed(plan.keep({i}))));
  }
  return rounded;
}

}  // namespace

int16_t KeepToFixed(double keep) {
  if (keep <= 0 || keep >= 1) {
    return keep <= 0 ? int16_t{0} : kWholeKeep;
  }
  return static_cast<int16_t>(std::clamp<long>(std::lround(keep * kWholeKeep), 1, kWholeKeep - 1));
}

double KeepFromFixed(int16_t keep) { return static_cast<double>(keep) / kWholeKeep; }

std::string MeasurementSet::Key() const {
  return fmt::format("{} c{} x{} t{} {}/{} {}{}{} {}", protocol, window_tokens, n_windows, tokens_scored, key_type,
                     value_type, AblationName(ablation), means_hash.empty() ? "" : ":", means_hash, tokens_hash);
}

int64_t Archive::CountWindows() const {
  return std::accumulate(rows_.begin(), rows_.end(), int64_t{0}, [](int64_t sum, const ArchiveRow& row) {
    return sum + static_cast<int64_t>(row.windows.size());
  });
}

int64_t Archive::CountWholeRows() const {
  return std::count_if(rows_.begin(), rows_.end(), [this](const ArchiveRow& row) { return whole(row); });
}

double Archive::Loss(const ArchiveRow& row) const {
  ESPALIER_CHECK(whole(row));
  double sum = 0;
  for (const WindowLoss& window : row.windows) {
    sum += window.kl;
  }
  return sum / static_cast<double>(set_.tokens_scored);
}

double Archive::MeanNll(const ArchiveRow& row) const {
  ESPALIER_CHECK(whole(row));
  double sum = 0;
  for (const WindowLoss& window : row.windows) {
    sum += window.nll;
  }
  return sum / static_cast<double>(set_.tokens_scored);
}

const ArchiveRow* Archive::Find(const Plan& plan) const {
  const auto found = by_plan_.find(FixedKeeps(plan));
  return found == by_plan_.end() ? nullptr : &rows_[found->second];
}

std::optional<double> Archive::LossOf(const Plan& plan) const {
  const ArchiveRow* row = Find(plan);
  return row != nullptr && whole(*row) ? std::optional(Loss(*row)) : std::nullopt;
}

bool Archive::Add(const Plan& plan, int64_t first, std::span<const WindowLoss> losses) {
  const auto count = static_cast<int64_t>(losses.size());
  if (first < 0 || count > set_.n_windows || first > set_.n_windows - count ||
      (!rows_.empty() && rows_.front().plan.n_block() != plan.n_block())) {
    return false;
  }
  std::string key = FixedKeeps(plan);
  const auto found = by_plan_.find(key);
  const int64_t known = found == by_plan_.end() ? 0 : static_cast<int64_t>(rows_[found->second].windows.size());
  if (first > known) {
    return false;
  }
  if (first + count <= known) {
    return true;
  }
  const size_t at = found == by_plan_.end() ? rows_.size() : found->second;
  if (at == rows_.size()) {
    rows_.push_back({Rounded(plan), {}});
    by_plan_.emplace(std::move(key), at);
  }
  const auto fresh = losses.subspan(static_cast<size_t>(known - first));
  rows_[at].windows.insert(rows_[at].windows.end(), fresh.begin(), fresh.end());
  return true;
}

}  // namespace espalier
