// Tasks of episodes: requests and limits, and what of them every part of an agent needs.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "policy/policy.h"

namespace espalier {

// Bytes that each block holds at the task's workload: weights, and KV for attention.
std::vector<double> BytesByBlock(const Observation& task);

// The distribution that agents are trained on. A workload: 1, 2, 4, 8 or 16 sequences, and as many tokens that the
// dense model's KV cache takes 0.05 to 4 times the bytes of its weights, evenly by ratio. A limit: evenly between
// `least` and `most` of the workload's dense peak, but not below the peak with every block dropped.
struct TaskDistribution {
  double least_kv_to_weights = 0.05;
  double most_kv_to_weights = 4;
  double least_budget = 0.5;
  double most_budget = 0.97;
};

// A request and a limit, with the memory model they are of: its KV cache is made for the workload's cells.
struct Task {
  std::shared_ptr<const MemoryModel> memory;
  Observation observation;  // refers to `memory`
};

// `memory`: of an engine for any number of cells; its compute buffers count as they are. The same state of `random`,
// the same task.
Task DrawTask(const MemoryModel& memory, uint64_t process_bytes, const TaskDistribution& distribution,
              std::mt19937_64* random);

}  // namespace espalier
