#include "server/completions_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <variant>

#include "server/error_answer.h"
#include "server/prompt_tokens.h"

namespace espalier {
namespace {

// Unique among servers and restarts: random once, then counted.
std::string NewId(const char* prefix) {
  static const uint64_t kStart = [] {
    std::random_device device;
    return (uint64_t{device()} << 32) | device();
  }();
  static std::atomic<uint64_t> count = 0;
  return fmt::format("{}-{:016x}{:08x}", prefix, kStart, count.fetch_add(1));
}

AnswerHead NewHead(const Served& served, ApiKind kind) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.id = NewId(kind == ApiKind::kChat ? "chatcmpl" : "cmpl"),
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
          .model = served.name,
          .fingerprint = "espalier-" ESPALIER_VERSION};
}

}  // namespace

Completions::Call::Call(const Served& served, std::shared_ptr<Live> live, CompletionRequest request,
                        std::shared_ptr<HttpResponder> responder)
    : served_(served),
      live_(std::move(live)),
      request_(std::move(request)),
      head_(NewHead(served, request_.kind)),
      responder_(std::move(responder)) {
  live_->Add(1);
  if (request_.stream) {
    stream_.emplace(head_, request_);
  }
}

Completions::Call::~Call() { live_->Add(-1); }

class Completions::Call::Listener final : public RequestListener {
 public:
  Listener(std::shared_ptr<Call> call, size_t index) : call_(std::move(call)), index_(index) {}

  void OnPromptScores(std::vector<TokenScores> scores) override {
    call_->responder_->Post([call = call_, i = index_, scores = std::move(scores)]() mutable {
      call->TakePromptScores(i, std::move(scores));
    });
  }
  void OnToken(const TokenScores& scores) override {
    call_->responder_->Post([call = call_, i = index_, scores] { call->TakeToken(i, scores); });
  }
  void OnEnd(const RequestEnd& end) override {
    call_->responder_->Post([call = call_, i = index_, end] { call->TakeEnd(i, end); });
  }

 private:
  const std::shared_ptr<Call> call_;
  const size_t index_;
};

std::optional<ApiError> Completions::Call::Prepare() {
  auto prompts = PromptTokens(served_, request_);
  if (IsError(prompts)) {
    return std::get<ApiError>(std::move(prompts));
  }
  auto sampling = SamplingOf(served_, request_);
  if (IsError(sampling)) {
    return std::get<ApiError>(std::move(sampling));
  }
  const auto shared = std::make_shared<const SamplerOptions>(std::get<0>(std::move(sampling)));
  for (size_t p = 0; p < std::get<0>(prompts).size(); ++p) {
    const std::vector<int32_t>& prompt = std::get<0>(prompts)[p];
    const bool told = request_.echo || request_.kind == ApiKind::kNative;
    const auto echoed =
        told ? std::make_shared<const EchoedPrompt>(EchoOf(*served_.tokenizer, request_.prompts[p], prompt)) : nullptr;
    for (int i = 0; i < request_.n; ++i) {
      Choice choice;
      choice.text = TextStream(request_.stop);
      choice.answer.index = static_cast<int>(choices_.size());
      LoopRequest& wanted = choice.prepared;
      wanted.prompt = prompt;
      wanted.max_tokens = AnswerTokens(served_, request_.max_tokens, static_cast<int64_t>(prompt.size()));
      choice.answer.seed = SeedOf(shared->seed, i);
      wanted.make_sampler = MakerOf(served_, shared, choice.answer.seed);
      wanted.n_top = request_.n_top;
      wanted.prompt_scores = request_.echo && request_.n_top >= 0;
      wanted.cache_prompt = request_.cache_prompt;
      if (told) {
        choice.prompt = prompt;
        choice.echoed = echoed;
      }
      choices_.push_back(std::move(choice));
    }
  }
  return std::nullopt;
}

void Completions::Call::Begin() {
  for (size_t i = 0; i < choices_.size(); ++i) {
    LoopRequest wanted = std::move(choices_[i].prepared);
    wanted.listener = std::make_shared<Listener>(shared_from_this(), i);
    const Result<RequestId> id = served_.loop->Submit(std::move(wanted));
    if (!id.ok()) {
      Fail(ErrorFromStatus(id.status()));
      return;
    }
    choices_[i].id = *id;
  }
  responder_->OnDisconnect([weak = weak_from_this()] {
    if (const auto call = weak.lock()) {
      call->CancelAll();
    }
  });
}

void Completions::Call::CancelAll() {
  over_ = true;
  for (const Choice& choice : choices_) {
    if (choice.id != 0 && !choice.ended) {
      served_.loop->Cancel(choice.id);
    }
  }
}

ScoredPiece Completions::Call::Describe(const ScoredToken& token) const {
  return {.token = token.token, .piece = served_.tokenizer->Piece(token.token, true), .logprob = token.logprob};
}

TokenAnswer Completions::Call::Describe(const TokenScores& scores, int64_t text_offset) const {
  TokenAnswer answer;
  answer.chosen = Describe(scores.chosen);
  for (const ScoredToken& token : scores.top) {
    answer.top.push_back(Describe(token));
  }
  answer.text_offset = text_offset;
  return answer;
}

// The text of the prompt goes first, as if it had been generated.
void Completions::Call::EchoPrompt(Choice& choice) {
  if (request_.echo && !choice.begun) {
    choice.echoed_characters = choice.echoed->characters;
    TakeText(choice, choice.echoed->text, {}, {});
  }
}

