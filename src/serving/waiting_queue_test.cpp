#include "serving/waiting_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace espalier {
namespace {

std::unique_ptr<Work> Asks(RequestId id, int64_t prompt_tokens, int64_t max_tokens) {
  auto work = std::make_unique<Work>();
  work->id = id;
  work->prompt_tokens = prompt_tokens;
  work->request.max_tokens = max_tokens;
  return work;
}

std::vector<RequestId> Order(const WaitingQueue& queue) {
  std::vector<RequestId> ids;
  for (const auto& work : queue) {
    ids.push_back(work->id);
  }
  return ids;
}

TEST(Work, TheLastTokenOfAnAnswerNeedsNoCell) {
  EXPECT_EQ(Work::CellsOf(10, 5), 14);
  EXPECT_EQ(Work::CellsOf(10, 1), 10);
  EXPECT_EQ(Work::CellsOf(10, 0), 10);
}

TEST(WaitingQueue, FirstComeFirstServed) {
  WaitingQueue queue;
  queue.PushBack(Asks(1, 10, 1));
  queue.PushBack(Asks(2, 20, 1));
  EXPECT_EQ(queue.cells(), 30);
  EXPECT_EQ(queue.PopFront()->id, 1u);
  EXPECT_EQ(queue.cells(), 20);
  EXPECT_EQ(queue.front().id, 2u);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(WaitingQueue, WhoComesBackKeepsHisPlace) {
  WaitingQueue queue;
  for (const RequestId id : {3, 5, 8}) {
    queue.PushBack(Asks(id, 10, 1));
  }
  queue.Return(Asks(4, 10, 1));
  queue.Return(Asks(1, 10, 1));
  queue.Return(Asks(9, 10, 1));
  EXPECT_EQ(Order(queue), (std::vector<RequestId>{1, 3, 4, 5, 8, 9}));
  EXPECT_EQ(queue.cells(), 60);
}

TEST(WaitingQueue, RemovesWhoeverIsThere) {
  WaitingQueue queue;
  for (const RequestId id : {1, 2, 3}) {
    queue.PushBack(Asks(id, static_cast<int64_t>(10 * id), 1));
  }
  EXPECT_EQ(queue.Remove(7), nullptr);
  EXPECT_EQ(queue.Remove(2)->id, 2u);
  EXPECT_EQ(queue.cells(), 40);
  EXPECT_EQ(Order(queue), (std::vector<RequestId>{1, 3}));
}

TEST(CheckQueueBounds, RefusesByNumberAndByCells) {
  const QueueBounds bounds = {.requests = 2, .cells = 100};
  EXPECT_TRUE(CheckQueueBounds(bounds, 0, 0, 1000).ok()) << "one of whatever size may wait";
  EXPECT_TRUE(CheckQueueBounds(bounds, 1, 40, 60).ok());
  const Status cells = CheckQueueBounds(bounds, 1, 40, 61);
  ASSERT_FALSE(cells.ok());
  EXPECT_EQ(cells.code(), ErrorCode::kBusy);
  EXPECT_THAT(cells.message(), testing::HasSubstr("100"));
  const Status requests = CheckQueueBounds(bounds, 2, 2, 1);
  ASSERT_FALSE(requests.ok());
  EXPECT_EQ(requests.code(), ErrorCode::kBusy);
  EXPECT_FALSE(CheckQueueBounds(bounds, 1, 5000, 1).ok()) << "that one was large";
}

}  // namespace
}  // namespace espalier
