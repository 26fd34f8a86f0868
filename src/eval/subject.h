// What was measured on what: carried by every result, so that a figure can be read without its command line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "eval/windows.h"
#include "model/plan.h"
#include "runtime/engine.h"

namespace espalier {

struct EvalSubject {
  std::string model;         // general.name
  std::string quantization;  // "Q4_K_M"
  std::string plan;          // text form; "dense"
  std::string corpus;
  Protocol protocol = Protocol::kGptq;
  int64_t text_tokens = 0;  // of the whole text
  int64_t window_tokens = 0;
  int64_t windows = 0;  // scored
  int64_t tokens_scored = 0;
};

// After each group of windows: how many of how many are done, and the perplexity so far.
using EvalProgress = std::function<void(int64_t windows_done, int64_t windows, double perplexity)>;

EvalSubject DescribeSubject(const Engine& engine, const Plan& plan, const Windows& windows);

// The error for a row of logits that holds NaN or infinity: nothing that follows from it means anything.
Status NotFiniteError(const Engine& engine, int64_t window, int64_t position);

}  // namespace espalier
