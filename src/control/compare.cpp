#include "control/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/stopwatch.h"
#include "text/libllama_reference.h"

namespace espalier {
namespace {

LibllamaOptions OptionsLike(const EngineOptions& options, bool all_logits) {
  LibllamaOptions like;
  like.n_ctx = options.n_ctx;
  like.n_ubatch = options.n_ubatch;
  like.n_threads = options.n_threads;
  like.repack = options.repack;
  like.all_logits = all_logits;
  like.device = options.device;
  like.key_type = KvTypeName(options.key_type);
  like.value_type = KvTypeName(options.value_type);
  return like;
}

Result<double> TimeLibllamaPrefill(LibllamaReference& libllama, std::span<const int32_t> tokens) {
  const Stopwatch watch;
  ESPALIER_RETURN_IF_ERROR(libllama.Decode(tokens, false).status());
  const double ms = watch.Milliseconds();
  libllama.ClearMemory();
  return ms;
}

Result<double> TimeLibllamaDecode(LibllamaReference& libllama, const BenchWork& work) {
  ESPALIER_RETURN_IF_ERROR(libllama.Decode(work.prefix, false).status());
  const Stopwatch watch;
  for (size_t i = 0; i < work.decoded.size(); ++i) {
    ESPALIER_RETURN_IF_ERROR(libllama.Decode(std::span(work.decoded).subspan(i, 1), false).status());
  }
  const double ms = watch.Milliseconds();
  libllama.ClearMemory();
  return ms;
}

using Timed = std::function<Result<double>()>;

// Speed of `ours` over `theirs` (their time over our time), in pairs; who begins changes from pair to pair.
Result<Quartiles> Alternate(const Timed& ours, const Timed& theirs, int pairs,
                            const std::function<void(int)>& progress) {
  ESPALIER_RETURN_IF_ERROR(ours().status());
  ESPALIER_RETURN_IF_ERROR(theirs().status());
  std::vector<double> ratios;
  for (int i = 0; i < pairs; ++i) {
    double our_ms = 0;
    double their_ms = 0;
    for (const bool our_turn : {i % 2 == 0, i % 2 != 0}) {
      ESPALIER_ASSIGN_OR_RETURN(const double ms, our_turn ? ours() : theirs());
      (our_turn ? our_ms : their_ms) = ms;
    }
    ratios.push_back(their_ms / our_ms);
    progress(i + 1);
  }
  return QuartilesOf(std::move(ratios));
}

Status CheckRow(std::span<const float> ours, std::span<const float> theirs, int64_t row) {
  if (ours.size() == theirs.size() && std::memcmp(ours.data(), theirs.data(), ours.size_bytes()) == 0) {
    return Status::Ok();
  }
  size_t at = 0;
  while (at < std::min(ours.size(), theirs.size()) && ours[at] == theirs[at]) {
    ++at;
  }
  return Corrupt(fmt::format("logits differ from libllama's in row {} at token {}: expected {}, found {}", row, at,
                             theirs[at], ours[at]));
}

// The same tokens through both; every row must be the same.
Status CheckDecode(Engine& engine, LibllamaReference& libllama, std::span<const int32_t> tokens) {
  ESPALIER_ASSIGN_OR_RETURN(const std::span<const float> expected, libllama.Decode(tokens, true));
  const auto n_vocab = static_cast<size_t>(libllama.n_vocab());
  std::vector<BatchToken> batch;
  for (const int32_t token : tokens) {
    batch.push_back({token, 0, true});
  }
  Status equal;
  ESPALIER_RETURN_IF_ERROR(engine.Decode(batch, [&](int64_t row, std::span<const float> logits) {
    if (equal.ok()) {
      equal = CheckRow(logits, expected.subspan(static_cast<size_t>(row) * n_vocab, n_vocab), row);
    }
  }));
  return equal;
}

}  // namespace

Status CheckAgainstLibllama(const std::shared_ptr<const Model>& model, const EngineOptions& options,
                            std::span<const int32_t> tokens) {
  // A whole prompt's rows of a large vocabulary take hundreds of MiB in libllama.
  constexpr size_t kTokens = 64;
  const std::vector<int32_t> prompt(tokens.begin(),
                                    tokens.begin() + static_cast<ptrdiff_t>(std::min(tokens.size(), kTokens)));
  EngineOptions like = options;
  like.copy_tied_head = true;
  ESPALIER_ASSIGN_OR_RETURN(const auto engine, Engine::Create(model, like, Plan::Dense(model->n_layer())));
  ESPALIER_ASSIGN_OR_RETURN(const auto libllama,
                            LibllamaReference::Open(model->path(), OptionsLike(engine->options(), true)));
  if (!prompt.empty()) {
    ESPALIER_RETURN_IF_ERROR(CheckDecode(*engine, *libllama, prompt));
  }
  const std::vector<int32_t> one = {0};
  return CheckDecode(*engine, *libllama, one);
}

Result<Comparison> CompareWithLibllama(Engine& engine, const BenchWork& work, const CompareOptions& options) {
  ESPALIER_ASSIGN_OR_RETURN(const auto libllama,
                            LibllamaReference::Open(engine.model().path(), OptionsLike(engine.options(), false)));
  Comparison comparison;
  const int total = options.pairs * ((work.prompt.empty() ? 0 : 1) + (work.decoded.empty() ? 0 : 1));
  int before = 0;
  const auto progress = [&](int done) {
    if (options.progress) {
      options.progress(before + done, total);
    }
  };
  if (!work.prompt.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(
        comparison.prefill_ratio,
        Alternate([&] { return TimePrefill(engine, work.prompt); },
                  [&] { return TimeLibllamaPrefill(*libllama, work.prompt); }, options.pairs, progress));
    before += options.pairs;
  }
  if (!work.decoded.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(comparison.decode_ratio,
                              Alternate([&] { return TimeDecode(engine, work.prefix, work.decoded); },
                                        [&] { return TimeLibllamaDecode(*libllama, work); }, options.pairs, progress));
  }
  return comparison;
}

Result<PlanComparison> ComparePlanWithDense(Engine& engine, const Plan& plan, const BenchWork& work,
                                            const CompareOptions& options) {
  const Plan dense = Plan::Dense(plan.n_layer());
  const auto cells = static_cast<int64_t>(work.prefix.size() + work.decoded.size() / 2);
  PlanComparison comparison;
  const auto under = [&](const Plan& wanted, const Timed& timed) -> Timed {
    return [&engine, &work, wanted, timed]() -> Result<double> {
      ESPALIER_RETURN_IF_ERROR(engine.Apply(wanted).status());
      // Not timed: the graph is built, and weights that have just been copied leave the caches.
      ESPALIER_RETURN_IF_ERROR(TimeDecode(engine, work.prefix, std::span(work.prefix).first(1)).status());
      return timed();
    };
  };
  const auto progress = [&](int done) {
    if (options.progress) {
      options.progress(done, options.pairs);
    }
  };
  ESPALIER_RETURN_IF_ERROR(engine.Apply(dense).status());
  const auto dense_bytes = static_cast<double>(BytesReadPerToken(engine, cells));
  ESPALIER_RETURN_IF_ERROR(engine.Apply(plan).status());
  comparison.byte_ratio = dense_bytes / static_cast<double>(BytesReadPerToken(engine, cells));
  if (!work.prompt.empty()) {
    const Timed prefill = [&] { return TimePrefill(engine, work.prompt); };
    ESPALIER_ASSIGN_OR_RETURN(comparison.prefill_speed_up,
                              Alternate(under(plan, prefill), under(dense, prefill), options.pairs, progress));
  }
  if (!work.decoded.empty()) {
    const Timed decode = [&] { return TimeDecode(engine, work.prefix, work.decoded); };
    ESPALIER_ASSIGN_OR_RETURN(comparison.decode_speed_up,
                              Alternate(under(plan, decode), under(dense, decode), options.pairs, progress));
  }
  return comparison;
}

}  // namespace espalier
