#include "control/survey.h"

#include <utility>

#include "base/process_memory.h"

namespace espalier {

Observation MemorySurvey::Observe(const Budget& budget) const {
  return {.memory = &memory,
          .workload = workload,
          .limit_bytes = budget.LimitBytes(base),
          .process_bytes = base.process_bytes};
}

void MemorySurvey::Adopt(const MemoryModel& in_force) {
  memory = in_force;
  const auto n_layer = static_cast<int>(memory.block_bytes.size() / 2);
  base.dense_peak_bytes = PredictFootprint(memory, Plan::Dense(n_layer), workload).peak_bytes();
}

Result<MemorySurvey> SurveyMemory(std::shared_ptr<const Model> model, const EngineOptions& options,
                                  const Workload& workload) {
  MemorySurvey survey;
  ESPALIER_ASSIGN_OR_RETURN(survey.memory, MeasureMemoryModel(model, options));
  ESPALIER_ASSIGN_OR_RETURN(const ProcessMemory process, ReadProcessMemory());
  survey.workload = workload;
  survey.base.process_bytes = process.anonymous_bytes;
  survey.Adopt(survey.memory);
  return survey;
}

}  // namespace espalier
