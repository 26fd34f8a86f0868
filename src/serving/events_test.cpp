#include "serving/events.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

namespace espalier {
namespace {

ServingEvent Named(std::string text) {
  ServingEvent event;
  event.text = std::move(text);
  return event;
}

TEST(EventLog, NumbersEventsInOrder) {
  EventLog log;
  EXPECT_EQ(log.last_number(), 0u);
  log.Add(Named("a"));
  log.Add(Named("b"));
  EXPECT_EQ(log.last_number(), 2u);
  const auto all = log.Since(0);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].number, 1u);
  EXPECT_EQ(all[1].text, "b");
  ASSERT_EQ(log.Since(1).size(), 1u);
  EXPECT_EQ(log.Since(1)[0].text, "b");
  EXPECT_TRUE(log.Since(2).empty());
}

TEST(EventLog, KeepsTheLastOfThem) {
  EventLog log(3);
  for (int i = 1; i <= 10; ++i) {
    log.Add(Named(std::to_string(i)));
  }
  const auto kept = log.Since(0);
  ASSERT_EQ(kept.size(), 3u);
  EXPECT_EQ(kept.front().number, 8u);
  EXPECT_EQ(kept.back().text, "10");
}

TEST(EventLog, ListenersHearNumberedEventsUntilTheyLeave) {
  EventLog log;
  std::vector<uint64_t> heard;
  std::vector<uint64_t> other;
  const uint64_t handle = log.Subscribe([&](const ServingEvent& event) { heard.push_back(event.number); });
  log.Add(Named("a"));
  log.Subscribe([&](const ServingEvent& event) { other.push_back(event.number); });
  log.Add(Named("b"));
  log.Unsubscribe(handle);
  log.Unsubscribe(handle);
  log.Add(Named("c"));
  EXPECT_EQ(heard, (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(other, (std::vector<uint64_t>{2, 3}));
}

TEST(EventLog, EveryKindHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int kind = 0; kind <= static_cast<int>(ServingEvent::Kind::kError); ++kind) {
    names.insert(EventKindName(static_cast<ServingEvent::Kind>(kind)));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(ServingEvent::Kind::kError) + 1);
  EXPECT_EQ(names.count(""), 0u);
}

TEST(EventLog, ManyThreadsAddAndReadAndComeAndGo) {
  EventLog log(64);
  std::atomic<int> heard = 0;
  log.Subscribe([&](const ServingEvent&) { ++heard; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        const uint64_t handle = log.Subscribe([](const ServingEvent&) {});
        log.Add(Named("x"));
        const auto some = log.Since(log.last_number() / 2);
        EXPECT_TRUE(std::is_sorted(some.begin(), some.end(),
                                   [](const ServingEvent& a, const ServingEvent& b) { return a.number < b.number; }));
        log.Unsubscribe(handle);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(heard, 2000);
  EXPECT_EQ(log.last_number(), 2000u);
}

}  // namespace
}  // namespace espalier
