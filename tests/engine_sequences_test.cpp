// Several sequences in one batch, each under its own plan; attention blocks that leave and return; abort; bad input.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"

namespace espalier::test {
namespace {

// Batches of different shape go through different kernels; logits are in the range of -20 to 20.
constexpr double kShapeTolerance = 0.05;

class Sequences : public testing::Test {
 protected:
  void SetUp() override {
    model_ = OpenOrFail(TwinPath());
    dense_ = Plan::Dense(model_->n_layer());
    engine_ = OpenEngine(model_, ExactOptions(), dense_);
    n_vocab_ = static_cast<size_t>(model_->hparams().n_vocab);
  }
  Plan Drop(const std::string& blocks) const {
    auto plan = Plan::ParseDrop(blocks, model_->n_layer());
    EXPECT_TRUE(plan.ok());
    return *plan;
  }
  std::vector<int32_t> Tokens(size_t n, uint32_t seed) const { return SomeTokens(n, model_->hparams().n_vocab, seed); }
  // Runs the batch; one vector of logits for each wanted row.
  std::vector<std::vector<float>> Run(const std::vector<BatchToken>& batch) {
    std::vector<std::vector<float>> rows;
    const Status status = engine_->Decode(batch, [&](int64_t row, std::span<const float> logits) {
      EXPECT_EQ(row, static_cast<int64_t>(rows.size()));
      rows.emplace_back(logits.begin(), logits.end());
    });
    EXPECT_TRUE(status.ok()) << status.message();
    return rows;
  }

