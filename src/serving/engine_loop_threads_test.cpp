// Run() on a thread of its own, everybody else around it.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "serving/loop_fixture_for_test.h"

namespace espalier {
namespace {

// For who waits on another thread than the loop's.
class WaitableListener final : public RequestListener {
 public:
  void OnToken(const TokenScores& scores) override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(n_ends_, 0);
    tokens_.push_back(scores.chosen.token);
    changed_.notify_all();
  }
  void OnEnd(const RequestEnd& end) override {
    const std::lock_guard lock(mutex_);
    ++n_ends_;
    end_ = end;
    changed_.notify_all();
  }
  RequestEnd WaitForEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return n_ends_ > 0; });
    return end_;
  }
  void WaitForTokens(size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return n_ends_ > 0 || tokens_.size() >= n; });
  }
  std::vector<int32_t> tokens() {
    const std::lock_guard lock(mutex_);
    return tokens_;
  }
  int n_ends() {
    const std::lock_guard lock(mutex_);
    return n_ends_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int32_t> tokens_;
  int n_ends_ = 0;
  RequestEnd end_;
};

class EngineLoopThreads : public LoopFixture {
 protected:
  void TearDown() override { StopAndJoin(std::chrono::seconds(0)); }

  void Launch(const LoopOptions& options) {
    EngineLoop::Parts parts = Parts();
    parts.clock = nullptr;
    parts.limit = [this](uint64_t) {
      LimitReading reading;
      reading.bytes = limit_bytes_;
      reading.deliberate = true;
      return reading;
    };
    loop_ = EngineLoop::Create(parts, options);
    thread_ = std::thread([this] {
      const Status status = loop_->Run();
      EXPECT_TRUE(status.ok());
    });
  }
  void StopAndJoin(std::chrono::seconds grace) {
    if (thread_.joinable()) {
      loop_->Stop(LoopClock().Now() + grace);
      thread_.join();
    }
  }
  Result<RequestId> Submit(std::vector<int32_t> prompt, int64_t max_tokens,
                           const std::shared_ptr<WaitableListener>& listener) {
    LoopRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.make_sampler = MakeHistorySampler;
    request.listener = listener;
    return loop_->Submit(std::move(request));
  }
  // One whose answer takes long.
  std::vector<int32_t> LongPrompt(int64_t max_tokens) {
    while (true) {
      std::vector<int32_t> prompt = RandomPrompt(random_, 20);
      if (AnswerAlone(prompt, max_tokens).reason == FinishReason::kLength) {
        return prompt;
      }
    }
  }

  std::atomic<uint64_t> limit_bytes_ = 10 * kEverything;
  std::thread thread_;
};

TEST_F(EngineLoopThreads, EverybodyTalksToTheLoopAtOnce) {
  Launch({.max_running = 4, .max_waiting = 8, .tick_ms = 5, .grow_after_ms = 5, .hold_ms = 5});
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 40; ++i) {
        const auto prompt = RandomPrompt(random, 5 + static_cast<int64_t>(random() % 40));
        const auto max_tokens = static_cast<int64_t>(1 + random() % 20);
        const auto listener = std::make_shared<WaitableListener>();
        const Result<RequestId> id = Submit(prompt, max_tokens, listener);
        if (!id.ok()) {
          EXPECT_NE(id.status().code(), ErrorCode::kInvalidArgument);
          continue;
        }
        const bool cancel = random() % 4 == 0;
        if (cancel) {
          loop_->Cancel(*id);
        }
        const RequestEnd end = listener->WaitForEnd();
        if (end.reason != FinishReason::kCancelled) {
          EXPECT_EQ(listener->tokens(), AnswerAlone(prompt, max_tokens).tokens);
          ++answered;
        } else {
          EXPECT_TRUE(cancel);
        }
        EXPECT_EQ(listener->n_ends(), 1);
      }
    });
  }
  std::thread limits([&] {
    std::mt19937 random(99);
    while (!over) {
      limit_bytes_ = kProcess + kWeights / 2 + random() % (kWeights / 2 + 20000);
      loop_->Wake();
      std::this_thread::yield();
    }
  });
  std::thread watcher([&] {
    const uint64_t handle = loop_->events().Subscribe([](const ServingEvent&) {});
    while (!over) {
      const LoopSnapshot snapshot = loop_->snapshot();
      EXPECT_LE(snapshot.running, 4);
      EXPECT_NE(snapshot.plan, nullptr);
      loop_->events().Since(loop_->events().last_number());
      std::this_thread::yield();
    }
    loop_->events().Unsubscribe(handle);
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  over = true;
  limits.join();
  watcher.join();
  EXPECT_GT(answered, 0);
}

TEST_F(EngineLoopThreads, AnIdleLoopHearsOfARequest) {
  Launch({.tick_ms = 3'600'000});  // no tick would wake it
  for (int i = 0; i < 20; ++i) {
    const auto prompt = RandomPrompt(random_, 10);
    const auto listener = std::make_shared<WaitableListener>();
    ASSERT_TRUE(Submit(prompt, 5, listener).ok());
    listener->WaitForEnd();
    EXPECT_EQ(listener->tokens(), AnswerAlone(prompt, 5).tokens);
  }
}

TEST_F(EngineLoopThreads, RequestsThatComeTogetherWhenNobodyRunsAreComputedTogether) {
  LoopOptions options;
  options.gather_ms = 300;
  Launch(options);
  std::vector<std::shared_ptr<WaitableListener>> listeners;
  for (int i = 0; i < 4; ++i) {
    listeners.push_back(std::make_shared<WaitableListener>());
    ASSERT_TRUE(Submit(RandomPrompt(random_, 3), 2, listeners.back()).ok());
  }
  for (const auto& listener : listeners) {
    listener->WaitForEnd();
  }
  std::set<SequenceId> first;
  for (const BatchToken& token : engine_.batches.front()) {
    first.insert(token.sequence);
  }
  EXPECT_EQ(first.size(), 4u);
}

TEST_F(EngineLoopThreads, StopFinishesWhatIsInFlightAndRefusesTheRest) {
  Launch({.max_running = 1});
  const auto prompt = LongPrompt(200);
  const auto running = std::make_shared<WaitableListener>();
  const auto queued = std::make_shared<WaitableListener>();
  ASSERT_TRUE(Submit(prompt, 200, running).ok());
  ASSERT_TRUE(Submit(prompt, 100, queued).ok());
  running->WaitForTokens(1);
  loop_->Stop(LoopClock().Now() + std::chrono::hours(1));
  const auto late = Submit(prompt, 5, std::make_shared<WaitableListener>());
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.status().code(), ErrorCode::kBusy);
  thread_.join();
  for (const auto& listener : {running, queued}) {
    EXPECT_EQ(listener->n_ends(), 1);
    EXPECT_EQ(listener->WaitForEnd().reason, FinishReason::kLength);
  }
  EXPECT_EQ(running->tokens(), AnswerAlone(prompt, 200).tokens);
}

