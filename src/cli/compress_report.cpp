#include "cli/compress_report.h"

#include <fmt/format.h>

#include <cmath>

#include "base/bytes.h"
#include "model/quote.h"

namespace espalier {
namespace {

using Target = CompressionRequest::Target;

Json FiniteOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json TargetJson(const CompressionRequest& request) {
  switch (request.target) {
    case Target::kBytes:
      return static_cast<uint64_t>(request.value);
    case Target::kPreference:
      return Json::array({request.value, 1 - request.value});
    default:
      return request.value;
  }
}

std::string TargetText(const CompressionRequest& request) {
  std::string text = request.target == Target::kBytes
                         ? fmt::format("max_bytes {}", static_cast<uint64_t>(request.value))
                         : fmt::format("{} {:.4g}", TargetName(request.target), request.value);
  return request.workload ? text + " at " + request.workload->ToText() : text;
}

Json VerifiedJson(const RequestInWork& work) {
  Json verified = {{"plans", work.tries},
                   {"first_loss_nats", *work.first_loss},
                   {"first_upper_loss_nats", FiniteOrNull(*work.first_upper)},
                   {"first_held", *work.first_loss <= *work.first_upper}};
  if (work.decode_ms) {
    verified["decode_ms"] = *work.decode_ms;
    verified["latency_held"] = *work.decode_ms <= work.request().value;
  }
  return verified;
}

Json RequestJson(const RequestInWork& work) {
  Json json = {{"id", work.line.id}, {"line", work.line.line}};
  if (work.line.request.ok()) {
    json[TargetName(work.request().target)] = TargetJson(work.request());
    json["workload"] = work.request().workload ? Json(work.request().workload->ToText()) : Json();
  }
  if (work.failed()) {
    json["error"] = work.status.message();
    return json;
  }
  const CompressionAnswer& answer = *work.answer;
  json["plan"] = ToJson(answer.plan);
  json["bytes_of"] = work.request().workload ? "footprint" : "file";
  json["bytes"] = answer.bytes;
  json["dense_bytes"] = answer.dense_bytes;
  json["limit_bytes"] = answer.limit_bytes > 0 ? Json(answer.limit_bytes) : Json();
  json["next_bytes"] = answer.next_bytes ? Json(*answer.next_bytes) : Json();
  json["predicted_loss_nats"] = answer.guess ? Json(answer.guess->loss) : Json();
  json["predicted_log_sd"] = answer.guess ? Json(answer.guess->log_sd) : Json();
  json["measured_loss_nats"] = answer.measured_loss ? Json(*answer.measured_loss) : Json();
  json["upper_loss_nats"] = FiniteOrNull(answer.upper_loss);
  if (answer.latency_ms) {
    json["upper_decode_ms"] = *answer.latency_ms;
  }
  if (work.evaluations) {
    json["evaluations"] = *work.evaluations;
  }
  if (work.tries > 0) {
    json["verified"] = VerifiedJson(work);
  }
  if (work.test_loss) {
    json["test_loss_nats"] = *work.test_loss;
  }
  if (!work.output.empty()) {
    json["output"] = work.output;
    json["output_bytes"] = work.output_bytes;
  }
  return json;
}

}  // namespace

Json CompressionJson(const CompressionReport& report, std::span<const RequestInWork> requests) {
  Json json = {{"model", ModelJson(*report.model)},
               {"profile", report.profile},
               {"method", report.method},
               {"seed", report.seed},
               {"ablation", AblationName(report.ablation)},
               {"confidence", report.margin ? Json(report.margin->confidence) : Json()},
               {"margin_deviations", report.margin ? FiniteOrNull(report.margin->deviations) : Json()},
               {"margin_plans", report.margin ? Json(report.margin->plans) : Json()},
               {"evaluations", report.evaluations},
               {"shared_evaluations", report.shared_evaluations},
               {"requests", Json::array()}};
  for (const RequestInWork& work : requests) {
    json["requests"].push_back(RequestJson(work));
  }
  json["failed"] = report.failed;
  json["seconds"] = {{"dense_predictions", report.seconds.dense_predictions},
                     {"decode_steps", report.seconds.decode_steps},
                     {"answering", report.seconds.answering},
                     {"verifying", report.seconds.verifying},
                     {"testing", report.seconds.testing},
                     {"writing", report.seconds.writing}};
  return json;
}

void PrintCompression(const CompressionReport& report, std::span<const RequestInWork> requests) {
  fmt::print("{:<16} {:<36} {:>10} {:>7} {:>9} {:>9} {:>9}  {}\n", "request", "target", "bytes", "share", "loss",
             "at most", "ms", "dropped");
  bool wrote = false;
  for (const RequestInWork& work : requests) {
    if (work.failed()) {
      continue;
    }
    const CompressionAnswer& answer = *work.answer;
    const auto ms = work.decode_ms ? work.decode_ms : answer.latency_ms;
    fmt::print("{:<16} {:<36} {:>10} {:>6.1f}% {:>9.4f} {:>9} {:>9}  {} of {}\n", Printable(work.line.id, 16),
               TargetText(work.request()), FormatBytes(answer.bytes),
               100 * static_cast<double>(answer.bytes) / static_cast<double>(answer.dense_bytes),
               answer.measured_loss ? *answer.measured_loss : answer.guess->loss,
               answer.measured_loss ? "measured" : fmt::format("{:.4f}", answer.upper_loss),
               ms ? fmt::format("{:.3f}", *ms) : "", answer.plan.dropped().size(), answer.plan.n_block());
    wrote = wrote || !work.output.empty();
  }
  fmt::print("{} of {} requests answered in {:.2f} s", requests.size() - report.failed, requests.size(),
             report.seconds.answering);
  if (report.verified) {
    fmt::print(", {} plans measured in {:.1f} s", report.evaluations, report.seconds.verifying);
  }
  if (wrote) {
    fmt::print(", written in {:.1f} s", report.seconds.writing);
  }
  fmt::print("\nloss in nats per token{}\n",
             report.margin && !std::isfinite(report.margin->deviations)
                 ? fmt::format("; of plans that were not measured nothing is promised: {} plans near the front are too "
                               "few for a confidence of {}",
                               report.margin->plans, report.margin->confidence)
             : report.margin ? fmt::format("; where it was not measured it is at most so much with a confidence of {}",
                                           report.margin->confidence)
                             : "");
}

}  // namespace espalier
