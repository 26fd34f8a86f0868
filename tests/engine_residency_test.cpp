// Memory is really given back, taken again, and foretold: Espalier's own account, the prediction and the kernel's count
// of the process's anonymous memory are held together.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "base/process_memory.h"
#include "base/region.h"
#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"
#include "support/sanitizers.h"

namespace espalier::test {
namespace {

int64_t Anonymous() {
  const auto memory = ReadProcessMemory();
  EXPECT_TRUE(memory.ok());
  return memory.ok() ? static_cast<int64_t>(memory->anonymous_bytes) : 0;
}

RandomModelOptions SomeMegabytes(const std::string& type) {
  RandomModelOptions options;
  options.n_layer = 8;
  options.n_embd = 512;
  options.n_ff = 1536;
  options.n_head = 8;
  options.n_head_kv = 4;
  options.n_vocab = 2048;
  options.n_ctx = 1024;
  options.type = type;
  return options;
}

// Half of all blocks, of both kinds.
Plan HalfOf(const Model& model) {
  Plan plan = Plan::Dense(model.n_layer());
  for (int b = 0; b < model.n_block(); b += 2) {
    plan.Drop({(b / 2) % 2 == 0 ? b : b + 1});
  }
  return plan;
}

class Residency : public testing::TestWithParam<std::tuple<std::string, bool>> {
 protected:
  void SetUp() override {
    ReturnFreedMemoryToSystem();
    const auto& [type, repack] = GetParam();
    model_ = OpenOrFail(RandomModel("residency-" + type, SomeMegabytes(type)));
    EngineOptions options;
    options.n_threads = 1;
    options.n_ubatch = 64;
    options.repack = repack;
    dense_ = Plan::Dense(model_->n_layer());
    engine_ = OpenEngine(model_, options, dense_);
  }
  // Every buffer is touched once, so that what follows measures blocks alone.
  void WarmUp() {
    DecodeAll(*engine_, 0, SomeTokens(100, model_->hparams().n_vocab));
    engine_->RemoveSequence(0);
  }
  uint64_t Pages(double n) const { return static_cast<uint64_t>(n) * Region::PageSize(); }

