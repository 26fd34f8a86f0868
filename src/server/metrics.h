// Prometheus metrics: Espalier's own, and those that the Kubernetes Model Server Protocol asks for.
#pragma once

#include <memory>
#include <string>

#include "serving/engine_loop.h"

namespace espalier {

// Thread rule: observers on the engine thread, Text from any.
class Metrics : public LoopObserver {
 public:
  // `model_name` is a label of the metrics that carry one.
  static std::unique_ptr<Metrics> Create(const std::string& model_name);
  ~Metrics() override = default;

  // All of it in Prometheus' text format, with the gauges as `snapshot` has them.
  virtual std::string Text(const LoopSnapshot& snapshot) = 0;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";
};

}  // namespace espalier
