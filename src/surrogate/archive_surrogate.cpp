#include "surrogate/archive_surrogate.h"

#include <utility>

namespace espalier {

Status ArchiveSurrogate::Refresh() {
  constexpr double kGrowth = 1.25;
  constexpr int kFitSteps = 40;
  const auto rows = archive_->rows();
  std::vector<size_t> fresh;
  taken_.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!taken_[i] && archive_->whole(rows[i]) && !rows[i].plan.dense()) {
      fresh.push_back(i);
      taken_[i] = true;
    }
  }
  const double known = surrogate_ ? static_cast<double>(surrogate_->process().n()) : 0;
  const double all = static_cast<double>(fresh.size()) + known;
  if (all < 2 * n_layer_) {
    for (const size_t i : fresh) {
      taken_[i] = false;
    }
    return Status::Ok();
  }
  if (!surrogate_ || all >= kGrowth * fitted_to_) {
    ESPALIER_ASSIGN_OR_RETURN(LossSurrogate surrogate, LossSurrogate::Fit(*archive_, n_layer_, kFitSteps));
    surrogate_.emplace(std::move(surrogate));
    fitted_to_ = all;
    return Status::Ok();
  }
  for (const size_t i : fresh) {
    ESPALIER_RETURN_IF_ERROR(surrogate_->Add(rows[i].plan, archive_->Loss(rows[i])));
  }
  return Status::Ok();
}

}  // namespace espalier
