#include "runtime/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <tuple>

#include "runtime/engine_setup.h"
#include "runtime/kv_cache.h"
#include "runtime/weights.h"
#include "support/paths.h"

namespace espalier {
namespace {

// Shapes within the limits: uniform and mixed, any blocks, any number of rows that come out.
class RandomShapes {
 public:
  RandomShapes(const EngineOptions& options, const Model& model)
      : options_(options),
        n_block_(model.n_block()),
        heads_per_key_(model.hparams().n_head / model.hparams().n_head_kv) {}

  BatchShape Next() {
    const bool mixed = options_.n_ubatch > 1 && Below(2) == 0;
    const int64_t limit = mixed ? MaxMixedTokens(options_.n_ubatch) : options_.n_ubatch;
    BatchShape shape;
    shape.n_tokens = Below(2) == 0 ? limit : 1 + Below(limit);
    const int64_t outputs[] = {0, 1, shape.n_tokens - 1, shape.n_tokens, 1 + Below(shape.n_tokens)};
    shape.n_output = outputs[Below(5)];
    shape.with_head = shape.n_output <= options_.head_rows;
    shape.gathers_output = shape.n_output < shape.n_tokens || Below(2) == 0;
    shape.subset_sizes = {shape.n_tokens};
    int64_t left = 2 * limit - shape.n_tokens;
    while (mixed && shape.n_tokens > 1 && left > 0 && shape.subset_sizes.size() < 4) {
      const int64_t most = std::min(left, shape.n_tokens - 1);
      shape.subset_sizes.push_back(Below(2) == 0 ? most : 1 + Below(most));
      left -= shape.subset_sizes.back();
    }
    for (const int64_t n_rows : shape.subset_sizes) {
      shape.groups.push_back(Groups(n_rows));
    }
    if (!mixed && Below(2) == 0) {
      PackOne(shape);
    }
    const int64_t dropped_of_4 = Below(5);
    for (int b = 0; b < n_block_; ++b) {
      const auto n_subsets = static_cast<int64_t>(shape.subset_sizes.size());
      shape.block_rows.push_back(Below(4) < dropped_of_4 ? kNoRows : static_cast<int>(Below(n_subsets)));
    }
    return shape;
  }

 private:
  // Runs of random length, with the longest reach or the shortest; some of several streams.
  std::vector<AttentionGroup> Groups(int64_t n_rows) {
    std::vector<AttentionGroup> groups;
    const int64_t most = 1 + Below(MaxAttentionGroups(options_.max_sequences));
    for (int64_t first = 0; first < n_rows;) {
      const int64_t left = n_rows - first;
      const bool last = static_cast<int64_t>(groups.size()) + 1 == most;
      const int64_t n = last ? left : 1 + Below(left);
      const bool streams = n <= options_.max_sequences && Below(2) == 0;
      groups.push_back({first, streams ? 1 : n, streams ? n : 1, 0, Below(2) == 0 ? kKvPadding : 2 * kKvPadding});
      first = groups.back().end_row();
    }
    return groups;
  }
  // As GroupRows does, whatever the reach.
  void PackOne(BatchShape& shape) {
    for (AttentionGroup& group : shape.groups.front()) {
      if (group.n_streams == 1 && shape.n_tokens + group.n_rows * (heads_per_key_ - 1) <= options_.n_ubatch) {
        group.packed = true;
        return;
      }
    }
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }

  const EngineOptions options_;
  const int n_block_;
  const int64_t heads_per_key_;
  std::mt19937_64 random_{5};
};

class ComputeBuffer : public testing::TestWithParam<std::tuple<int, int, bool>> {};

TEST_P(ComputeBuffer, MeasuredForTheWorstCaseHoldsAnySubBatch) {
  const auto model = *Model::Open(test::ModelPath("espalier-twin-f16.gguf"));
  EngineOptions options;
  options.n_ctx = 2 * kKvPadding;
  options.n_ubatch = std::get<0>(GetParam());
  options.head_rows = std::get<1>(GetParam());
  if (std::get<2>(GetParam())) {
    auto means = std::make_shared<BlockMeans>();
    means->n_embd = model->hparams().n_embd;
    means->values.resize(static_cast<size_t>(model->n_block() * means->n_embd));
    options.means = means;
  }
  options = *CompleteOptions(*model, options);
  const auto device = *Device::Open("", 1);
  KvOptions kv_options = KvOptionsOf(options);
  kv_options.measuring = true;
  KvCache kv(model->hparams(), device.get(), kv_options);
  for (int il = 0; il < model->n_layer(); ++il) {
    ASSERT_TRUE(kv.AddLayer(il).ok());
  }
  WeightStore weights(model, device.get(), WeightOptionsOf(options));
  Executor executor(model->hparams(), device.get(), LimitsOf(options, kv));
  const uint64_t reserved = executor.Measure(weights.MeasuringTensors(), kv_options).graph_bytes;

  GraphBuilder builder(model->hparams(), GraphBuilder::Purpose::kBody, MaxAttentionGroups(kv.n_slots()));
  options.max_sequences = kv.n_slots();
  RandomShapes shapes(options, *model);
  for (int i = 0; i < 300; ++i) {
    const BatchShape shape = shapes.Next();
    const Graph graph = builder.Build(shape, weights.MeasuringTensors(), kv);
    const GgmlAllocator sizing(ggml_gallocr_new(device->buffer_type()));
    size_t size = 0;
    ggml_gallocr_reserve_n_size(sizing.get(), graph.graph, nullptr, nullptr, &size);
    EXPECT_LE(size, reserved) << i << ": " << shape.n_tokens << " tokens, " << shape.n_output << " out, "
                              << shape.groups[0].size() << " groups, " << shape.subset_sizes.size() << " sets of rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Limits, ComputeBuffer,
                         testing::Combine(testing::Values(1, 7, 64, 512), testing::Values(1, 64, 512), testing::Bool()),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_tokens_" +
                                  std::to_string(std::get<1>(test.param)) + "_head_rows" +
                                  (std::get<2>(test.param) ? "_means" : "");
                         });

}  // namespace
}  // namespace espalier