TEST_F(EngineLoopThreads, AtTheDeadlineTheRestEndsWithShutdown) {
  std::atomic<bool> go_on = false;
  engine_.on_decode = [&](std::span<const BatchToken>) {
    while (!go_on && engine_.batches.size() > 3) {  // the answer is under way, and stays so until the deadline
      std::this_thread::yield();
    }
  };
  Launch({.max_running = 1});
  const auto running = std::make_shared<WaitableListener>();
  const auto queued = std::make_shared<WaitableListener>();
  const auto prompt = LongPrompt(300);
  ASSERT_TRUE(Submit(prompt, 300, running).ok());
  ASSERT_TRUE(Submit(prompt, 300, queued).ok());
  running->WaitForTokens(2);
  loop_->Stop(LoopClock().Now());
  go_on = true;
  thread_.join();
  for (const auto& listener : {running, queued}) {
    EXPECT_EQ(listener->n_ends(), 1);
    EXPECT_EQ(listener->WaitForEnd().reason, FinishReason::kShutdown);
  }
  const auto tokens = running->tokens();
  const auto alone = AnswerAlone(prompt, 300).tokens;
  EXPECT_LT(tokens.size(), alone.size());
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), alone.begin()));
}

TEST_F(EngineLoopThreads, AnIdleLoopStopsAtOnceWhereverItIs) {
  for (int i = 0; i < 50; ++i) {
    Launch({.tick_ms = 3'600'000});
    if (i % 2 == 0) {
      std::this_thread::yield();  // sleeps already, or is about to
    }
    StopAndJoin(std::chrono::hours(1));
    EXPECT_EQ(Submit({1, 2}, 5, std::make_shared<WaitableListener>()).status().code(), ErrorCode::kBusy);
  }
}

TEST_F(EngineLoopThreads, WhoCannotBeServedDoesNotHoldUpAStopBeyondItsDeadline) {
  const auto waiting = std::make_shared<WaitableListener>();
  std::atomic<bool> fallen = false;
  engine_.on_decode = [&](std::span<const BatchToken>) {
    while (!fallen) {  // it must not be over before the limit falls
      std::this_thread::yield();
    }
  };
  Launch({.tick_ms = 3'600'000});
  ASSERT_TRUE(Submit(LongPrompt(300), 300, waiting).ok());
  limit_bytes_ = 0;
  loop_->Wake();
  fallen = true;
  while (loop_->snapshot().limit_bytes != 0) {
    std::this_thread::yield();
  }
  loop_->Stop(LoopClock().Now() + std::chrono::hours(1));
  loop_->Stop(LoopClock().Now() + std::chrono::milliseconds(10));  // a second signal
  thread_.join();
  EXPECT_EQ(waiting->WaitForEnd().reason, FinishReason::kShutdown);
}

}  // namespace
}  // namespace espalier
