// One request for a completion on its way from a parsed body to an answer. A part of Completions, not for use
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/completion_response.h"
#include "server/completions.h"
#include "server/prompt_text.h"
#include "server/text_stream.h"

namespace espalier {

// One HTTP request: its choices, each a request in the loop. Lives until the last of them has ended; all of it runs on
// the connection's thread of work.
class Completions::Call : public std::enable_shared_from_this<Call> {
 public:
  Call(const Served& served, std::shared_ptr<Live> live, CompletionRequest request,
       std::shared_ptr<HttpResponder> responder);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  // Everything that can be wrong with the request, and takes time.
  std::optional<ApiError> Prepare();
  void Begin();

 private:
  using Clock = std::chrono::steady_clock;
  class Listener;
  struct Choice {
    RequestId id = 0;
    LoopRequest prepared;  // until it is submitted
    std::vector<int32_t> prompt;
    std::shared_ptr<const EchoedPrompt> echoed;  // if the prompt is to be told: of all its choices
    TextStream text;
    ChoiceAnswer answer;
    int64_t generated = 0;
    int64_t echoed_characters = 0;  // of the prompt, which `text` knows nothing of
    Clock::time_point first_token;
    size_t echoed_scores = 0;
    bool begun = false;    // something of it was sent
    bool stopped = false;  // by a stop string or a limit on time: what still comes is not for the client
    bool ended = false;
  };

  void TakePromptScores(size_t index, std::vector<TokenScores> scores);
  void TakeToken(size_t index, const TokenScores& scores);
  void TakeEnd(size_t index, const RequestEnd& end);
  void TakeText(Choice& choice, std::string text, std::span<const int32_t> tokens, std::span<const TokenAnswer> scores);
  TokenAnswer Describe(const TokenScores& scores, int64_t text_offset) const;
  ScoredPiece Describe(const ScoredToken& token) const;
  void EchoPrompt(Choice& choice);
  void Send(std::string part);
  void Fail(const ApiError& error);
  void Complete();
  void CancelAll();

  const Served& served_;
  const std::shared_ptr<Live> live_;
  CompletionRequest request_;
  const AnswerHead head_;
  const std::shared_ptr<HttpResponder> responder_;
  std::optional<AnswerStream> stream_;
  std::vector<Choice> choices_;
  bool streaming_ = false;  // the head of the response is out
  bool over_ = false;       // answered: with an error, perhaps
};

}  // namespace espalier
