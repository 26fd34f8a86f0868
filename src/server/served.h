// What the API serves, once it is loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "memory/budget.h"
#include "memory/budget_source.h"
#include "model/model.h"
#include "serving/engine_loop.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace espalier {

class Metrics;

// Owns nothing but the model; all of it outlives the API. Thread rule: read by any thread.
struct Served {
  std::shared_ptr<const Model> model;
  const Tokenizer* tokenizer = nullptr;
  EngineLoop* loop = nullptr;
  BudgetSources* budget = nullptr;
  Metrics* metrics = nullptr;
  BudgetBase base;             // what budgets in percent are a share of
  std::string name;            // of the model in the API
  int64_t context_tokens = 0;  // prompt + answer of one request at most
  size_t longest_piece = 0;    // bytes of the longest token; 0: not known
  int n_parallel = 1;
  SamplerOptions sampling;  // defaults for what a request does not say
  int64_t max_tokens = -1;  // likewise; -1: RequestDefaults'
  std::string profile;      // its file; empty: none
  int64_t created_unix = 0;
};

}  // namespace espalier
