// What `espalier compress` has to tell.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"
#include "cli/json.h"
#include "cli/request_file.h"
#include "model/block_means.h"
#include "model/model.h"
#include "strategy/compressor.h"

namespace espalier {

// One request, from its line to its file.
struct RequestInWork {
  explicit RequestInWork(RequestLine from) : line(std::move(from)), status(line.request.status()) {}

  RequestLine line;
  Status status;  // why there is no answer
  std::optional<CompressionAnswer> answer;
  std::optional<double> evaluations;  // that a search for this request alone takes
  int tries = 0;                      // plans measured to verify it
  std::optional<double> first_loss;   // of the first of them, nats per token
  std::optional<double> first_upper;  // what it was said to stay below
  std::optional<double> decode_ms;    // measured, the median
  std::optional<double> test_loss;    // on another text, nats per token
  std::string output;                 // file written
  uint64_t output_bytes = 0;

  bool failed() const { return !status.ok(); }
  // REQUIRES: a line that could be read
  const CompressionRequest& request() const { return *line.request; }
};

struct CompressionReport {
  const Model* model = nullptr;
  std::string profile;
  Ablation ablation = Ablation::kZero;
  std::string method;
  uint64_t seed = 0;
  std::optional<LossMargin> margin;  // of StratNet's answers
  bool verified = false;
  int64_t evaluations = 0;        // plans measured
  double shared_evaluations = 0;  // that all requests together have in common: a training's, a chain's
  size_t failed = 0;              // requests
  struct {
    double dense_predictions = 0;
    double decode_steps = 0;  // measuring them, before any answer
    double answering = 0;     // network and search
    double verifying = 0;
    double testing = 0;
    double writing = 0;
  } seconds;
};

Json CompressionJson(const CompressionReport& report, std::span<const RequestInWork> requests);
// A line for each request that was answered, on stdout.
void PrintCompression(const CompressionReport& report, std::span<const RequestInWork> requests);

}  // namespace espalier
