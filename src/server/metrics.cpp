#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "server/utf8.h"

namespace espalier {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Seconds. Dashboards made for vLLM have much the same steps.
const Histogram::BucketBoundaries kLatencySteps = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                                   1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Histogram::BucketBoundaries kTokenSteps = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                                 0.3,   0.4,    0.5,   0.75, 1,     2.5,  5,     10,  20};
const Histogram::BucketBoundaries kTransitionSteps = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                      0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};

struct Described {
  std::string name;
  std::string help;
};

// Makes metrics in a registry, all with the same labels.
class Maker {
 public:
  Maker(prometheus::Registry& registry, Labels labels) : registry_(registry), labels_(std::move(labels)) {}

  prometheus::Family<Gauge>& Gauges(const Described& about) const {
    return prometheus::BuildGauge().Name(about.name).Help(about.help).Labels(labels_).Register(registry_);
  }
  prometheus::Family<Counter>& Counters(const Described& about) const {
    return prometheus::BuildCounter().Name(about.name).Help(about.help).Labels(labels_).Register(registry_);
  }
  Gauge& OneGauge(const Described& about) const { return Gauges(about).Add({}); }
  Counter& OneCounter(const Described& about) const { return Counters(about).Add({}); }
  Histogram& OneHistogram(const Described& about, const Histogram::BucketBoundaries& steps) const {
    return prometheus::BuildHistogram()
        .Name(about.name)
        .Help(about.help)
        .Labels(labels_)
        .Register(registry_)
        .Add({}, steps);
  }

 private:
  prometheus::Registry& registry_;
  const Labels labels_;
};

// A counter follows a figure that only grows. Of two snapshots that are told in the wrong order the newer one counts.
template <class Number>
void RaiseTo(Counter& counter, Number value) {
  counter.Increment(std::max(0.0, static_cast<double>(value) - counter.Value()));
}

const char* DirectionOf(const TransitionEvent& event) {
  return event.moved.released_bytes > event.moved.loaded_bytes   ? "shrink"
         : event.moved.released_bytes < event.moved.loaded_bytes ? "grow"
                                                                 : "none";
}

// Our own, with the model as a label. What is served, and how.
class EspalierMetrics {
 public:
  explicit EspalierMetrics(const Maker& make)
      : used_(make.Gauges({"espalier_memory_used_bytes", "Memory held, by part: the budget is on the sum of all."})),
        weights_(used_.Add({{"kind", "weights"}})),
        kv_(used_.Add({{"kind", "kv"}})),
        compute_(used_.Add({{"kind", "compute"}})),
        staging_(used_.Add({{"kind", "staging"}})),
        process_(used_.Add({{"kind", "process"}})),
        budget_(make.OneGauge({"espalier_memory_budget_bytes", "Limit on the memory held; +Inf: there is none."})),
        kept_(make.Gauges({"espalier_blocks_kept", "Blocks of the model that are in memory."})),
        attention_(kept_.Add({{"kind", "attention"}})),
        ffn_(kept_.Add({{"kind", "ffn"}})),
        predicted_kl_(make.OneGauge({"espalier_predicted_kl",
                                     "Predicted KL divergence of the plan from the whole model, in nats per token; "
                                     "NaN: unknown."})),
        running_(make.OneGauge({"espalier_requests_running", "Requests in the engine."})),
        waiting_(make.OneGauge({"espalier_requests_waiting", "Requests in the queue."})),
        kv_usage_(make.OneGauge({"espalier_kv_cache_usage_ratio",
                                 "Share of the KV cells that requests in flight hold or have reserved, 0 to 1."})),
        prompt_tokens_(make.OneCounter({"espalier_prompt_tokens_total", "Prompt tokens, cached ones too."})),
        cached_tokens_(make.OneCounter(
            {"espalier_cached_prompt_tokens_total", "Prompt tokens taken over from an earlier request."})),
        generated_tokens_(make.OneCounter({"espalier_generation_tokens_total", "Generated tokens."})),
        preemptions_(make.OneCounter(
            {"espalier_preemptions_total", "Running requests that gave their memory up to be computed again."})),
        violations_(make.OneCounter(
            {"espalier_budget_violations_total", "Steps that ended above the budget after the reaction deadline."})),
        overshoot_(make.OneCounter({"espalier_budget_overshoot_byte_seconds_total",
                                    "Bytes above the budget times the seconds they were, deadline or not."})) {}

