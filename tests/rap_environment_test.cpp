// An agent's environment is the engine's memory: along random episodes the bytes that the agent sees are those that the
// engine holds once the episode's plan serves the episode's request.
#include <gtest/gtest.h>

#include <random>

#include "rl/environment.h"
#include "support/engines.h"
#include "support/models.h"

namespace espalier::test {
namespace {

TEST(RapEnvironment, BytesAreThoseTheEngineHoldsAlongRandomEpisodes) {
  RandomModelOptions shape;
  shape.n_layer = 6;
  shape.n_head_kv = 2;
  shape.n_ctx = 1024;
  const auto model = OpenOrFail(RandomModel("rap-environment", shape));
  EngineOptions options;
  options.n_threads = 1;
  options.n_ubatch = 64;
  const auto engine = OpenEngine(model, options, Plan::Dense(model->n_layer()));
  ASSERT_NE(engine, nullptr);
  const MemoryModel memory = engine->memory_model();
  const std::vector<double> importance(static_cast<size_t>(model->n_block()), 1.0);
  PaperReward reward(importance);
  PruningEnvironment environment({}, importance, &reward);
  const auto tokens = SomeTokens(600, shape.n_vocab);
  // Every buffer is touched once.
  DecodeLast(*engine, 0, tokens);
  engine->RemoveSequence(0);

  std::mt19937_64 random(11);
  for (int episode = 0; episode < 6; ++episode) {
    Observation task;
    task.memory = &memory;
    task.workload = Workload::Uniform(1, static_cast<int64_t>(random() % tokens.size()) + 1);
    const uint64_t dense = FootprintOf(task, Plan::Dense(model->n_layer())).peak_bytes();
    task.limit_bytes = dense * (50 + random() % 45) / 100;
    EnvironmentStep step = environment.Reset(task);
    const auto held_as_predicted = [&] {
      SCOPED_TRACE(environment.plan().ToText());
      ASSERT_TRUE(engine->Apply(environment.plan()).ok());
      DecodeLast(*engine, 0, std::span(tokens).first(static_cast<size_t>(task.workload.kv_cells)));
      const MemoryInUse held = engine->memory_in_use();
      EXPECT_EQ(environment.footprint().weight_bytes, held.weight_bytes);
      EXPECT_EQ(environment.footprint().kv_bytes, held.kv_bytes);
      EXPECT_EQ(environment.footprint().managed_bytes(), held.total());
      engine->RemoveSequence(0);
    };
    held_as_predicted();
    while (!step.terminated) {
      int action = 0;
      do {
        action = static_cast<int>(random() % static_cast<uint64_t>(environment.n_action()));
      } while (environment.mask()[static_cast<size_t>(action)] == 0);
      const auto next = environment.Step(action);
      ASSERT_TRUE(next.ok());
      step = *next;
      held_as_predicted();
    }
    EXPECT_TRUE(environment.fits() || environment.plan().dropped().size() == static_cast<size_t>(model->n_block()));
  }
}

}  // namespace
}  // namespace espalier::test