  std::shared_ptr<const Model> model_;
  Plan dense_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(Residency, ThreeCyclesGiveBackAndTakeAgain) {
  if (kSanitized) {
    GTEST_SKIP() << "sanitizers hold freed memory back: the process's memory says nothing";
  }
  WarmUp();
  const Plan half = HalfOf(*model_);
  const auto tokens = SomeTokens(20, model_->hparams().n_vocab);
  const auto dense_logits = DecodeAll(*engine_, 0, tokens);
  engine_->RemoveSequence(0);
  uint64_t whole_pages = 0;
  for (const BlockId block : half.dropped()) {
    whole_pages += engine_->memory_model().block_bytes[static_cast<size_t>(block.index)];
  }
  for (int cycle = 0; cycle < 3; ++cycle) {
    SCOPED_TRACE("cycle " + std::to_string(cycle));
    const int64_t anonymous_before = Anonymous();
    const uint64_t managed_before = engine_->memory_in_use().total();
    auto transition = engine_->Apply(half);
    ASSERT_TRUE(transition.ok()) << transition.status().message();
    EXPECT_EQ(transition->released_bytes, whole_pages);
    EXPECT_EQ(managed_before - engine_->memory_in_use().total(), whole_pages);
    EXPECT_GE(anonymous_before - Anonymous(), static_cast<int64_t>(0.99 * static_cast<double>(whole_pages)));

    transition = engine_->Apply(dense_);
    ASSERT_TRUE(transition.ok()) << transition.status().message();
    EXPECT_EQ(transition->n_loaded, static_cast<int>(half.dropped().size()));
    EXPECT_EQ(engine_->memory_in_use().total(), managed_before);
    EXPECT_NEAR(static_cast<double>(Anonymous()), static_cast<double>(anonymous_before),
                0.01 * static_cast<double>(whole_pages));
    EXPECT_EQ(MaxDifference(dense_logits, DecodeAll(*engine_, 0, tokens)), 0.0);
    engine_->RemoveSequence(0);
  }
}

TEST_P(Residency, PredictionMatchesAccountAndKernelForManyPlans) {
  if (kSanitized) {
    GTEST_SKIP() << "sanitizers hold freed memory back: the process's memory says nothing";
  }
  WarmUp();
  const auto tokens = SomeTokens(300, model_->hparams().n_vocab);
  uint32_t state = 7;
  for (int round = 0; round < 24; ++round) {
    Plan plan = dense_;
    for (int b = 0; b < model_->n_block(); ++b) {
      state = state * 1664525U + 1013904223U;
      if ((state >> 16) % 3 == 0) {
        plan.Drop({b});
      }
    }
    SCOPED_TRACE(plan.ToText());
    const auto predicted_before = PredictFootprint(engine_->memory_model(), engine_->plan(), {1, 0, 0});
    const int64_t anonymous_before = Anonymous();
    const Plan before = engine_->plan();
    ASSERT_TRUE(engine_->Apply(plan).ok());
    const size_t cells = 1 + (state >> 8) % tokens.size();
    DecodeLast(*engine_, 0, std::span(tokens).first(cells));

    const auto predicted =
        PredictFootprint(engine_->memory_model(), plan, Workload::Uniform(1, static_cast<int64_t>(cells)));
    const MemoryInUse held = engine_->memory_in_use();
    EXPECT_EQ(predicted.weight_bytes, held.weight_bytes);
    EXPECT_EQ(predicted.kv_bytes, held.kv_bytes);
    EXPECT_EQ(predicted.compute_bytes, held.compute_bytes);

    int regions = plan.kept_attention();
    for (int b = 0; b < plan.n_block(); ++b) {
      regions += before.kept({b}) != plan.kept({b}) ? 2 : 0;
    }
    const double predicted_change =
        static_cast<double>(predicted.managed_bytes()) - static_cast<double>(predicted_before.managed_bytes());
    const double measured_change = static_cast<double>(Anonymous() - anonymous_before);
    EXPECT_NEAR(measured_change, predicted_change,
                0.01 * std::abs(predicted_change) + static_cast<double>(Pages(2.0 * regions)));
    engine_->RemoveSequence(0);
  }
}

INSTANTIATE_TEST_SUITE_P(Stores, Residency, testing::Combine(testing::Values("F16", "Q4_K_M"), testing::Bool()),
                         [](const auto& test) {
                           return std::get<0>(test.param) + (std::get<1>(test.param) ? "_repacked" : "_plain");
                         });

TEST(Footprint, WholeProcessIsForetoldWithinOnePercentWithKvFullAndPartlyUsed) {
  if (kSanitized) {
    GTEST_SKIP() << "sanitizers hold freed memory back: the process's memory says nothing";
  }
  ReturnFreedMemoryToSystem();
  const auto model = OpenOrFail(RandomModel("residency-F16", SomeMegabytes("F16")));
  EngineOptions options;
  options.n_threads = 1;
  options.n_ubatch = 256;
  // The device, its libraries and the tokenizer's heap are there before; managed bytes come on top of that.
  const auto measured_model = MeasureMemoryModel(model, options);
  ASSERT_TRUE(measured_model.ok());
  ReturnFreedMemoryToSystem();
  const int64_t process = Anonymous();
  auto engine = OpenEngine(model, options, Plan::Dense(model->n_layer()));
  const auto tokens = SomeTokens(1024, model->hparams().n_vocab);
  size_t at = 0;
  for (const size_t cells : {size_t{256}, size_t{300}, size_t{1024}}) {
    DecodeLast(*engine, 0, std::span(tokens).subspan(at, cells - at));
    at = cells;
    const auto predicted =
        PredictFootprint(*measured_model, engine->plan(), Workload::Uniform(1, static_cast<int64_t>(cells)));
    EXPECT_EQ(predicted.managed_bytes(), engine->memory_in_use().total());
    const auto measured = static_cast<double>(Anonymous() - process);
    EXPECT_NEAR(measured, static_cast<double>(predicted.managed_bytes()),
                0.01 * static_cast<double>(predicted.managed_bytes()))
        << cells << " cells";
  }
}

TEST(Kv, FreedCellsGiveTheirPagesBack) {
  if (kSanitized) {
    GTEST_SKIP() << "sanitizers hold freed memory back: the process's memory says nothing";
  }
  ReturnFreedMemoryToSystem();
  const auto model = OpenOrFail(RandomModel("residency-F16", SomeMegabytes("F16")));
  EngineOptions options;
  options.n_threads = 1;
  auto engine = OpenEngine(model, options, Plan::Dense(model->n_layer()));
  const auto tokens = SomeTokens(400, model->hparams().n_vocab);
  DecodeLast(*engine, 0, std::span(tokens).first(100));
  DecodeLast(*engine, 1, tokens);
  DecodeLast(*engine, 2, std::span(tokens).first(100));
  DecodeLast(*engine, 3, std::span(tokens).first(10));
  engine->TruncateSequence(3, 9);
  const auto before = DecodeLast(*engine, 3, std::span(tokens).subspan(9, 1));
  const uint64_t full = engine->memory_in_use().kv_bytes;
  const int64_t anonymous = Anonymous();
  engine->RemoveSequence(1);  // in the middle: sequences 2 and 3 move down
  const uint64_t rest = engine->memory_in_use().kv_bytes;
  EXPECT_EQ(rest, PredictFootprint(engine->memory_model(), engine->plan(), {3, 210, 100}).kv_bytes);
  EXPECT_LT(rest, full / 2);
  EXPECT_NEAR(static_cast<double>(anonymous - Anonymous()), static_cast<double>(full - rest),
              0.01 * static_cast<double>(full - rest) + static_cast<double>(8 * Region::PageSize()));
  // What moved is still right: attention sums in f16, over cells in another order now, so the last digits differ; rows
  // of another sequence would differ in the first.
  engine->TruncateSequence(3, 9);
  EXPECT_LT(MaxDifference(before, DecodeLast(*engine, 3, std::span(tokens).subspan(9, 1))), 0.05);
  EXPECT_GT(MaxDifference(before, DecodeLast(*engine, 2, std::span(tokens).subspan(9, 1))), 1.0);
  for (SequenceId s : {0, 2, 3}) {
    engine->RemoveSequence(s);
  }
  EXPECT_EQ(engine->memory_in_use().kv_bytes, 0U);
}

}  // namespace
}  // namespace espalier::test