  void Show(const LoopSnapshot& s) {
    weights_.Set(static_cast<double>(s.managed.weight_bytes));
    kv_.Set(static_cast<double>(s.managed.kv_bytes));
    compute_.Set(static_cast<double>(s.managed.compute_bytes));
    staging_.Set(static_cast<double>(s.managed.staging_bytes));
    process_.Set(static_cast<double>(s.process_bytes));
    budget_.Set(s.limit_bytes == UINT64_MAX ? std::numeric_limits<double>::infinity()
                                            : static_cast<double>(s.limit_bytes));
    attention_.Set(s.plan != nullptr ? s.plan->kept_attention() : 0);
    ffn_.Set(s.plan != nullptr ? s.plan->kept_ffn() : 0);
    predicted_kl_.Set(s.loss ? s.loss->nats : kNan);
    running_.Set(s.running);
    waiting_.Set(s.waiting);
    // What finished requests left is given back as soon as somebody wants it: it is no load.
    const int64_t held = std::max(s.used_cells - s.cached_cells, s.reserved_cells);
    kv_usage_.Set(s.capacity_cells > 0
                      ? std::clamp(static_cast<double>(held) / static_cast<double>(s.capacity_cells), 0.0, 1.0)
                      : 0);
    RaiseTo(prompt_tokens_, s.prompt_tokens);
    RaiseTo(cached_tokens_, s.cached_prompt_tokens);
    RaiseTo(generated_tokens_, s.generated_tokens);
    RaiseTo(preemptions_, s.preemptions);
    RaiseTo(violations_, s.violations);
    RaiseTo(overshoot_, s.overshoot_byte_seconds);
  }

 private:
  prometheus::Family<Gauge>& used_;
  Gauge &weights_, &kv_, &compute_, &staging_, &process_;
  Gauge& budget_;
  prometheus::Family<Gauge>& kept_;
  Gauge &attention_, &ffn_;
  Gauge& predicted_kl_;
  Gauge &running_, &waiting_, &kv_usage_;
  Counter &prompt_tokens_, &cached_tokens_, &generated_tokens_, &preemptions_, &violations_, &overshoot_;
};

// What observers tell: how requests and transitions went.
class ObservedMetrics {
 public:
  explicit ObservedMetrics(const Maker& make)
      : first_token_(make.OneHistogram({"espalier_time_to_first_token_seconds", "From submission to the first token."},
                                       kLatencySteps)),
        inter_token_(make.OneHistogram({"espalier_inter_token_latency_seconds", "Between two tokens of an answer."},
                                       kTokenSteps)),
        e2e_(make.OneHistogram(
            {"espalier_e2e_request_latency_seconds", "From submission to the last token, of completed requests."},
            kLatencySteps)),
        transition_(make.OneHistogram({"espalier_transition_seconds", "Time that one change of the plan took."},
                                      kTransitionSteps)),
        transitions_(make.Counters(
            {"espalier_transitions_total", "Changes of the plan: whether weights left or came back, and why."})),
        requests_(make.Counters(
            {"espalier_requests_total", "Requests that ended, by how they did; refused: never admitted."})) {
    for (const char* outcome : {"completed", "cancelled", "failed", "shutdown", "refused"}) {
      outcomes_[outcome] = &requests_.Add({{"outcome", outcome}});
    }
  }

  void FirstToken(double seconds) { first_token_.Observe(seconds); }
  void InterToken(double seconds) { inter_token_.Observe(seconds); }

  void Show(const LoopSnapshot& snapshot) { RaiseTo(*outcomes_.at("refused"), snapshot.refused); }

  void End(const RequestEnd& end) {
    const char* outcome = OutcomeOf(end.reason);
    outcomes_.at(outcome)->Increment();
    if (outcome == std::string_view("completed")) {
      e2e_.Observe(end.total_ms() / 1000);
    }
  }

  void Transition(const TransitionEvent& event) {
    transitions_.Add({{"direction", DirectionOf(event)}, {"reason", ReasonName(event.reason)}}).Increment();
    transition_.Observe(event.ms / 1000);
  }

 private:
  static const char* OutcomeOf(FinishReason reason) {
    switch (reason) {
      case FinishReason::kEndOfText:
      case FinishReason::kLength:
        return "completed";
      case FinishReason::kCancelled:
        return "cancelled";
      case FinishReason::kFailed:
        return "failed";
      case FinishReason::kShutdown:
        return "shutdown";
    }
    return "failed";
  }

  Histogram &first_token_, &inter_token_, &e2e_, &transition_;
  prometheus::Family<Counter>&transitions_, &requests_;
  std::map<std::string, Counter*> outcomes_;
};

