#include "server/state_json.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

LoopSnapshot SomeState() {
  LoopSnapshot s;
  s.seconds = 12.5;
  s.limit_bytes = 1000;
  s.planned_bytes = 900;
  s.limit_source = "operator";
  s.process_bytes = 300;
  s.managed = {.weight_bytes = 10, .kv_bytes = 20, .compute_bytes = 30, .staging_bytes = 40};
  s.dense_peak_bytes = 2000;
  s.minimum_bytes = 350;
  s.used_cells = 5;
  s.cached_cells = 2;
  s.reserved_cells = 7;
  s.capacity_cells = 11;
  s.plan = std::make_shared<const Plan>(*Plan::Parse("a0=0 f1=0", 2));
  s.pending = {BlockId::Ffn(1)};
  s.loss = PredictedLoss{.nats = 0.25, .measured = true};
  s.policy = "table";
  s.running = 1;
  s.waiting = 1;
  return s;
}

ModelSummary SomeModel() { return {"name", "Q4_K_M", {100, 200, 300, 400}}; }

TEST(StateJson, CountsStagingAndProcessAsUsed) {
  const Json memory = MemoryJson(SomeState());
  EXPECT_EQ(memory["managed_bytes"], 100);
  EXPECT_EQ(memory["used_bytes"], 400);
  EXPECT_EQ(memory["budget_bytes"], 1000);
  EXPECT_EQ(memory["planned_bytes"], 900);
  EXPECT_EQ(memory["kv"],
            (Json{{"used_cells", 5}, {"cached_cells", 2}, {"reserved_cells", 7}, {"capacity_cells", 11}}));
}

TEST(StateJson, HasNullWhereThereIsNoLimit) {
  LoopSnapshot state = SomeState();
  state.limit_bytes = state.planned_bytes = UINT64_MAX;
  EXPECT_TRUE(MemoryJson(state)["budget_bytes"].is_null());
  EXPECT_TRUE(MemoryJson(state)["planned_bytes"].is_null());
}

TEST(StateJson, TellsDroppedBlocksFromThoseThatComeBack) {
  EXPECT_EQ(Dump(PlanJson(SomeState(), SomeModel().block_bytes)),
            R"({"policy":"table","text":"a0=0 f1=0","keep":{"a0":0.0,"f1":0.0},"predicted_loss_nats":0.25,)"
            R"("predicted_loss_measured":true,"blocks":[{"name":"a0","bytes":100,"state":"dropped"},)"
            R"({"name":"f0","bytes":200,"state":"kept"},{"name":"a1","bytes":300,"state":"kept"},)"
            R"({"name":"f1","bytes":400,"state":"loading"}]})");
}

TEST(StateJson, HasNoPredictionBeforeThereIsOne) {
  LoopSnapshot state = SomeState();
  state.loss.reset();
  const Json plan = PlanJson(state, SomeModel().block_bytes);
  EXPECT_TRUE(plan["predicted_loss_nats"].is_null());
  EXPECT_EQ(plan["predicted_loss_measured"], false);
}

TEST(StateJson, ShowsEveryBlockAsDroppedBeforeTheLoopKnowsItsPlan) {
  const Json plan = PlanJson(LoopSnapshot(), SomeModel().block_bytes);
  ASSERT_EQ(plan["blocks"].size(), 4u);
  for (const Json& block : plan["blocks"]) {
    EXPECT_EQ(block["state"], "dropped");
  }
}

TEST(StateJson, HasTheKeysOfThePage) {
  LoopSnapshot snapshot = SomeState();
  snapshot.tokens_per_second = 312.5;
  snapshot.cached_prompt_tokens = 9;
  snapshot.requests = {{.id = 12,
                        .state = RequestView::State::kDecode,
                        .prompt_tokens = 8,
                        .cached_tokens = 3,
                        .prefilled_tokens = 8,
                        .generated_tokens = 4,
                        .max_tokens = 64}};
  const Json state = StateJson(snapshot, SomeModel());
  EXPECT_EQ(state["model"], (Json{{"name", "name"}, {"quantization", "Q4_K_M"}, {"layers", 2}}));
  EXPECT_EQ(Dump(state["requests"]),
            R"([{"id":12,"state":"decode","prompt_tokens":8,"cached_tokens":3,"prefilled_tokens":8,)"
            R"("generated_tokens":4,"max_tokens":64}])");
  EXPECT_EQ(state["tokens_per_second"], 312.5);
  EXPECT_EQ(state["seconds"], 12.5);
  EXPECT_EQ(state["running"], 1);
  EXPECT_EQ(state["waiting"], 1);
  EXPECT_EQ(state["counters"]["cached_prompt_tokens"], 9);
  EXPECT_EQ(state["counters"].size(), 11u);
  EXPECT_TRUE(state.contains("memory"));
  EXPECT_TRUE(state.contains("plan"));
}

TEST(StateJson, FillsSlotsWithRunningRequestsOnly) {
  LoopSnapshot snapshot;
  snapshot.requests = {{.id = 4,
                        .state = RequestView::State::kPrefill,
                        .prompt_tokens = 10,
                        .cached_tokens = 4,
                        .prefilled_tokens = 6,
                        .generated_tokens = 0,
                        .max_tokens = 5},
                       {.id = 5, .state = RequestView::State::kWaiting}};
  const Json slots = SlotsJson(snapshot, 2, 256);
  ASSERT_EQ(slots.size(), 2u);
  EXPECT_EQ(slots[0]["is_processing"], true);
  EXPECT_EQ(slots[0]["id_task"], 4);
  EXPECT_EQ(slots[0]["n_ctx"], 256);
  EXPECT_EQ(slots[0]["n_prompt_tokens_processed"], 2);
  ASSERT_EQ(slots[0]["next_token"].size(), 1u);
  EXPECT_EQ(slots[0]["next_token"][0]["n_remain"], 5);
  EXPECT_EQ(slots[1]["id"], 1);
  EXPECT_EQ(slots[1]["is_processing"], false);
  EXPECT_FALSE(slots[1].contains("id_task"));
}

TEST(StateJson, FillsNoMoreSlotsThanThereAre) {
  LoopSnapshot snapshot;
  snapshot.requests = {{.id = 1, .state = RequestView::State::kDecode},
                       {.id = 2, .state = RequestView::State::kDecode}};
  const Json slots = SlotsJson(snapshot, 1, 256);
  ASSERT_EQ(slots.size(), 1u);
  EXPECT_EQ(slots[0]["id_task"], 1);
}

TEST(StateJson, GivesATransitionOnlyToEventsOfThatKind) {
  ServingEvent event;
  event.kind = ServingEvent::Kind::kLimit;
  event.number = 3;
  event.unix_ms = 1700000000000;
  event.limit_bytes = UINT64_MAX;
  event.used_bytes = 400;
  event.source = "cgroup";
  event.text = "limit";
  EXPECT_EQ(Dump(EventJson(event)),
            R"({"number":3,"unix_ms":1700000000000,"seconds":0.0,"kind":"limit","text":"limit","budget_bytes":null,)"
            R"("used_bytes":400,"source":"cgroup"})");
  event.kind = ServingEvent::Kind::kTransition;
  event.transition.emplace();
  event.transition->ms = 1.5;
  EXPECT_EQ(EventJson(event)["transition"]["total_ms"], 1.5);
}

}  // namespace
}  // namespace espalier