void Completions::Call::TakePromptScores(size_t index, std::vector<TokenScores> scores) {
  Choice& choice = choices_[index];
  if (over_) {
    return;
  }
  std::vector<TokenAnswer> answers;
  TokenAnswer first = Describe(TokenScores{{choice.prompt.front(), 0}, {}}, 0);
  first.scored = false;
  answers.push_back(std::move(first));
  for (const TokenScores& token : scores) {
    answers.push_back(Describe(token, choice.echoed->offsets[answers.size()]));
  }
  choice.echoed_characters = choice.echoed->characters;
  choice.echoed_scores = answers.size();
  TakeText(choice, choice.echoed->text, {}, answers);
}

void Completions::Call::TakeText(Choice& choice, std::string text, std::span<const int32_t> tokens,
                                 std::span<const TokenAnswer> scores) {
  if (!stream_) {
    choice.answer.text += text;
    choice.answer.tokens.insert(choice.answer.tokens.end(), tokens.begin(), tokens.end());
    choice.answer.scores.insert(choice.answer.scores.end(), scores.begin(), scores.end());
    choice.begun = true;
    return;
  }
  if (!choice.begun) {
    choice.begun = true;
    Send(stream_->Begin(choice.answer.index));
  }
  if (text.empty() && tokens.empty() && scores.empty()) {
    return;  // a part of a character: the next token completes it
  }
  StreamPart part;
  part.index = choice.answer.index;
  part.text = text;
  part.tokens = tokens;
  part.scores = scores;
  part.prompt_tokens = static_cast<int64_t>(choice.prompt.size());
  part.generated_tokens = choice.generated;
  Send(stream_->Part(part));
}

void Completions::Call::TakeToken(size_t index, const TokenScores& scores) {
  Choice& choice = choices_[index];
  if (over_ || choice.stopped) {
    return;
  }
  EchoPrompt(choice);
  const int32_t token = scores.chosen.token;
  ++choice.generated;
  const int64_t offset = choice.echoed_characters + choice.text.characters();
  std::string text = choice.text.Push(served_.tokenizer->Piece(token, false));
  std::vector<TokenAnswer> answers;
  if (request_.n_top >= 0) {
    answers.push_back(Describe(scores, offset));
  }
  const bool wants_tokens = request_.kind == ApiKind::kNative;
  TakeText(choice, std::move(text), wants_tokens ? std::span(&token, 1) : std::span<const int32_t>(), answers);
  const auto now = Clock::now();
  if (choice.generated == 1) {
    choice.first_token = now;
  }
  // llama-server's rule: not in the middle of the first line.
  const bool late = request_.max_predict_ms > 0 && choice.text.has_new_line() &&
                    now - choice.first_token > std::chrono::milliseconds(request_.max_predict_ms);
  if (choice.text.stopped() || late) {
    choice.stopped = true;
    served_.loop->Cancel(choice.id);
  }
}

void Completions::Call::TakeEnd(size_t index, const RequestEnd& end) {
  Choice& choice = choices_[index];
  choice.ended = true;
  if (over_) {
    return;
  }
  const auto error = choice.stopped ? std::nullopt : ErrorOfEnd(end);
  if (error) {
    Fail(*error);
    return;
  }
  EchoPrompt(choice);
  TakeText(choice, choice.text.Flush(), {}, {});
  choice.answer.end = end;
  choice.answer.end.generated_tokens = choice.generated;  // those after a stop string are nobody's
  choice.answer.stopping_word = choice.text.stopping_word();
  if (choice.stopped && !choice.text.stopped()) {
    choice.answer.end.reason = FinishReason::kLength;  // its time was over
  }
  choice.answer.has_new_line = choice.text.has_new_line();
  if (choice.text.stopped()) {  // tokens of the stop string are not part of the answer
    const int64_t sent = choice.echoed_characters + choice.text.characters_sent();
    auto& scores = choice.answer.scores;
    const auto is_cut = [&](const TokenAnswer& token) { return token.text_offset >= sent; };
    const auto generated = scores.begin() + static_cast<ptrdiff_t>(std::min(choice.echoed_scores, scores.size()));
    scores.erase(std::remove_if(generated, scores.end(), is_cut), scores.end());
  }
  if (request_.kind == ApiKind::kNative) {
    choice.answer.prompt_text = choice.echoed->text;
  }
  if (stream_) {
    Send(stream_->Finish(choice.answer));
  }
  if (std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.ended; })) {
    Complete();
  }
}

void Completions::Call::Send(std::string part) {
  if (part.empty() || over_) {
    return;
  }
  if (!streaming_) {
    streaming_ = true;
    HttpResponse head;
    head.content_type = "text/event-stream";
    head.headers.emplace_back("Cache-Control", "no-cache");
    head.headers.emplace_back("X-Accel-Buffering", "no");  // proxies hold back otherwise
    head.body = std::move(part);
    responder_->Begin(std::move(head));
  } else if (!responder_->Write(std::move(part))) {
    CancelAll();
  }
}

void Completions::Call::Fail(const ApiError& error) {
  if (streaming_) {
    Send(SseError(error));
    responder_->End();
  } else {
    responder_->Send(ErrorAnswer(error));
  }
  CancelAll();
}

void Completions::Call::Complete() {
  std::vector<ChoiceAnswer> answers;
  for (Choice& choice : choices_) {
    answers.push_back(std::move(choice.answer));
  }
  if (stream_) {
    Send(stream_->End(answers));
    responder_->End();
  } else {
    HttpResponse response;
    response.body = WholeAnswer(head_, request_, answers);
    responder_->Send(std::move(response));
  }
  over_ = true;
}

}  // namespace espalier
