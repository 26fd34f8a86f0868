#include "cli/replay_report.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "model/quote.h"

namespace espalier {
namespace {

Json LatencyJson(const Latencies& latencies) {
  return {{"count", latencies.count},
          {"p50_ms", latencies.p50},
          {"p95_ms", latencies.p95},
          {"p99_ms", latencies.p99},
          {"max_ms", latencies.max}};
}

Json TraceJson(const ReplayedRun& run) {
  return {{"path", run.trace_path},
          {"name", run.trace.name},
          {"seed", run.trace.seed},
          {"duration_seconds", run.trace.duration_seconds},
          {"arrivals", run.trace.arrivals.size()},
          {"budgets", run.trace.budgets.size()}};
}

Json EventsJson(const std::vector<ReplayEvent>& events) {
  Json array = Json::array();
  for (const ReplayEvent& event : events) {
    Json line = {{"seconds", event.seconds},
                 {"kind", EventKindName(event.kind)},
                 {"limit_bytes", LimitJson(event.limit_bytes)},
                 {"before_bytes", event.before_bytes},
                 {"after_bytes", event.after_bytes},
                 {"text", event.text}};
    if (!event.reason.empty()) {
      line["reason"] = event.reason;
      line["ms"] = event.ms;
    }
    array.push_back(std::move(line));
  }
  return array;
}

// Columns: a tenth of the size of an object for each point.
Json CourseJson(const std::vector<ReplayPoint>& points) {
  Json course = {{"seconds", Json::array()},    {"limit_bytes", Json::array()}, {"planned_bytes", Json::array()},
                 {"used_bytes", Json::array()}, {"running", Json::array()},     {"waiting", Json::array()}};
  for (const ReplayPoint& point : points) {
    course["seconds"].push_back(point.seconds);
    course["limit_bytes"].push_back(LimitJson(point.limit_bytes));
    course["planned_bytes"].push_back(LimitJson(point.planned_bytes));
    course["used_bytes"].push_back(point.used_bytes);
    course["running"].push_back(point.running);
    course["waiting"].push_back(point.waiting);
  }
  return course;
}

void PrintLatencies(const char* name, const Latencies& latencies) {
  fmt::print("  {:<22} p50 {:>9.1f}  p95 {:>9.1f}  p99 {:>9.1f}  max {:>9.1f} ms  of {}\n", name, latencies.p50,
             latencies.p95, latencies.p99, latencies.max, latencies.count);
}

void PrintMemory(const ReplayedRun& run) {
  const ReplayReport& r = run.report;
  fmt::print("memory     {} violations, overshoot {:.0f} byte-seconds; {} preemptions\n", r.violations,
             r.overshoot_byte_seconds, r.preemptions);
  fmt::print("           {} changes of plan, {} of them by the budget (at most {} and {} in a minute)\n", r.moves,
             r.budget_moves, r.most_moves_in_a_minute, r.most_budget_moves_in_a_minute);
  fmt::print("           {} transitions, {:.1f} ms at most, {:.1f} ms in all\n", r.transitions, r.max_transition_ms,
             r.transition_ms);
}

}  // namespace

Json ToJson(const ReplayedRun& run) {
  const ReplayReport& r = run.report;
  Json json;
  json["model"] = ModelJson(*run.model);
  json["trace"] = TraceJson(run);
  json["real_time"] = run.real_time;
  json["speed"] = run.speed;
  json["stopped"] = r.stopped;
  json["workload"] = ToJson(run.placement->survey.workload);
  AddPlacement(json, *run.placement);
  json["process_bytes"] = run.placement->survey.base.process_bytes;
  json["dense_peak_bytes"] = run.placement->survey.base.dense_peak_bytes;
  json["seconds"] = r.seconds;
  json["skipped_seconds"] = r.skipped_seconds;
  json["busy_seconds"] = r.busy_seconds;
  json["requests"] = {{"total", r.requests},
                      {"completed", r.completed},
                      {"refused", r.refused},
                      {"failed", r.failed},
                      {"unfinished", r.unfinished},
                      {"lost", r.lost},
                      {"late", r.late},
                      {"late_after_seconds", run.late_seconds},
                      {"preemptions", r.preemptions}};
  json["first_refusal"] = r.first_refusal.empty() ? Json() : Json(r.first_refusal);
  json["first_failure"] = r.first_failure.empty() ? Json() : Json(r.first_failure);
  json["prompt_tokens"] = r.prompt_tokens;
  json["cached_prompt_tokens"] = r.cached_prompt_tokens;
  json["generated_tokens"] = r.generated_tokens;
  json["tokens_per_second"] = r.tokens_per_second();
  json["goodput_tokens_per_second"] = r.goodput();
  json["good_loss_nats"] = run.good_loss ? Json(*run.good_loss) : Json();
  json["mean_predicted_loss_nats"] = r.mean_loss_nats ? Json(*r.mean_loss_nats) : Json();
  json["predicted_loss_known_share"] = r.loss_known_share;
  json["time_to_first_token"] = LatencyJson(r.first_token);
  json["inter_token"] = LatencyJson(r.inter_token);
  json["request"] = LatencyJson(r.total);
  json["budget_violations"] = r.violations;
  json["overshoot_byte_seconds"] = r.overshoot_byte_seconds;
  json["plan_changes"] = r.moves;
  json["most_plan_changes_in_a_minute"] = r.most_moves_in_a_minute;
  json["plan_changes_by_budget"] = r.budget_moves;
  json["most_plan_changes_by_budget_in_a_minute"] = r.most_budget_moves_in_a_minute;
  json["transitions"] = r.transitions;
  json["transition_ms"] = r.transition_ms;
  json["longest_transition_ms"] = r.max_transition_ms;
  json["events"] = EventsJson(r.events);
  json["events_left_out"] = r.events_left_out;
  json["course"] = CourseJson(r.course);
  return json;
}

void PrintText(const ReplayedRun& run) {
  const ReplayReport& r = run.report;
  fmt::print("{} {}, trace {}: {} requests and {} budgets in {:.0f} s; policy {}\n",
             Printable(run.model->display_name()), run.model->quantization(), Printable(run.trace.name),
             run.trace.arrivals.size(), run.trace.budgets.size(), run.trace.duration_seconds,
             run.placement->policy->name());
  fmt::print("{}{:.1f} s, of which {:.1f} s were computed in and {:.1f} s skipped\n", r.stopped ? "stopped after " : "",
             r.seconds, r.busy_seconds, r.skipped_seconds);
  fmt::print(
      "requests   {} came: {} completed, {} refused, {} failed, {} unfinished, {} lost; {} late (first token "
      "after {} s)\n",
      r.requests, r.completed, r.refused, r.failed, r.unfinished, r.lost, r.late, run.late_seconds);
  for (const auto& [what, text] : {std::pair{"refusal", &r.first_refusal}, std::pair{"failure", &r.first_failure}}) {
    if (!text->empty()) {
      fmt::print("           first {}: {}\n", what, Printable(*text, 1000));
    }
  }
  fmt::print("tokens     {} of prompts ({} cached), {} generated at {:.1f} tok/s, goodput {:.1f} tok/s{}\n",
             r.prompt_tokens, r.cached_prompt_tokens, r.generated_tokens, r.tokens_per_second(), r.goodput(),
             run.good_loss ? fmt::format(" (loss up to {} nats)", *run.good_loss) : "");
  fmt::print("quality    {}\n", r.mean_loss_nats
                                    ? fmt::format("predicted loss {:.4f} nats per token, known for {:.0f} % of tokens",
                                                  *r.mean_loss_nats, 100 * r.loss_known_share)
                                    : "predicted loss unknown");
  PrintMemory(run);
  fmt::print("latency\n");
  PrintLatencies("time to first token", r.first_token);
  PrintLatencies("between tokens", r.inter_token);
  PrintLatencies("whole request", r.total);
}

}  // namespace espalier
