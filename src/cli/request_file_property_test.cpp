// Whatever request is in range, the line that says so in JSON is read as that request.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "cli/plan_file.h"
#include "cli/request_file.h"

namespace espalier {
namespace {

using Target = CompressionRequest::Target;

class RequestFileProperty : public testing::TestWithParam<uint32_t> {
 protected:
  bool OneIn(uint32_t n) { return random_() % n == 0; }
  double Share() { return static_cast<double>(random_()) / 4294967295.0; }

  CompressionRequest SomeRequest() {
    constexpr Target kTargets[] = {Target::kBytes, Target::kSizeRatio, Target::kLoss, Target::kLatency,
                                   Target::kPreference};
    CompressionRequest request;
    request.target = kTargets[random_() % std::size(kTargets)];
    switch (request.target) {
      case Target::kBytes:
        request.value = OneIn(4) ? 0x1p53 : static_cast<double>(1 + random_());
        break;
      case Target::kSizeRatio:
        request.value = OneIn(4) ? 1 : std::max(1e-300, Share());
        break;
      case Target::kLoss:
        request.value = OneIn(4) ? 0 : Share() * 1e3;
        break;
      case Target::kLatency:
        request.value = OneIn(4) ? 5e-324 : std::max(1e-9, Share() * 1e9);
        break;
      case Target::kPreference:
        // Of two weights that sum up to 1 to the last bit.
        request.value = OneIn(4) ? 0 : static_cast<double>(random_() % 1025) / 1024;
        break;
    }
    if (OneIn(2)) {
      const int n = 1 + static_cast<int>(random_() % 64);
      request.workload = Workload::Uniform(n, 1 + static_cast<int64_t>(random_() % 4096));
    }
    return request;
  }

  // fmt writes the shortest digits that lead back to the same number.
  std::string Line(const CompressionRequest& request, const std::string& id) {
    std::vector<std::string> members;
    const double value = request.value;
    const std::string text = request.target == Target::kPreference ? fmt::format("[{},{}]", value, 1 - value)
                             : request.target == Target::kBytes    ? fmt::format("{:.0f}", value)
                                                                   : fmt::format("{}", value);
    members.push_back(fmt::format(R"("{}": {})", TargetName(request.target), text));
    if (request.workload) {
      members.push_back(fmt::format(R"("workload": "{}")", request.workload->ToText()));
    }
    if (!id.empty()) {
      members.push_back(fmt::format(R"("id":"{}")", id));
    }
    std::shuffle(members.begin(), members.end(), random_);
    return fmt::format("{}{{{}}}{}", OneIn(3) ? " " : "", fmt::join(members, OneIn(2) ? ", " : "\t,"),
                       OneIn(3) ? "\r" : "");
  }

  std::mt19937 random_{GetParam()};
};

TEST_P(RequestFileProperty, EveryLineIsItsRequest) {
  std::vector<CompressionRequest> requests;
  std::vector<std::string> ids;
  std::vector<int64_t> numbers;
  std::string text;
  int64_t number = 0;
  for (auto n = 1 + random_() % 30; n > 0; --n) {
    for (; OneIn(4); ++number) {
      text += "  \n";
    }
    requests.push_back(SomeRequest());
    numbers.push_back(++number);
    const std::string id = OneIn(2) ? "" : fmt::format("request_{}.{}", number, random_());
    ids.push_back(id.empty() ? fmt::format("line-{}", number) : id);
    text += Line(requests.back(), id) + "\n";
  }
  const auto lines = ParseRequestFile(text, "r.jsonl");
  ASSERT_TRUE(lines.ok()) << lines.status().message();
  ASSERT_EQ(lines->size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const RequestLine& line = (*lines)[i];
    ASSERT_TRUE(line.request.ok()) << line.request.status().message();
    EXPECT_EQ(line.line, numbers[i]);
    EXPECT_EQ(line.id, ids[i]);
    EXPECT_EQ(line.request->target, requests[i].target);
    EXPECT_EQ(line.request->value, requests[i].value);
    EXPECT_EQ(line.request->workload, requests[i].workload);
  }
}

// The two forms of a plan, text and JSON, say the same.
TEST_P(RequestFileProperty, APlansJsonIsItsText) {
  for (int i = 0; i < 20; ++i) {
    const int n_layer = 1 + static_cast<int>(random_() % 80);
    Plan plan = Plan::Dense(n_layer);
    std::vector<std::string> members;
    for (int block = 0; block < plan.n_block(); ++block) {
      if (OneIn(2)) {
        plan.set_keep({block}, OneIn(2) ? 0 : OneIn(8) ? 5e-324 : Share());
        members.push_back(fmt::format(R"("{}":{})", BlockName({block}), plan.keep({block})));
      }
    }
    std::shuffle(members.begin(), members.end(), random_);
    const std::string json = fmt::format(R"({{"note": [1, {{}}], "keep": {{{}}}}})", fmt::join(members, ", "));
    const auto of_json = ParseJsonPlan(json, n_layer);
    ASSERT_TRUE(of_json.ok()) << of_json.status().message() << "\n" << json;
    EXPECT_EQ(*of_json, plan);
    const auto of_text = Plan::Parse(plan.ToText(), n_layer);
    ASSERT_TRUE(of_text.ok()) << of_text.status().message();
    EXPECT_EQ(*of_text, plan);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RequestFileProperty, testing::Range(1u, 31u));

}  // namespace
}  // namespace espalier
