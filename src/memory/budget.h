// A memory budget as people write it, and the limit in bytes that it means.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace espalier {

// What a budget is measured against.
struct BudgetBase {
  uint64_t process_bytes = 0;     // anonymous memory of the process before the first block was loaded
  uint64_t dense_peak_bytes = 0;  // predicted managed peak of the dense plan at the workload, staging included
};

// The limit on managed + process bytes.
//
// Bytes ("700MiB") are that limit as given. A percentage ("70%") is a share of the dense managed peak at the workload,
// with the process added whole: limit = process + share * dense peak. Libraries and tokenizer take the same 20 to
// 30 MiB beside every model, which is nearly nothing next to a 7B model and half of everything next to the reference
// model; only as a share of the managed part does "70%" ask for the same pruning of both.
class Budget {
 public:
  static Budget Bytes(uint64_t bytes) { return Budget(bytes, 0); }
  // REQUIRES: 0 < percent <= 100
  static Budget Percent(double percent);

  // Parses "700MiB", "2.5 GiB", "734003200" (bytes) or "70%" (above 0, at most 100). "auto" follows the free memory of
  // the machine, which only a server does: kUnsupported. "0" and anything else: kInvalidArgument.
  static Result<Budget> Parse(std::string_view text);

  bool is_percent() const { return percent_ > 0; }
  // 0 where the budget is in bytes.
  double percent() const { return percent_; }

  // The limit on managed + process bytes.
  uint64_t LimitBytes(const BudgetBase& base) const;

  // "700.0 MiB", "70%".
  std::string ToText() const;

  friend bool operator==(const Budget&, const Budget&) = default;

 private:
  Budget(uint64_t bytes, double percent) : bytes_(bytes), percent_(percent) {}
  uint64_t bytes_ = 0;
  double percent_ = 0;
};

}  // namespace espalier
