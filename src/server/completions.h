// Completions of all three APIs: from a body to requests in the engine loop, and from their tokens to an answer, whole
// or streamed.
//
// All of it runs on the connection's own thread of work (HttpResponder::Post): parsing, templates, tokenising, and
// later text and JSON. The engine thread only hands tokens over.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "server/completion_request.h"
#include "server/http_server.h"
#include "server/served.h"

namespace espalier {

// Thread rule: Answer from any thread. Outlives nothing it was given: `served` must outlive this, and the loop must
// have ended (so that it calls no listener any more) before this goes.
class Completions {
 public:
  explicit Completions(const Served& served) : served_(served) {}

  // Answers, now or later, with an error where it has to. A client that goes away ends its requests.
  void Answer(ApiKind kind, const std::string& body, std::shared_ptr<HttpResponder> responder);
  // Returns when all that the loop has handed over is in the responders' hands, or after some seconds.
  void Flush() { live_->WaitForNone(); }

 private:
  // Answers that are under way; outlives this in those that nobody waited for.
  class Live {
   public:
    void Add(int n);
    void WaitForNone();

   private:
    std::mutex mutex_;
    std::condition_variable none_;
    int count_ = 0;
  };
  class Call;

  const Served& served_;
  const std::shared_ptr<Live> live_ = std::make_shared<Live>();
};

}  // namespace espalier
