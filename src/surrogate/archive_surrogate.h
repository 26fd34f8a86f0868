// A surrogate that follows an archive as it grows.
#pragma once

#include <optional>
#include <vector>

#include "base/status.h"
#include "profile/archive.h"
#include "surrogate/loss_surrogate.h"

namespace espalier {

// Thread rule: one thread at a time.
class ArchiveSurrogate {
 public:
  // `archive` must outlive it.
  ArchiveSurrogate(const Archive* archive, int n_layer) : archive_(archive), n_layer_(n_layer) {}

  // Takes in what was measured whole since the last call. Hyper-parameters are fitted again when there is a quarter
  // more than they were fitted to.
  Status Refresh();

  // nullptr as long as there are too few plans to say anything: fewer than twice the layers.
  const LossSurrogate* get() const { return surrogate_ ? &*surrogate_ : nullptr; }

 private:
  const Archive* archive_;
  int n_layer_;
  std::optional<LossSurrogate> surrogate_;
  std::vector<bool> taken_;  // by row of the archive
  double fitted_to_ = 0;     // rows
};

}  // namespace espalier
