// What lies between the one who answers a request, on any thread, and the connection that carries the answer: parts
// that wait, and news of the client. Knows no sockets.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/http_server.h"

namespace espalier {

// Thread rule: any thread. `wake` is called with a lock held, so that none is under way once Disconnect has returned:
// it may only post. Callbacks of OnDisconnect are run and destroyed without the lock.
class HttpAnswer {
 public:
  // `wake` tells the connection to come and Take(); it is called once for all that was written since the last Take().
  // `post` hands a task to the connection's strand, under the same rule as `wake`.
  HttpAnswer(size_t max_backlog_bytes, std::function<void()> wake, std::function<void(std::function<void()>)> post);

  // The answering side: HttpResponder's contract. Calls out of order (a second Send, Write before Begin or after End)
  // change nothing; Write then gives false. Once End or Send was called, OnDisconnect's callback is not wanted any
  // more.
  void Send(HttpResponse response);
  void Begin(HttpResponse head);
  bool Write(std::string part);
  void End();
  void OnDisconnect(std::function<void()> callback);
  bool disconnected() const;
  void Post(std::function<void()> task);
  // Nobody is left who could answer.
  void Dropped();

  // The connection's side, on its strand.
  struct Output {
    std::optional<HttpResponse> head;  // once; the body is in `body`
    bool sized = false;                // with `head`: `body` is the whole body
    std::string body;                  // all that was written since, in one
    bool complete = false;             // nothing follows
  };
  Output Take();
  // How much of what was taken is not with the client's kernel yet.
  void SetInFlight(size_t bytes);
  // Whether the answer will never be complete by the answerer's fault or by a client that does not read: the
  // connection has to be closed.
  bool broken() const;
  bool ended() const;
  // The client went away: runs the callback if the answer was not complete. `wake` is not called from then on.
  void Disconnect();

 private:
  enum class State { kOpen, kBegun, kEnded };

  void WakeLocked();

  const size_t max_backlog_bytes_;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  std::function<void()> wake_;
  std::function<void(std::function<void()>)> post_;
  bool wake_pending_ = false;
  State state_ = State::kOpen;
  std::optional<HttpResponse> head_;
  bool sized_ = false;
  std::string waiting_;
  size_t in_flight_ = 0;
  bool broken_ = false;
  bool gone_ = false;
  std::function<void()> on_disconnect_;
};

std::shared_ptr<HttpResponder> MakeHttpResponder(std::shared_ptr<HttpAnswer> answer);

}  // namespace espalier
