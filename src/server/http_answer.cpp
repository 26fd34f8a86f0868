#include "server/http_answer.h"

#include <utility>

namespace espalier {
namespace {

class Responder final : public HttpResponder {
 public:
  explicit Responder(std::shared_ptr<HttpAnswer> answer) : answer_(std::move(answer)) {}
  Responder(const Responder&) = delete;
  Responder& operator=(const Responder&) = delete;
  ~Responder() override { answer_->Dropped(); }

  void Send(HttpResponse response) override { answer_->Send(std::move(response)); }
  void Begin(HttpResponse head) override { answer_->Begin(std::move(head)); }
  bool Write(std::string part) override { return answer_->Write(std::move(part)); }
  void End() override { answer_->End(); }
  void OnDisconnect(std::function<void()> callback) override { answer_->OnDisconnect(std::move(callback)); }
  bool disconnected() const override { return answer_->disconnected(); }
  void Post(std::function<void()> task) override { answer_->Post(std::move(task)); }

 private:
  const std::shared_ptr<HttpAnswer> answer_;
};

}  // namespace

// A callback may own the last reference to a responder, whose end comes back here: callbacks that are not wanted any
// more are moved to a local declared before the lock, and so destroyed after it is released.

HttpAnswer::HttpAnswer(size_t max_backlog_bytes, std::function<void()> wake,
                       std::function<void(std::function<void()>)> post)
    : max_backlog_bytes_(max_backlog_bytes), wake_(std::move(wake)), post_(std::move(post)) {}

void HttpAnswer::WakeLocked() {
  if (!wake_pending_ && wake_) {
    wake_pending_ = true;
    wake_();
  }
}

void HttpAnswer::Send(HttpResponse response) {
  std::function<void()> unwanted;
  const std::lock_guard lock(mutex_);
  if (state_ != State::kOpen) {
    return;
  }
  state_ = State::kEnded;
  unwanted = std::exchange(on_disconnect_, nullptr);
  if (gone_) {
    return;
  }
  waiting_ = std::exchange(response.body, {});
  head_ = std::move(response);
  sized_ = true;
  WakeLocked();
}

void HttpAnswer::Begin(HttpResponse head) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::kOpen) {
    return;
  }
  state_ = State::kBegun;
  if (gone_) {
    return;
  }
  waiting_ = std::exchange(head.body, {});
  head_ = std::move(head);
  WakeLocked();
}

bool HttpAnswer::Write(std::string part) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::kBegun || gone_ || broken_) {
    return false;
  }
  // What waits is judged before the part is added, so that one part larger than the limit is no reason to part.
  if (waiting_.size() + in_flight_ > max_backlog_bytes_) {
    broken_ = true;
    wake_pending_ = false;  // the connection leaves an earlier call unanswered while its write does not come back
    WakeLocked();
    return false;
  }
  if (waiting_.empty()) {
    waiting_ = std::move(part);
  } else {
    waiting_ += part;
  }
  WakeLocked();
  return true;
}

void HttpAnswer::End() {
  std::function<void()> unwanted;
  const std::lock_guard lock(mutex_);
  if (state_ != State::kBegun) {
    return;
  }
  state_ = State::kEnded;
  unwanted = std::exchange(on_disconnect_, nullptr);
  if (!gone_) {
    WakeLocked();
  }
}

void HttpAnswer::OnDisconnect(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kEnded) {
      return;
    }
    if (!gone_) {
      on_disconnect_.swap(callback);
      return;
    }
  }
  if (callback) {
    callback();
  }
}

bool HttpAnswer::disconnected() const {
  const std::lock_guard lock(mutex_);
  return gone_ || broken_;
}

void HttpAnswer::Post(std::function<void()> task) {
  std::function<void()> unwanted;  // destroyed without the lock: it may own the last reference to a responder
  const std::lock_guard lock(mutex_);
  if (gone_ || !post_) {
    unwanted = std::move(task);
  } else {
    post_(std::move(task));
  }
}

void HttpAnswer::Dropped() {
  std::function<void()> unwanted;
  const std::lock_guard lock(mutex_);
  if (state_ == State::kEnded || gone_ || broken_) {
    return;
  }
  state_ = State::kEnded;
  unwanted = std::exchange(on_disconnect_, nullptr);
  broken_ = true;
  wake_pending_ = false;
  WakeLocked();
}

HttpAnswer::Output HttpAnswer::Take() {
  const std::lock_guard lock(mutex_);
  wake_pending_ = false;
  Output output;
  output.head = std::exchange(head_, std::nullopt);
  output.sized = sized_;
  output.body = std::exchange(waiting_, {});
  output.complete = state_ == State::kEnded && !broken_;
  in_flight_ += output.body.size();
  return output;
}

void HttpAnswer::SetInFlight(size_t bytes) {
  const std::lock_guard lock(mutex_);
  in_flight_ = bytes;
}

bool HttpAnswer::broken() const {
  const std::lock_guard lock(mutex_);
  return broken_;
}

bool HttpAnswer::ended() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kEnded && !broken_;
}

void HttpAnswer::Disconnect() {
  std::function<void()> callback;
  std::function<void()> wake;
  std::function<void(std::function<void()>)> post;
  {
    const std::lock_guard lock(mutex_);
    wake = std::exchange(wake_, nullptr);
    post = std::exchange(post_, nullptr);
    gone_ = true;
    callback = std::exchange(on_disconnect_, nullptr);
    waiting_.clear();
  }
  if (callback) {
    callback();
  }
}

std::shared_ptr<HttpResponder> MakeHttpResponder(std::shared_ptr<HttpAnswer> answer) {
  return std::make_shared<Responder>(std::move(answer));
}

}  // namespace espalier
