// Completions of all three APIs: from a body to requests in the engine loop, and from their tokens to an answer, whole
// or streamed.
//
// Parsing, templates and tokenising run on the thread of the connection; everything after that (text, JSON, the
// response) on one worker thread. The engine thread only hands tokens over.
#pragma once

#include <memory>
#include <string>

#include "server/completion_request.h"
#include "server/http_server.h"
#include "server/serial_worker.h"
#include "server/served.h"

namespace espalier {

// Thread rule: Answer from any thread. Outlives nothing it was given: `served` must outlive this, and the loop must
// have ended (so that it calls no listener any more) before this goes.
class Completions {
 public:
  explicit Completions(const Served& served) : served_(served) {}

  // Answers, now or later, with an error where it has to. A client that goes away ends its requests.
  void Answer(ApiKind kind, const std::string& body, std::shared_ptr<HttpResponder> responder);
  // Returns when all that the loop has handed over is in the responders' hands.
  void Flush() { worker_.Flush(); }

 private:
  const Served& served_;
  SerialWorker worker_;
};

}  // namespace espalier