// llama-server's names, for what is made to read it. Without labels, as there.
class LlamaMetrics {
 public:
  explicit LlamaMetrics(const Maker& make)
      : prompt_tokens_(make.OneCounter({"llamacpp:prompt_tokens_total", "Prompt tokens computed, cached ones not."})),
        cached_tokens_(make.OneCounter({"llamacpp:prompt_tokens_cached_total", "Prompt tokens taken from the cache."})),
        prompt_seconds_(make.OneCounter(
            {"llamacpp:prompt_seconds_total", "Time from admission to the first token, of requests that ended."})),
        predicted_tokens_(make.OneCounter({"llamacpp:tokens_predicted_total", "Generated tokens."})),
        predicted_seconds_(make.OneCounter({"llamacpp:tokens_predicted_seconds_total",
                                            "Time from the first token to the last, of requests that ended."})),
        decodes_(make.OneCounter({"llamacpp:n_decode_total", "Steps of the engine."})),
        longest_(make.OneCounter({"llamacpp:n_tokens_max", "Longest sequence so far, prompt and answer."})),
        prompt_speed_(make.OneGauge(
            {"llamacpp:prompt_tokens_seconds", "Prompt tokens per second of prefill, over all requests that ended."})),
        predicted_speed_(make.OneGauge({"llamacpp:predicted_tokens_seconds",
                                        "Generated tokens per second, of all requests over the last seconds."})),
        processing_(make.OneGauge({"llamacpp:requests_processing", "Requests in the engine."})),
        deferred_(make.OneGauge({"llamacpp:requests_deferred", "Requests in the queue."})),
        busy_(make.OneGauge({"llamacpp:n_busy_slots_per_decode", "Generated tokens per step of the engine."})) {}

  void Show(const LoopSnapshot& s) {
    RaiseTo(prompt_tokens_, s.prompt_tokens - s.cached_prompt_tokens);
    RaiseTo(cached_tokens_, s.cached_prompt_tokens);
    RaiseTo(predicted_tokens_, s.generated_tokens);
    RaiseTo(decodes_, s.steps);
    predicted_speed_.Set(s.tokens_per_second);
    processing_.Set(s.running);
    deferred_.Set(s.waiting);
    busy_.Set(s.steps > 0 ? static_cast<double>(s.generated_tokens) / static_cast<double>(s.steps) : 0);
  }

  // On the engine thread, so one after another.
  void End(const RequestEnd& end) {
    prompt_seconds_.Increment(end.prefill_ms / 1000);
    predicted_seconds_.Increment(end.decode_ms / 1000);
    RaiseTo(longest_, end.prompt_tokens + end.generated_tokens);
    if (end.generated_tokens > 0) {
      prefilled_tokens_ += static_cast<double>(end.prompt_tokens - end.cached_tokens);
      prefill_seconds_ += end.prefill_ms / 1000;
      prompt_speed_.Set(prefill_seconds_ > 0 ? prefilled_tokens_ / prefill_seconds_ : 0);
    }
  }

 private:
  Counter &prompt_tokens_, &cached_tokens_, &prompt_seconds_, &predicted_tokens_, &predicted_seconds_, &decodes_,
      &longest_;
  Gauge &prompt_speed_, &predicted_speed_, &processing_, &deferred_, &busy_;
  double prefilled_tokens_ = 0;
  double prefill_seconds_ = 0;
};

class PrometheusMetrics final : public Metrics {
 public:
  explicit PrometheusMetrics(const std::string& model_name)
      : own_(Maker(registry_, {{"model_name", MendUtf8(model_name)}})),
        observed_(Maker(registry_, {{"model_name", MendUtf8(model_name)}})),
        llama_(Maker(registry_, {})) {}

  void OnFirstToken(double seconds) override { observed_.FirstToken(seconds); }
  void OnInterToken(double seconds) override { observed_.InterToken(seconds); }
  void OnRequestEnd(const RequestEnd& end) override {
    observed_.End(end);
    llama_.End(end);
  }
  void OnTransition(const TransitionEvent& event) override { observed_.Transition(event); }

  std::string Text(const LoopSnapshot& snapshot) override {
    const std::lock_guard lock(mutex_);
    own_.Show(snapshot);
    observed_.Show(snapshot);
    llama_.Show(snapshot);
    return prometheus::TextSerializer().Serialize(registry_.Collect());
  }

 private:
  prometheus::Registry registry_;  // first: the others are made in it
  std::mutex mutex_;               // one Text at a time: counters are read and raised; observers do not wait for it
  EspalierMetrics own_;
  ObservedMetrics observed_;
  LlamaMetrics llama_;
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create(const std::string& model_name) {
  return std::make_unique<PrometheusMetrics>(model_name);
}

}  // namespace espalier
