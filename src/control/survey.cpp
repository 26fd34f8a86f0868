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

Result<MemorySurvey> SurveyMemory(std::shared_ptr<const Model> model, const EngineOptions& options,
                                  const Workload& workload) {
  MemorySurvey survey;
  ESPALIER_ASSIGN_OR_RETURN(survey.memory, MeasureMemoryModel(model, options));
  ESPALIER_ASSIGN_OR_RETURN(const ProcessMemory process, ReadProcessMemory());
  survey.workload = workload;
  survey.base.process_bytes = process.anonymous_bytes;
  survey.base.dense_peak_bytes = PredictFootprint(survey.memory, Plan::Dense(model->n_layer()), workload).peak_bytes();
  return survey;
}

}  // namespace espalier
