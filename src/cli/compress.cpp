// espalier compress: many requests for smaller models, answered together.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/stopwatch.h"
#include "cli/command.h"
#include "cli/compress_report.h"
#include "cli/compress_rivals.h"
#include "cli/exporting.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/number_check.h"
#include "cli/options.h"
#include "cli/policy_choice.h"
#include "cli/progress.h"
#include "cli/request_file.h"
#include "cli/terminal.h"
#include "cli/text_option.h"
#include "cli/training_evaluator.h"
#include "control/decode_latency.h"
#include "control/measure.h"
#include "export/export_bytes.h"
#include "export/export_target.h"
#include "model/quote.h"
#include "policy/profile_policies.h"
#include "profile/profile_file.h"
#include "runtime/engine.h"
#include "strategy/compressor.h"
#include "strategy/strat_policy.h"
#include "text/tokenizer.h"

namespace espalier {
namespace {

using Target = CompressionRequest::Target;

// Latency is asked at this workload where a request names none.
constexpr int64_t kLatencyTokens = 512;
// Plans measured for one request before it is said that none was found.
constexpr int kMostTries = 20;
constexpr int kTriesForLess = 4;
constexpr int kMostTimedSequences = 256;

struct CompressFlags {
  ModelOption model;
  PolicyFlags profile;  // profile and ablation alone
  std::optional<uint64_t> seed;
  std::string method = kStratNetwork;
  bool network_alone = false;
  std::string requests;
  std::string max_bytes;
  std::optional<double> size_ratio, max_loss, max_latency_ms;
  std::vector<double> preference;
  std::string workload;
  double confidence = 0.95;
  std::string output;
  bool verify = false;
  TextOption text = {.max_windows = 16, .spread = true};
  std::string test_text;
  int64_t test_windows = 64;
  EngineFlags engine;
  bool json = false;
};

void BindCompress(CLI::App& app, CompressFlags& o) {
  AddModelOption(app, o.model);
  app.add_option("--profile", o.profile.profile,
                 "Profile with a StratNet (`espalier train stratnet`); default: MODEL.profile");
  app.add_option("--ablation", o.profile.ablation,
                 "What dropped blocks add: mean (their mean output, from the profile), zero; default: as the profile "
                 "says");
  app.add_option("--seed", o.seed, "Which of the profile's StratNets; default: the first")->check(AtLeast(0));
  app.add_flag("--network-alone", o.network_alone,
               "Take StratNet's answers as they are: do not hold them against their neighbours and what was measured");
  std::vector<std::string> methods = {kStratNetwork};
  methods.insert(methods.end(), Rival::Names().begin(), Rival::Names().end());
  app.add_option(
         "--method", o.method,
         "Who answers: stratnet; or, for targets in bytes, table (the best plan that was measured), one-shot, "
         "gsi-chain (one order for all requests), gsi (also --max-loss), evolution (a search for each request); "
         "those that search need --text, and begin a profile where there is none")
      ->check(CLI::IsMember(methods))
      ->capture_default_str();
  app.add_option("--requests", o.requests, "JSON Lines file, one request a line (docs/formats/requests.md)");
  app.add_option("--max-bytes", o.max_bytes, "One request: at most so many bytes, as 20000000 or 20MiB");
  app.add_option("--size-ratio", o.size_ratio, "One request: at most this share of the dense model's bytes")
      ->check(Finite());
  app.add_option("--max-loss", o.max_loss, "One request: the smallest plan of at most so many nats per token")
      ->check(Finite());
  app.add_option("--max-latency-ms", o.max_latency_ms,
                 "One request: the best plan whose decode step takes at most so many milliseconds")
      ->check(Finite());
  app.add_option("--preference", o.preference, "One request: weights of size and loss, as 0.4,0.6")
      ->delimiter(',')
      ->check(Finite())
      ->expected(2);
  app.add_option("--workload", o.workload,
                 "Of the one request, as 8x512: bytes are then the footprint at it, else those of the file");
  app.add_option("--confidence", o.confidence, "With which guessed losses and decode steps stay within a limit")
      ->check(InRange(0.5, 0.999))
      ->capture_default_str();
  app.add_option("-o,--output", o.output, "Write plans as GGUF: into this folder, as ID.gguf; for one request a file");
  app.add_flag("--verify", o.verify,
               "Measure the loss of each answer (and its decode step, where that is asked for); answers that lose more "
               "than was asked for, or than another plan that fits, are replaced. Needs --text");
  AddTextOption(app, o.text, "Calibration text that --verify measures on: the one that the profile was ranked on")
      ->required(false);
  app.add_option("--test-text", o.test_text, "Measure what all answers lose on this text too, which nobody chose by");
  app.add_option("--test-windows", o.test_windows, "Windows of --test-text; 0: all of it")
      ->check(InRange(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  AddEngineFlags(app, o.engine);
  AddJsonFlag(app, o.json);
}

// The request on the command line, if there is one.
Result<std::vector<RequestLine>> ReadRequests(const CompressFlags& o) {
  std::vector<CompressionRequest> given;
  std::vector<std::string> found;
  const auto add = [&](const char* flag, Target target, double value) {
    given.push_back({target, value, {}});
    found.emplace_back(flag);
  };
  if (!o.max_bytes.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(o.max_bytes));
    add("--max-bytes", Target::kBytes, static_cast<double>(bytes));
  }
  if (o.size_ratio) {
    add("--size-ratio", Target::kSizeRatio, *o.size_ratio);
  }
  if (o.max_loss) {
    add("--max-loss", Target::kLoss, *o.max_loss);
  }
  if (o.max_latency_ms) {
    add("--max-latency-ms", Target::kLatency, *o.max_latency_ms);
  }
  if (!o.preference.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(const double size, SizePreference(o.preference[0], o.preference[1]));
    add("--preference", Target::kPreference, size);
  }
  if (!o.requests.empty()) {
    found.emplace_back("--requests");
  }
  if (found.size() != 1) {
    return InvalidArgument(
        fmt::format("expected one of --requests, --max-bytes, --size-ratio, --max-loss, --max-latency-ms, "
                    "--preference, found {}",
                    found.empty() ? "none of them" : fmt::format("{}", fmt::join(found, " and "))));
  }
  if (!o.requests.empty()) {
    if (!o.workload.empty()) {
      return InvalidArgument("--workload goes with one request; those of --requests name their own");
    }
    return ReadRequestFile(o.requests);
  }
  if (!o.workload.empty()) {
    ESPALIER_ASSIGN_OR_RETURN(given.front().workload, Workload::Parse(o.workload));
  }
  ESPALIER_RETURN_IF_ERROR(CheckRequest(given.front()));
  std::vector<RequestLine> lines;
  lines.push_back({1, "request", given.front()});
  return lines;
}

// As long as it lives Ctrl-C stops the evaluator, and what it measures is counted.
class Interruptible {
 public:
  explicit Interruptible(PlanEvaluator* evaluator)
      : evaluator_(evaluator), before_(evaluator != nullptr ? evaluator->archive().CountWholeRows() : 0) {
    if (evaluator_ != nullptr) {
      evaluator_->StopWhen(interrupted_.get());
    }
  }
  ~Interruptible() {
    if (evaluator_ != nullptr) {
      evaluator_->StopWhen(nullptr);
    }
  }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  int64_t MeasuredSince() const { return evaluator_ != nullptr ? evaluator_->archive().CountWholeRows() - before_ : 0; }

 private:
  PlanEvaluator* evaluator_;
  int64_t before_;
  InterruptFlag interrupted_;
};

class Compression {
 public:
  Compression(const CompressFlags& flags, std::shared_ptr<const Model> model, std::vector<RequestInWork> work)
      : o_(flags), model_(std::move(model)), work_(std::move(work)) {
    report_.model = model_.get();
    report_.seed = o_.seed.value_or(1);
    report_.method = o_.method;
    report_.verified = o_.verify;
  }

  Status Run() {
    ESPALIER_RETURN_IF_ERROR(CheckOutput());
    WarnOfTarget();
    ESPALIER_RETURN_IF_ERROR(ReadTexts());
    ESPALIER_RETURN_IF_ERROR(OpenArchive());
    CheckWorkloads();
    if (by_stratnet()) {
      MeasureLatencies();
    }
    ESPALIER_RETURN_IF_ERROR(FindSizes());
    if (by_stratnet()) {
      ESPALIER_RETURN_IF_ERROR(MakeCompressor());
    }
    Stopwatch watch;
    ESPALIER_RETURN_IF_ERROR(by_stratnet() ? AnswerAll() : SearchAll());
    report_.seconds.answering = watch.Lap() / 1000;
    if (o_.verify && by_stratnet()) {
      ESPALIER_RETURN_IF_ERROR(VerifyAll());
      report_.seconds.verifying = watch.Lap() / 1000;
    }
    if (!o_.test_text.empty()) {
      ESPALIER_RETURN_IF_ERROR(TestAll());
      report_.seconds.testing = watch.Lap() / 1000;
    }
    if (!o_.output.empty()) {
      WriteAll();
      report_.seconds.writing = watch.Lap() / 1000;
    }
    report_.failed = static_cast<size_t>(
        std::count_if(work_.begin(), work_.end(), [](const RequestInWork& work) { return work.failed(); }));
    if (compressor_) {
      report_.margin = compressor_->margin();
    }
    if (!many() && report_.failed > 0) {
      return work_.front().status;
    }
    if (o_.json) {
      PrintJson(CompressionJson(report_, work_));
    } else {
      PrintCompression(report_, work_);
    }
    return Outcome();
  }

 private:
  bool many() const { return !o_.requests.empty(); }
  bool by_stratnet() const { return o_.method == kStratNetwork; }
  bool measures() const { return by_stratnet() ? o_.verify : Rival::Measures(o_.method); }

  Status CheckOutput() const {
    std::error_code error;
    const std::string folder = std::filesystem::path(o_.output).parent_path();
    if (!many() && !folder.empty() && !std::filesystem::is_directory(folder, error)) {
      return InvalidArgument(fmt::format("--output {}: expected a file in a folder that is there", Quote(o_.output)));
    }
    if (!o_.output.empty() && many() && !std::filesystem::is_directory(o_.output, error)) {
      return InvalidArgument(
          fmt::format("--output {}: expected a folder, found {}", Quote(o_.output),
                      std::filesystem::exists(o_.output, error) ? "something else" : "nothing of that name"));
    }
    return Status::Ok();
  }

  // Before a search that may be in vain: plans are chosen by what they lose, not by whether they can be written.
  void WarnOfTarget() const {
    const std::string why = o_.output.empty() ? "" : WhyCompleteLayersOnly(*model_);
    if (!why.empty()) {
      Warn(
          fmt::format("--output: {} can only be written with both halves in every layer, and an answer that leaves one "
                      "alone will fail: {} (espalier export --drop a3,f3)",
                      model_->path(), why));
    }
  }

  // Before anything is begun: a text that is not there leaves nothing behind and loses nothing.
  Status ReadTexts() {
    if (o_.verify && !by_stratnet()) {
      return InvalidArgument(
          fmt::format("--verify goes with StratNet: --method {} answers with measured plans", o_.method));
    }
    if (measures() && o_.text.file.empty()) {
      return InvalidArgument(fmt::format("{} measures plans: expected --text, the text that the profile was ranked on",
                                         by_stratnet() ? "--verify" : "--method " + o_.method));
    }
    if (measures()) {
      ESPALIER_ASSIGN_OR_RETURN(windows_, ReadTrainingText(o_.text, *model_));
    }
    if (!o_.test_text.empty()) {
      TextOption text = o_.text;
      text.file = o_.test_text;
      text.max_windows = o_.test_windows;
      ESPALIER_ASSIGN_OR_RETURN(test_windows_, ReadTrainingText(text, *model_));
    }
    return Status::Ok();
  }

  // What was measured, and what measures.
  Status OpenArchive() {
    PolicyFlags flags = o_.profile;
    if (flags.profile.empty()) {
      flags.profile = model_->path() + ".profile";  // an error where there is none
    }
    if (!by_stratnet() && Rival::Measures(o_.method) && flags.profile != "none") {
      ESPALIER_RETURN_IF_ERROR(OpenStore(flags.profile));
      ESPALIER_RETURN_IF_ERROR(store_->Save());  // one that was begun can be read from now on
    }
    auto use = OpenProfile(flags, *model_);
    if (!use.ok() && use.status().code() == ErrorCode::kNotFound && by_stratnet()) {
      return NotFound(use.status().message() + "; `espalier train stratnet` makes one that answers requests");
    }
    ESPALIER_ASSIGN_OR_RETURN(use_, std::move(use));
    if (use_.profile == nullptr) {
      return InvalidArgument("--profile none: expected a profile with a StratNet; `espalier train stratnet` makes it");
    }
    report_.profile = use_.path;
    report_.ablation = use_.ablation;
    if (!measures()) {
      ESPALIER_ASSIGN_OR_RETURN(const EngineOptions engine, o_.engine.Read(model_->hparams().n_ctx_train));
      archive_ = ServedArchive(*use_.profile, {.ablation = use_.ablation,
                                               .key_type = KvTypeName(engine.key_type),
                                               .value_type = KvTypeName(engine.value_type)});
      if (archive_ == nullptr) {
        return NotFound(fmt::format(
            "profile {}: no measured plans to choose by; `espalier train stratnet` measures them", Quote(use_.path)));
      }
      return Status::Ok();
    }
    const Stopwatch watch;
    if (store_ == nullptr) {
      ESPALIER_RETURN_IF_ERROR(OpenStore(use_.path));
    }
    ESPALIER_ASSIGN_OR_RETURN(evaluator_, OpenTrainingEvaluator(*windows_, o_.engine, model_, store_.get()));
    archive_ = &evaluator_->archive();
    report_.seconds.dense_predictions = watch.Milliseconds() / 1000;
    return Status::Ok();
  }

  Status OpenStore(const std::string& path) {
    RecoveryNotes notes;
    ESPALIER_ASSIGN_OR_RETURN(store_, ProfileStore::Open(path, *model_, &notes));
    std::for_each(notes.begin(), notes.end(), Warn);
    return Status::Ok();
  }

  void CheckWorkloads() {
    const int64_t longest = model_->hparams().n_ctx_train;
    for (RequestInWork& work : work_) {
      if (work.failed()) {
        continue;
      }
      CompressionRequest& request = *work.line.request;
      if (request.target == Target::kLatency && !request.workload) {
        request.workload = Workload::Uniform(1, std::min<int64_t>(kLatencyTokens, longest));
      }
      if (request.target == Target::kLatency && request.workload->n_sequences > kMostTimedSequences) {
        work.status =
            Named(work, InvalidArgument(fmt::format("field \"workload\": expected at most {} sequences to time "
                                                    "decode steps of, found {}",
                                                    kMostTimedSequences, request.workload->ToText())));
      } else if (request.workload && request.workload->longest_sequence > longest) {
        work.status = Named(work, InvalidArgument(fmt::format(
                                      "field \"workload\": expected sequences of at most {} tokens, which the model "
                                      "was trained for, found {}",
                                      longest, request.workload->ToText())));
      }
    }
  }

  // Of every workload that a request asks about. Where it cannot be measured, such requests fail.
  void MeasureLatencies() {
    const Stopwatch watch;
    ProgressBar bar("decode steps");
    uint64_t done = 0;
    for (RequestInWork& work : work_) {
      bar.Update(done++, work_.size());
      if (work.failed() || work.request().target != Target::kLatency ||
          latencies_.find(work.request().workload->ToText()) != latencies_.end()) {
        continue;
      }
      auto latency = MeasureLatency(*work.request().workload);
      if (latency.ok()) {
        latencies_.emplace(work.request().workload->ToText(), std::move(*latency));
      } else {
        work.status = Named(work, latency.status());
      }
    }
    report_.seconds.decode_steps = watch.Milliseconds() / 1000;
  }

  Result<DecodeLatency> MeasureLatency(const Workload& workload) const {
    ESPALIER_ASSIGN_OR_RETURN(const auto engine, EngineFor(workload));
    return DecodeLatency::Measure(*engine, workload, o_.confidence);
  }

  // Of an engine that serves with this profile: its means are held and counted wherever it is made or measured.
  Result<EngineOptions> ServingOptions(const Workload& workload) const {
    ESPALIER_ASSIGN_OR_RETURN(EngineOptions options, o_.engine.Read(workload));
    options.means = use_.means;
    return options;
  }

  Result<std::unique_ptr<Engine>> EngineFor(const Workload& workload) const {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, ServingOptions(workload));
    return Engine::Create(model_, options, Plan::Dense(model_->n_layer()));
  }

  // Of files and footprints.
  Status FindSizes() {
    ESPALIER_ASSIGN_OR_RETURN(const EngineOptions serving,
                              ServingOptions(Workload::Uniform(1, model_->hparams().n_ctx_train)));
    ESPALIER_ASSIGN_OR_RETURN(memory_, MeasureMemoryModel(model_, serving));
    for (RequestInWork& work : work_) {
      if (work.failed() || !work.request().workload) {
        continue;
      }
      const Workload& workload = *work.request().workload;
      if (memory_at_.find(workload.ToText()) == memory_at_.end()) {
        ESPALIER_ASSIGN_OR_RETURN(const EngineOptions options, ServingOptions(workload));
        auto memory = MeasureMemoryModel(model_, options);
        if (memory.ok()) {
          memory_at_.emplace(workload.ToText(), std::move(*memory));
        } else {
          work.status = Named(work, memory.status());
        }
      }
    }
    // Provenance differs from plan to plan and from request to request: the longest there is.
    const Plan most_text = Plan::Nothing(model_->n_layer());
    constexpr double kLongestNumber = -1.2345678901234567e-100;
    ESPALIER_ASSIGN_OR_RETURN(const ExportOptions options, ExportOptionsFor(*model_, use_, most_text, kLongestNumber,
                                                                            Provenance(std::string(kMaxIdBytes, 'x'))));
    ESPALIER_ASSIGN_OR_RETURN(file_bytes_, ExportBytes::Create(model_, options));
    return Status::Ok();
  }

  RequestBytes BytesOf(const CompressionRequest& request) const {
    return {request.workload ? memory_at_.at(request.workload->ToText()) : memory_, file_bytes_, request.workload};
  }

  Status MakeCompressor() {
    const auto found = FindStratRecord(*use_.profile, o_.seed);
    if (!found.ok()) {
      return Status(found.status().code(), fmt::format("{}: {}", Quote(use_.path), found.status().message()));
    }
    const Agent* record = *found;
    ESPALIER_ASSIGN_OR_RETURN(StratNet net, StratNetOf(*record, model_->n_block()));
    ESPALIER_ASSIGN_OR_RETURN(LossSurrogate surrogate, LossSurrogate::Fit(*archive_, model_->n_layer()));
    report_.seed = record->seed;
    report_.shared_evaluations = static_cast<double>(record->episodes);
    CompressorOptions options;
    options.margin.confidence = o_.confidence;
    if (o_.network_alone) {
      options.refined = 0;
      options.use_measured = false;
    }
    options.decode_ms = [this](const Plan& plan, const Workload& workload) {
      return latencies_.at(workload.ToText()).UpperMs(plan);
    };
    options.memory_at = [this](const Workload& workload) -> const MemoryModel& {
      return memory_at_.at(workload.ToText());
    };
    compressor_.emplace(std::move(net), std::move(surrogate), archive_, memory_, file_bytes_, std::move(options));
    return Status::Ok();
  }

  std::vector<std::pair<std::string, std::string>> Provenance(const std::string& id) const {
    return {{"method", o_.method}, {"request", id}};
  }

  Status AnswerAll() {
    std::vector<CompressionRequest> requests;
    std::vector<RequestInWork*> asked;
    for (RequestInWork& work : work_) {
      if (!work.failed()) {
        requests.push_back(work.request());
        asked.push_back(&work);
      }
    }
    std::vector<Result<CompressionAnswer>> answers = compressor_->Answer(requests);
    for (size_t i = 0; i < asked.size(); ++i) {
      Take(*asked[i], std::move(answers[i]));
    }
    return Status::Ok();
  }

  // One request after the other, by another method than StratNet.
  Status SearchAll() {
    const Interruptible interruptible(evaluator_.get());
    ESPALIER_ASSIGN_OR_RETURN(const Rival rival,
                              Rival::Make(o_.method, *use_.profile, archive_, evaluator_.get(), report_.seed));
    report_.shared_evaluations = rival.shared_evaluations();
    ProgressBar bar("searching");
    uint64_t done = 0;
    for (RequestInWork& work : work_) {
      if (!work.failed()) {
        auto found = rival(work.request(), BytesOf(work.request()));
        if (!found.ok() && found.status().code() == ErrorCode::kAborted) {
          return found.status();
        }
        work.evaluations = found.ok() ? std::optional<double>(found->evaluations) : std::nullopt;
        Take(work, found.ok() ? Result<CompressionAnswer>(std::move(found->answer)) : found.status());
      }
      bar.Update(++done, work_.size());
    }
    report_.evaluations = interruptible.MeasuredSince();
    kept_ = store_ != nullptr ? store_->Save() : Status::Ok();
    return Status::Ok();
  }

  void Take(RequestInWork& work, Result<CompressionAnswer> answer) const {
    if (answer.ok()) {
      work.answer = std::move(*answer);
    } else {
      work.status = Named(work, answer.status());
    }
  }

  Status Named(const RequestInWork& work, const Status& status) const {
    const std::string where =
        many() ? fmt::format("{}, line {} ({}): ", Quote(o_.requests), work.line.line, work.line.id) : "";
    return {status.code(), where + status.message()};
  }

  Status VerifyAll() {
    const Interruptible interruptible(evaluator_.get());
    ProgressBar bar("verifying");
    uint64_t done = 0;
    for (RequestInWork& work : work_) {
      if (!work.failed()) {
        ESPALIER_RETURN_IF_ERROR(Verify(work));
      }
      bar.Update(++done, work_.size());
    }
    report_.evaluations = interruptible.MeasuredSince();
    kept_ = store_->Save();
    return VerifyLatencies();
  }

  // Measures the answer. Where that loses more than it may, the next one that is promised to hold takes its place; to
  // other targets the next one that is guessed to lose less is measured too, a few times, and the best is the answer.
  Status Verify(RequestInWork& work) {
    const bool within_loss = work.request().target == Target::kLoss;
    const int most_tries = within_loss ? kMostTries : kTriesForLess;
    std::optional<CompressionAnswer> best;
    while (work.tries < most_tries) {
      const double upper = work.answer->upper_loss;
      ESPALIER_ASSIGN_OR_RETURN(const double loss, evaluator_->Measure(work.answer->plan));
      work.answer->measured_loss = loss;
      work.answer->upper_loss = loss;
      if (work.tries++ == 0) {
        work.first_loss = loss;
        work.first_upper = upper;
      }
      if (within_loss && loss <= work.request().value) {
        return Status::Ok();
      }
      if (!within_loss && (!best || loss < *best->measured_loss)) {
        best = *work.answer;
      }
      auto next = std::move(compressor_->Answer({&work.request(), 1}).front());
      if (best && (!next.ok() || next->plan == best->plan)) {
        break;
      }
      Take(work, std::move(next));
      if (work.failed()) {
        return Status::Ok();
      }
    }
    if (best) {
      work.answer = std::move(*best);
      return Status::Ok();
    }
    work.status = Named(work, Unsupported(fmt::format("field \"max_loss\": {} plans were measured to lose more than {}",
                                                      kMostTries, work.request().value)));
    return Status::Ok();
  }

  Status VerifyLatencies() {
    constexpr int kSteps = 15;
    std::map<std::string, std::unique_ptr<Engine>> engines;
    for (RequestInWork& work : work_) {
      if (work.failed() || work.request().target != Target::kLatency) {
        continue;
      }
      const Workload& workload = *work.request().workload;
      auto& engine = engines[workload.ToText()];
      if (engine == nullptr) {
        ESPALIER_ASSIGN_OR_RETURN(engine, EngineFor(workload));
      }
      ESPALIER_RETURN_IF_ERROR(engine->Apply(work.answer->plan).status());
      ESPALIER_ASSIGN_OR_RETURN(auto ms, TimeDecodeSteps(*engine, workload, kSteps));
      work.decode_ms = QuartilesOf(std::move(ms)).median;
    }
    return Status::Ok();
  }

  // On another text, with nothing kept.
  Status TestAll() {
    PlanEvaluatorOptions options;
    ESPALIER_ASSIGN_OR_RETURN(options.engine, o_.engine.Read(test_windows_->window_tokens));
    options.ablation = use_.ablation;
    options.means = use_.means;
    ESPALIER_ASSIGN_OR_RETURN(const auto evaluator, PlanEvaluator::Create(model_, *test_windows_, options, nullptr));
    const Interruptible interruptible(evaluator.get());
    ProgressBar bar("testing");
    uint64_t done = 0;
    for (RequestInWork& work : work_) {
      if (!work.failed()) {
        ESPALIER_ASSIGN_OR_RETURN(work.test_loss, evaluator->Measure(work.answer->plan));
      }
      bar.Update(++done, work_.size());
    }
    return Status::Ok();
  }

  void WriteAll() {
    const InterruptFlag interrupted;
    for (RequestInWork& work : work_) {
      if (!work.failed()) {
        const std::string path = many() ? o_.output + "/" + work.line.id + ".gguf" : o_.output;
        work.status =
            *interrupted.get() ? Aborted("stopped before it was written") : Write(work, path, interrupted.get());
        if (work.failed()) {
          work.status = Named(work, work.status);
        }
      }
    }
  }

  Status Write(RequestInWork& work, const std::string& path, const std::atomic<bool>* stop) const {
    const CompressionAnswer& answer = *work.answer;
    ESPALIER_ASSIGN_OR_RETURN(
        const ExportOptions options,
        ExportOptionsFor(*model_, use_, answer.plan, answer.measured_loss, Provenance(work.line.id)));
    ESPALIER_ASSIGN_OR_RETURN(const GgufExport prepared, GgufExport::Prepare(model_, answer.plan, options));
    ESPALIER_RETURN_IF_ERROR(WriteExport(prepared, path, use_, stop));
    work.output = path;
    work.output_bytes = prepared.file_bytes();
    return Status::Ok();
  }

  // Every failure on stderr; the last line is the command's own.
  Status Outcome() const {
    if (report_.failed == 0) {
      return kept_;
    }
    for (const RequestInWork& work : work_) {
      if (work.failed()) {
        fmt::print(stderr, "espalier: {}\n", Printable(work.status.message(), 4096));
      }
    }
    if (!kept_.ok()) {
      fmt::print(stderr, "espalier: {}\n", Printable(kept_.message(), 4096));
    }
    const bool stopped = std::any_of(work_.begin(), work_.end(), [](const RequestInWork& work) {
      return work.failed() && work.status.code() == ErrorCode::kAborted;
    });
    const std::string summary = fmt::format("{} of {} requests failed", report_.failed, work_.size());
    return stopped ? Aborted(summary) : InvalidArgument(summary);
  }

  const CompressFlags& o_;
  const std::shared_ptr<const Model> model_;
  std::vector<RequestInWork> work_;
  ProfileInUse use_;
  std::optional<Windows> windows_;            // with --verify, and of rivals that measure
  std::optional<Windows> test_windows_;       // with --test-text
  std::unique_ptr<ProfileStore> store_;       // as windows_
  std::unique_ptr<PlanEvaluator> evaluator_;  // likewise
  Status kept_;                               // what was measured, in the profile
  const Archive* archive_ = nullptr;
  std::map<std::string, DecodeLatency> latencies_;  // by workload
  MemoryModel memory_;                              // of an engine for as many cells as the model was trained for
  std::map<std::string, MemoryModel> memory_at_;    // by workload
  PlanBytes file_bytes_;
  std::optional<Compressor> compressor_;  // of StratNet
  CompressionReport report_;
};

Status RunCompress(const CompressFlags& o) {
  ESPALIER_ASSIGN_OR_RETURN(std::vector<RequestLine> lines, ReadRequests(o));
  ESPALIER_ASSIGN_OR_RETURN(auto model, o.model.Open());
  std::vector<RequestInWork> work;
  for (RequestLine& line : lines) {
    work.emplace_back(std::move(line));
  }
  return Compression(o, std::move(model), std::move(work)).Run();
}

}  // namespace

void AddCompressCommand(CLI::App& app, std::vector<Command>& commands) {
  auto* command =
      app.add_subcommand("compress", "Answer any number of compression requests, as plans or smaller GGUFs");
  command->footer(
      "StratNet (`espalier train stratnet`) answers all requests together. A target in bytes is never exceeded; "
      "losses\n"
      "and decode steps stay within theirs with --confidence, or are measured with --verify. A request that fails "
      "does\n"
      "not stop the others; the exit code is then not 0.\n\n"
      "Examples:\n"
      "  espalier compress reference --profile reference.profile --size-ratio 0.7 -o small.gguf\n"
      "  espalier compress reference --profile reference.profile --requests requests.jsonl --output models --json\n"
      "  espalier compress model.gguf --max-loss 0.1 --verify --text calibration.txt -o small.gguf\n");
  AddCommand<CompressFlags>(command, commands, BindCompress, RunCompress);
}

}  // namespace espalier
