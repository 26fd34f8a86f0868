// A loop that only has a snapshot, and a client that keeps what it is told.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "server/http_server.h"
#include "serving/engine_loop.h"

namespace espalier {

class FakeLoop final : public EngineLoop {
 public:
  Result<RequestId> Submit(LoopRequest /*request*/) override { return Busy("a fake"); }
  void Cancel(RequestId /*id*/) override {}
  void Wake() override { ++wakes; }
  Result<bool> Step() override { return false; }
  Status Run() override { return Status::Ok(); }
  void Stop(LoopClock::Time /*deadline*/) override {}
  LoopSnapshot snapshot() const override { return state; }
  EventLog& events() override {
    if (on_events) {
      on_events();
    }
    return log;
  }
  const LoopOptions& options() const override { return loop_options; }

  LoopSnapshot state;
  LoopOptions loop_options;
  EventLog log{size_t{1} << 16};
  int wakes = 0;
  std::function<void()> on_events;  // before the log is handed out
};

// Thread rule: any thread, as HttpResponder.
class FakeResponder final : public HttpResponder {
 public:
  // `ended`, if any, is counted up when the last reference goes.
  explicit FakeResponder(std::atomic<int>* ended = nullptr) : ended_(ended) {}
  ~FakeResponder() override {
    if (ended_ != nullptr) {
      ++*ended_;
    }
  }

  void Send(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    sent_ = true;
    head_ = std::move(response);
    body_ = head_.body;
  }
  void Begin(HttpResponse head) override {
    const std::lock_guard lock(mutex_);
    begun_ = true;
    head_ = std::move(head);
    body_ = head_.body;
  }
  bool Write(std::string part) override {
    const std::lock_guard lock(mutex_);
    if (!begun_) {
      written_before_begin_ = true;
    }
    body_ += part;
    return !gone_;
  }
  void End() override {}
  void OnDisconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        callback_ = std::move(callback);
        return;
      }
    }
    callback();
  }
  void Post(std::function<void()> task) override { task(); }
  bool disconnected() const override { return gone_; }

  // The client goes away.
  void Disconnect() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      gone_ = true;
      callback = std::exchange(callback_, nullptr);
    }
    if (callback) {
      callback();
    }
  }
  std::string body() const {
    const std::lock_guard lock(mutex_);
    return body_;
  }
  HttpResponse head() const {
    const std::lock_guard lock(mutex_);
    return head_;
  }
  bool begun() const { return begun_; }
  bool sent() const { return sent_; }
  bool written_before_begin() const { return written_before_begin_; }

 private:
  std::atomic<int>* const ended_;
  mutable std::mutex mutex_;
  HttpResponse head_;
  std::string body_;
  std::function<void()> callback_;
  std::atomic<bool> begun_ = false;
  std::atomic<bool> sent_ = false;
  std::atomic<bool> gone_ = false;
  std::atomic<bool> written_before_begin_ = false;
};

}  // namespace espalier
