// The archive: every plan ever measured for a model, with its loss. Loss depends on the plan and on the text alone, not
// on workload or budget, so one archive answers every scenario; bytes follow from the plan (PredictFootprint).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/block_means.h"
#include "model/plan.h"

namespace espalier {

// What losses were measured on. Losses of different sets cannot be compared.
struct MeasurementSet {
  std::string corpus;       // the text's name, for people
  std::string tokens_hash;  // of the tokens scored, 32 hexadecimal digits
  std::string protocol;     // "gptq", "llama"
  int64_t window_tokens = 0;
  int64_t n_windows = 0;
  int64_t tokens_scored = 0;
  std::string key_type;    // KV types: "f16", "q8_0", "q4_0"
  std::string value_type;  // they move the loss a little
  Ablation ablation = Ablation::kZero;
  std::string means_hash =
      {};  // kMean: HashHex of the means that dropped blocks added; means of another text are others

  // Everything but `corpus` in one line: equal keys, comparable losses.
  std::string Key() const;
  friend bool operator==(const MeasurementSet& a, const MeasurementSet& b) { return a.Key() == b.Key(); }
};

// One window's figures: sums over its scored tokens. Doubles, stored as they are: a search that is resumed must decide
// as if it had never stopped.
struct WindowLoss {
  double kl = 0;   // KL(dense || plan), nats
  double nll = 0;  // negative log-likelihood of the text under the plan, nats
  friend bool operator==(const WindowLoss&, const WindowLoss&) = default;
};

// Keep fractions of an archive are multiples of 1/16384, as on disk: whole = 16384, dropped = 0, and nothing between is
// rounded to either.
inline constexpr int16_t kWholeKeep = 16384;
int16_t KeepToFixed(double keep);
double KeepFromFixed(int16_t keep);

struct ArchiveRow {
  Plan plan;                        // its fractions rounded to multiples of 1/16384
  std::vector<WindowLoss> windows;  // of the first windows.size() windows of the set; all of them in a whole row
};

// All measurements on one set. Rows are kept in the order of insertion; pointers to them are valid until the next Add.
// Finding a plan among 10 000 takes well under a microsecond per block. Thread rule: const calls from any thread.
class Archive {
 public:
  explicit Archive(MeasurementSet set) : set_(std::move(set)) {}

  const MeasurementSet& set() const { return set_; }
  std::span<const ArchiveRow> rows() const { return rows_; }
  bool whole(const ArchiveRow& row) const { return static_cast<int64_t>(row.windows.size()) == set_.n_windows; }
  // Windows measured, over all rows.
  int64_t CountWindows() const;
  // How many rows are whole; looks at all of them.
  int64_t CountWholeRows() const;
  // Sum of the windows' KL, in window order, over the tokens scored: the loss. REQUIRES: whole(row).
  double Loss(const ArchiveRow& row) const;
  // Likewise of the negative log-likelihood: ln of the perplexity. REQUIRES: whole(row).
  double MeanNll(const ArchiveRow& row) const;

  // nullptr if the plan was never measured.
  const ArchiveRow* Find(const Plan& plan) const;
  // Loss of a plan that was measured whole.
  std::optional<double> LossOf(const Plan& plan) const;
  // Appends windows [first, first + losses.size()) of `plan`. Windows that are there already stay as they are; a gap
  // (first beyond what is there) is refused by returning false, as are windows beyond the set's, and a plan of another
  // number of blocks than the rows before. Without losses, nothing is added.
  bool Add(const Plan& plan, int64_t first, std::span<const WindowLoss> losses);

 private:
  MeasurementSet set_;
  std::vector<ArchiveRow> rows_;
  std::unordered_map<std::string, size_t> by_plan_;  // fixed-point fractions, as bytes -> row
};

}  // namespace espalier