  std::shared_ptr<const Model> model_;
  Plan dense_;
  std::unique_ptr<Engine> engine_;
  size_t n_vocab_ = 0;
};

TEST_F(Sequences, MixedInOneBatchUnderDifferentPlansEqualRunningAlone) {
  const std::vector<Plan> plans = {dense_, Drop("a2,f3"), Drop("a0,a4,f1"), Drop("a5,f5"), dense_};
  const std::vector<size_t> lengths = {37, 50, 81, 3, 1};
  const auto sequence = [](size_t s) { return static_cast<SequenceId>(s); };
  std::vector<std::vector<float>> alone;
  std::vector<std::vector<int32_t>> prompts;
  for (size_t s = 0; s < plans.size(); ++s) {
    prompts.push_back(Tokens(lengths[s] + 4, static_cast<uint32_t>(s + 1)));
    ASSERT_TRUE(engine_->SetSequencePlan(sequence(s), plans[s]).ok());
    DecodeLast(*engine_, sequence(s), std::span(prompts[s]).first(lengths[s]));
    for (size_t i = 0; i < 4; ++i) {
      const auto logits = DecodeLast(*engine_, sequence(s), std::span(prompts[s]).subspan(lengths[s] + i, 1));
      if (i == 3) {
        alone.push_back(logits);
      }
    }
    engine_->RemoveSequence(sequence(s));
  }
  std::vector<BatchToken> prefill;
  for (size_t i = 0; i < 81; ++i) {  // interleaved token by token
    for (size_t s = 0; s < plans.size(); ++s) {
      if (i == 0) {
        ASSERT_TRUE(engine_->SetSequencePlan(sequence(s), plans[s]).ok());
      }
      if (i < lengths[s]) {
        prefill.push_back({prompts[s][i], sequence(s), i + 1 == lengths[s]});
      }
    }
  }
  EXPECT_EQ(Run(prefill).size(), plans.size());
  std::vector<std::vector<float>> together;
  for (size_t i = 0; i < 4; ++i) {
    std::vector<BatchToken> step;
    for (size_t s = 0; s < plans.size(); ++s) {
      step.push_back({prompts[s][lengths[s] + i], sequence(s), true});
    }
    together = Run(step);
  }
  for (size_t s = 0; s < plans.size(); ++s) {
    EXPECT_LT(MaxDifference(alone[s], together[s]), kShapeTolerance) << "sequence " << s;
  }
}

// Slots are taken and freed in any order, batches are of any shape, and every row still is of its own sequence.
TEST_F(Sequences, ManyThatComeAndGoEqualEachOneAlone) {
  EngineOptions options = ExactOptions();
  options.n_ctx = 4096;
  engine_ = OpenEngine(model_, options, dense_);
  std::mt19937 random(11);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  constexpr size_t kSequences = 24;
  std::vector<std::vector<int32_t>> texts(kSequences);
  std::vector<size_t> done(kSequences, 0);
  std::map<size_t, std::map<size_t, std::vector<float>>> found;  // by sequence and length
  for (int round = 0; round < 40; ++round) {
    std::vector<BatchToken> batch;
    std::vector<std::pair<size_t, size_t>> wanted;
    for (size_t n = 1 + below(kSequences); n > 0; --n) {
      const size_t s = below(kSequences);
      const auto id = static_cast<SequenceId>(s);
      const bool in_batch = std::any_of(batch.begin(), batch.end(), [&](const auto& t) { return t.sequence == id; });
      if (!in_batch && done[s] > 0 && below(8) == 0) {
        done[s] = below(2) == 0 ? 0 : below(done[s]);
        engine_->TruncateSequence(id, static_cast<int64_t>(done[s]));
        if (done[s] == 0) {
          engine_->RemoveSequence(id);
          texts[s].clear();
        }
      }
      if (texts[s].empty()) {
        texts[s] = Tokens(400, static_cast<uint32_t>(1000 * round) + static_cast<uint32_t>(s));
        found[s].clear();
      }
      for (size_t i = below(4) == 0 ? 1 + below(20) : 1; i > 0 && done[s] < texts[s].size(); --i) {
        const bool want = i == 1 && below(3) > 0;
        batch.push_back({texts[s][done[s]++], id, want});
        if (want) {
          wanted.emplace_back(s, done[s]);
        }
      }
    }
    const auto rows = Run(batch);
    ASSERT_EQ(rows.size(), wanted.size());
    for (size_t row = 0; row < rows.size(); ++row) {
      found[wanted[row].first][wanted[row].second] = rows[row];
    }
  }
  size_t compared = 0;
  for (size_t s = 0; s < kSequences; ++s) {
    engine_->RemoveSequence(static_cast<SequenceId>(s));
  }
  EXPECT_EQ(engine_->used_cells(), 0);
  for (const auto& [s, by_length] : found) {
    size_t at = 0;
    for (const auto& [length, logits] : by_length) {
      const auto alone = DecodeLast(*engine_, 0, std::span(texts[s]).subspan(at, length - at));
      EXPECT_LT(MaxDifference(alone, logits), kShapeTolerance) << "sequence " << s << ", token " << length;
      at = length;
      ++compared;
    }
    engine_->RemoveSequence(0);
  }
  EXPECT_GT(compared, 50u);
}

TEST_F(Sequences, MoreThanThereAreSlotsForAreRefusedAndTakeNone) {
  EngineOptions options = ExactOptions();
  options.max_sequences = 3;
  auto engine = OpenEngine(model_, options, dense_);
  const auto batch_of = [&](int n) {
    std::vector<BatchToken> batch;
    for (int s = 0; s < n; ++s) {
      batch.push_back({5, s, false});
    }
    return batch;
  };
  const auto ignore = [](int64_t, std::span<const float>) {};
  const Status status = engine->Decode(batch_of(4), ignore);
  EXPECT_EQ(status.code(), ErrorCode::kOutOfBudget);
  EXPECT_EQ(status.message(), "KV cache: room for 4 sequences wanted, there is some for 3; 0 hold cells");
  EXPECT_TRUE(engine->Decode(batch_of(3), ignore).ok());
  engine->RemoveSequence(1);
  EXPECT_TRUE(engine->Decode(std::vector<BatchToken>{{5, 9, false}}, ignore).ok());
  EXPECT_EQ(engine->used_cells(), 3);
}

TEST_F(Sequences, PlanOfASequenceEqualsThatPlanResident) {
  const Plan plan = Drop("a1,f2,a4");
  const auto tokens = Tokens(60, 3);
  ASSERT_TRUE(engine_->SetSequencePlan(0, plan).ok());
  const auto restricted = DecodeAll(*engine_, 0, tokens);
  engine_->RemoveSequence(0);
  ASSERT_TRUE(engine_->Apply(plan).ok());
  EXPECT_EQ(MaxDifference(restricted, DecodeAll(*engine_, 0, tokens)), 0.0);
}

TEST_F(Sequences, ReturnedAttentionServesNewSequencesAtOnceAndRunningOnesAfterReprefill) {
  const auto tokens = Tokens(48, 5);
  const std::span<const int32_t> prompt(tokens.data(), 40);
  const std::span<const int32_t> rest(tokens.data() + 40, 8);
  // What a dense engine computes for prompt, then rest token by token.
  DecodeLast(*engine_, 7, prompt);
  std::vector<float> dense_logits;
  for (const int32_t token : rest) {
    dense_logits = DecodeLast(*engine_, 7, std::span(&token, 1));
  }
  engine_->RemoveSequence(7);

  DecodeLast(*engine_, 0, prompt);
  ASSERT_TRUE(engine_->Apply(Drop("a1,a3")).ok());
  EXPECT_TRUE(engine_->SkippedBlocks(0).empty());  // what is not resident is not skipped
  DecodeLast(*engine_, 0, rest.first(3));
  ASSERT_TRUE(engine_->Apply(dense_).ok());
  EXPECT_EQ(engine_->SkippedBlocks(0), (std::vector<BlockId>{BlockId::Attention(1), BlockId::Attention(3)}));

  // A new sequence uses the returned blocks at once.
  DecodeLast(*engine_, 1, prompt);
  EXPECT_TRUE(engine_->SkippedBlocks(1).empty());
  std::vector<float> fresh;
  for (const int32_t token : rest) {
    fresh = DecodeLast(*engine_, 1, std::span(&token, 1));
  }
  EXPECT_LT(MaxDifference(dense_logits, fresh), 1e-3);  // only the order of cells differs

  // Both in one batch: the old one skips, the new one does not.
  engine_->TruncateSequence(1, 43);
  const auto rows = Run({{rest[3], 0, true}, {rest[3], 1, true}});
  EXPECT_GT(MaxDifference(rows[0], rows[1]), 0.1);

  // After its re-prefill the running one is exactly as if it had been prefilled now.
  ASSERT_TRUE(engine_->Reprefill(0).ok());
  EXPECT_TRUE(engine_->SkippedBlocks(0).empty());
  EXPECT_EQ(engine_->SequenceLength(0), 44);
  const auto after = DecodeLast(*engine_, 0, rest.subspan(4, 1));
  engine_->RemoveSequence(0);
  engine_->RemoveSequence(1);
  DecodeLast(*engine_, 2, std::span(tokens).first(44));
  EXPECT_EQ(MaxDifference(after, DecodeLast(*engine_, 2, rest.subspan(4, 1))), 0.0);
}

TEST_F(Sequences, APlanThatIsResidentAlreadyCostsNoGraph) {
  const auto tokens = Tokens(10, 8);
  DecodeLast(*engine_, 0, std::span(tokens).first(8));
  DecodeLast(*engine_, 0, std::span(tokens).subspan(8, 1));
  const int64_t reused = engine_->statistics().graphs_reused;
  const auto transition = engine_->Apply(dense_);
  ASSERT_TRUE(transition.ok());
  EXPECT_EQ(transition->n_released + transition->n_loaded, 0);
  EXPECT_EQ(transition->peak_bytes, engine_->memory_in_use().total());
  DecodeLast(*engine_, 0, std::span(tokens).subspan(9, 1));
  EXPECT_EQ(engine_->statistics().graphs_reused, reused + 1);
}

TEST_F(Sequences, FfnBlocksLeaveAndReturnBetweenTokensWithoutATrace) {
  const auto tokens = Tokens(20, 6);
  DecodeLast(*engine_, 0, std::span(tokens).first(19));
  const auto expected = DecodeLast(*engine_, 0, std::span(tokens).last(1));
  engine_->TruncateSequence(0, 19);
  ASSERT_TRUE(engine_->Apply(Drop("f0,f3,f5")).ok());
  ASSERT_TRUE(engine_->Apply(dense_).ok());
  EXPECT_TRUE(engine_->SkippedBlocks(0).empty());
  EXPECT_EQ(MaxDifference(expected, DecodeLast(*engine_, 0, std::span(tokens).last(1))), 0.0);
}

TEST_F(Sequences, HeadInChunksGivesTheRowsOfOnePiece) {
  const auto tokens = Tokens(100, 8);
  const auto whole = DecodeAll(*engine_, 0, tokens);
  EngineOptions options = ExactOptions();
  options.head_rows = 7;
  auto chunked = OpenEngine(model_, options, dense_);
  EXPECT_LT(MaxDifference(whole, DecodeAll(*chunked, 0, tokens)), 0.01);
  EXPECT_LT(chunked->memory_model().compute_bytes, engine_->memory_model().compute_bytes);
}

TEST_F(Sequences, GraphIsReusedWhileShapeAndResidencyStay) {
  const auto tokens = Tokens(64, 9);
  DecodeLast(*engine_, 0, std::span(tokens).first(30));
  const auto built = engine_->statistics().graphs_built;
  for (size_t i = 30; i < 60; ++i) {
    DecodeLast(*engine_, 0, std::span(tokens).subspan(i, 1));
  }
  EXPECT_EQ(engine_->statistics().graphs_built, built + 1);
  ASSERT_TRUE(engine_->Apply(Drop("f1")).ok());
  DecodeLast(*engine_, 0, std::span(tokens).subspan(60, 1));
  EXPECT_EQ(engine_->statistics().graphs_built, built + 2);
}

TEST_F(Sequences, AbortedPrefillLeavesFinishedSubBatchesAndNothingElse) {
  EngineOptions options = ExactOptions();
  options.n_ubatch = 32;
  options.n_ctx = 512;
  auto engine = OpenEngine(model_, options, dense_);
  const auto tokens = Tokens(400, 10);
  std::vector<BatchToken> batch;
  for (const int32_t token : tokens) {
    batch.push_back({token, 0, true});
  }
  // The sink runs between sub-batches: the next one is stopped.
  const Status status = engine->Decode(batch, [&](int64_t row, std::span<const float>) {
    if (row == 100) {
      engine->RequestAbort();
    }
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kAborted);
  EXPECT_EQ(engine->SequenceLength(0), 128);
  EXPECT_EQ(engine->used_cells(), 128);
  // It goes on as if nothing had happened.
  auto rest = DecodeLast(*engine, 0, std::span(tokens).subspan(128, 1));
  EXPECT_EQ(rest.size(), n_vocab_);
  // From another thread, in the middle of a computation.
  std::atomic<bool> done = false;
  std::thread stopper([&] {
    while (!done) {
      engine->RequestAbort();
      std::this_thread::yield();
    }
  });
  engine->RemoveSequence(0);
  const Status stopped = engine->Decode(batch, [](int64_t, std::span<const float>) {});
  done = true;
  stopper.join();
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.code(), ErrorCode::kAborted);
  EXPECT_EQ(engine->used_cells(), engine->SequenceLength(0));
}

TEST_F(Sequences, BlocksLoadedBySeveralThreadsAreTheSame) {
  EngineOptions options = ExactOptions();
  options.n_threads = 2;
  auto engine = OpenEngine(model_, options, dense_);
  const auto tokens = Tokens(4, 11);
  const auto expected = DecodeAll(*engine, 0, tokens);
  for (int cycle = 0; cycle < 3; ++cycle) {
    ASSERT_TRUE(engine->Apply(Drop("a0,f0,a1,f1,a2,f2,a3,f3,a4,f4,a5,f5")).ok());
    ASSERT_TRUE(engine->Apply(dense_).ok());
    engine->RemoveSequence(0);
    EXPECT_EQ(MaxDifference(expected, DecodeAll(*engine, 0, tokens)), 0.0);
  }
}

TEST_F(Sequences, ABlockThatCannotBeReadAgainIsNamedAndTheRestRunsOn) {
  const std::string path = ScratchFolder() + "/shrinking.gguf";
  std::filesystem::copy_file(TwinPath(), path, std::filesystem::copy_options::overwrite_existing);
  const auto model = OpenOrFail(path);
  auto engine = OpenEngine(model, ExactOptions(), Drop("f1,f3"));
  const auto tokens = Tokens(10, 12);
  const auto expected = DecodeAll(*engine, 0, tokens);
  // The file loses what lies behind f1.
  const TensorInfo* down = model->block(BlockId::Ffn(3)).get(TensorRole::kFfnDown);
  std::filesystem::resize_file(path, down->offset + 100);
  const auto transition = engine->Apply(dense_);
  ASSERT_FALSE(transition.ok());
  EXPECT_EQ(transition.status().code(), ErrorCode::kIo);
  EXPECT_NE(transition.status().message().find("block f3"), std::string::npos) << transition.status().message();
  EXPECT_NE(transition.status().message().find(path), std::string::npos) << transition.status().message();
  EXPECT_EQ(engine->plan(), Drop("f3"));  // f1 came back
  EXPECT_EQ(engine->memory_in_use().weight_bytes,
            PredictFootprint(engine->memory_model(), engine->plan(), {1, 10, 10}).weight_bytes);
  ASSERT_TRUE(engine->Apply(Drop("f1,f3")).ok());
  engine->RemoveSequence(0);
  EXPECT_EQ(MaxDifference(expected, DecodeAll(*engine, 0, tokens)), 0.0);
}

TEST_F(Sequences, BadBatchesAreRefusedAndChangeNothing) {
  const auto sink = [](int64_t, std::span<const float>) { FAIL() << "no logits expected"; };
  const auto refused = [&](std::vector<BatchToken> batch, ErrorCode code, const std::string& part) {
    const Status status = engine_->Decode(batch, sink);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(engine_->used_cells(), 0);
  };
  refused({{-1, 0, false}}, ErrorCode::kInvalidArgument, "token -1");
  refused({{5, 0, false}, {8192, 0, false}}, ErrorCode::kInvalidArgument, "token 8192: expected 0 to 8191");
  refused({{5, -3, false}}, ErrorCode::kInvalidArgument, "sequence -3");
  refused(std::vector<BatchToken>(600, {5, 0, false}), ErrorCode::kOutOfBudget, "600 cells wanted, 512 of 512");
  EngineOptions unknown;
  unknown.device = "ABACUS";
  const auto engine = Engine::Create(model_, unknown, dense_);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("'ABACUS' not found; there are: CPU"), std::string::npos)
      << engine.status().message();
  EXPECT_FALSE(Engine::Create(model_, {}, Plan::Dense(3)).ok());
}

}  // namespace
}  // namespace espalier::test
