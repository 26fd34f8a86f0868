#include "server/http_mailbox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace espalier {
namespace {

namespace asio = boost::asio;

class HttpMailboxTest : public testing::Test {
 protected:
  void Run(int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { io_.run(); });
    }
  }
  void Stop() {
    work_.reset();
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }
  ~HttpMailboxTest() override { Stop(); }

  asio::io_context io_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_{io_.get_executor()};
  std::vector<std::thread> threads_;
  std::shared_ptr<HttpMailbox> mailbox_ = std::make_shared<HttpMailbox>(io_);
};

TEST_F(HttpMailboxTest, TasksOfAStrandRunOneAtATimeAndInOrder) {
  constexpr int kStrands = 8;
  constexpr int kTasks = 5000;
  struct Line {
    explicit Line(asio::io_context& io) : strand(asio::make_strand(io)) {}
    HttpStrand strand;
    std::atomic<int> inside = 0;
    std::vector<int> seen;  // guarded by the strand
  };
  std::vector<std::unique_ptr<Line>> lines;
  for (int i = 0; i < kStrands; ++i) {
    lines.push_back(std::make_unique<Line>(io_));
  }
  std::atomic<int> overlaps = 0;
  Run(4);
  for (int task = 0; task < kTasks; ++task) {
    for (const auto& line : lines) {
      mailbox_->Post(line->strand, [&overlaps, task, l = line.get()] {
        overlaps += l->inside++ != 0 ? 1 : 0;
        l->seen.push_back(task);
        --l->inside;
      });
    }
  }
  Stop();
  EXPECT_EQ(overlaps, 0);
  for (const auto& line : lines) {
    ASSERT_EQ(line->seen.size(), static_cast<size_t>(kTasks));
    EXPECT_TRUE(std::is_sorted(line->seen.begin(), line->seen.end()));
  }
}

TEST_F(HttpMailboxTest, ATaskMayPostAnother) {
  const HttpStrand strand = asio::make_strand(io_);
  std::promise<void> done;
  Run(1);
  mailbox_->Post(strand, [&] { mailbox_->Post(strand, [&] { done.set_value(); }); });
  EXPECT_EQ(done.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
}

// A task that is stuck on its own strand (another handler of it runs) holds nobody else up.
TEST_F(HttpMailboxTest, ABusyStrandDoesNotStopTheRound) {
  const HttpStrand busy = asio::make_strand(io_);
  const HttpStrand free = asio::make_strand(io_);
  std::promise<void> entered;
  std::promise<void> release;
  std::promise<void> reached;
  Run(2);
  asio::post(busy, [&] {
    entered.set_value();
    release.get_future().wait();
  });
  entered.get_future().wait();
  bool ran = false;
  mailbox_->Post(busy, [&] { ran = true; });
  mailbox_->Post(free, [&] { reached.set_value(); });
  EXPECT_EQ(reached.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  release.set_value();
  Stop();
  EXPECT_TRUE(ran);
}

TEST_F(HttpMailboxTest, WhatIsNeverDeliveredIsDestroyed) {
  const auto owned = std::make_shared<int>(1);
  {
    asio::io_context io;
    const auto mailbox = std::make_shared<HttpMailbox>(io);
    mailbox->Post(asio::make_strand(io), [owned] {});
    EXPECT_EQ(owned.use_count(), 2);
  }
  EXPECT_EQ(owned.use_count(), 1);
}

}  // namespace
}  // namespace espalier
