#include "serving/batch_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace espalier {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class PlanSharesTest : public testing::Test {
 protected:
  void Add(int64_t prompt_tokens, int64_t generated, int64_t computed) {
    auto work = std::make_unique<Work>();
    work->id = works_.size();
    work->prompt_tokens = prompt_tokens;
    work->tokens.resize(static_cast<size_t>(prompt_tokens + generated));
    work->computed = computed;
    works_.push_back(std::move(work));
  }
  void AddPrompt(int64_t tokens) { Add(tokens, 0, 0); }
  void AddDecoding() { Add(10, 3, 12); }

  std::vector<std::pair<RequestId, int64_t>> Shares(int64_t step_tokens = 1000) const {
    std::vector<std::pair<RequestId, int64_t>> shares;
    for (const BatchShare& share : PlanShares(works_, pace_, step_tokens)) {
      shares.emplace_back(share.work->id, share.tokens);
    }
    return shares;
  }

  std::vector<std::unique_ptr<Work>> works_;
  const PrefillPace pace_{200, 2048};
};

TEST_F(PlanSharesTest, NobodyHasNoShare) {
  EXPECT_THAT(Shares(), IsEmpty());
  Add(10, 0, 10);
  EXPECT_THAT(Shares(), IsEmpty()) << "all of it is computed";
}

TEST_F(PlanSharesTest, ThoseThatAreDecodingComeFirst) {
  AddPrompt(10);
  AddDecoding();
  AddPrompt(6);
  AddDecoding();
  EXPECT_THAT(Shares(), ElementsAre(Pair(1, 1), Pair(3, 1), Pair(0, 10), Pair(2, 6)));
}

TEST_F(PlanSharesTest, WhoIsComputedAgainIsNotDecoding) {
  Add(10, 3, 5);
  AddDecoding();
  EXPECT_THAT(Shares(), ElementsAre(Pair(1, 1), Pair(0, 8)));
}

TEST_F(PlanSharesTest, PromptsAloneMayTakeLonger) {
  AddPrompt(10'000);
  EXPECT_THAT(Shares(10'000), ElementsAre(Pair(0, pace_.tokens_alone())));
  AddDecoding();
  EXPECT_THAT(Shares(10'000), ElementsAre(Pair(1, 1), Pair(0, pace_.tokens())));
  EXPECT_THAT(Shares(16), ElementsAre(Pair(1, 1), Pair(0, 15)));
}

}  // namespace
}  // namespace espalier
