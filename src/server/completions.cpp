#include "server/completions.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>
#include <variant>

#include "server/completions_call.h"
#include "server/error_answer.h"

namespace espalier {

void Completions::Live::Add(int n) {
  const std::lock_guard lock(mutex_);
  count_ += n;
  none_.notify_all();
}

void Completions::Live::WaitForNone() {
  constexpr std::chrono::seconds kLongest(5);
  std::unique_lock lock(mutex_);
  none_.wait_for(lock, kLongest, [this] { return count_ == 0; });
}

namespace {

bool IsServed(const Served& served, const std::string& model) {
  return model.empty() || model == served.name || model == served.model->path();
}

}  // namespace

void Completions::Answer(ApiKind kind, const std::string& body, std::shared_ptr<HttpResponder> responder) {
  RequestDefaults defaults;
  defaults.sampling = served_.sampling;
  defaults.max_tokens = served_.max_tokens;
  defaults.n_vocab = served_.tokenizer->n_vocab();
  auto request = ParseCompletionRequest(kind, body, defaults);
  if (IsError(request)) {
    responder->Send(ErrorAnswer(std::get<ApiError>(request)));
    return;
  }
  auto& parsed = std::get<CompletionRequest>(request);
  if (!IsServed(served_, parsed.model)) {
    ApiError error =
        NotFoundError(fmt::format("model '{}' does not exist; this server has '{}'", parsed.model, served_.name));
    error.param = "model";
    error.code = "model_not_found";
    responder->Send(ErrorAnswer(error));
    return;
  }
  const auto call = std::make_shared<Call>(served_, live_, std::move(parsed), responder);
  if (const auto error = call->Prepare()) {
    responder->Send(ErrorAnswer(*error));
    return;
  }
  call->Begin();
}

}  // namespace espalier