#include "model/block.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(BlockId, IndexIsTheOrderOfExecution) {
  EXPECT_EQ(BlockId::Attention(0).index, 0);
  EXPECT_EQ(BlockId::Ffn(0).index, 1);
  EXPECT_EQ(BlockId::Attention(7).index, 14);
  EXPECT_EQ(BlockId::Ffn(7).index, 15);
  EXPECT_LT(BlockId::Ffn(6), BlockId::Attention(7));
}

TEST(BlockName, RoundTripsForEveryBlock) {
  const int n_layer = 130;  // one, two and three digits
  for (int i = 0; i < 2 * n_layer; ++i) {
    const BlockId block = {i};
    EXPECT_EQ(block.layer(), i / 2);
    EXPECT_EQ(block.is_attention(), i % 2 == 0);
    const auto parsed = ParseBlockName(BlockName(block), n_layer);
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    EXPECT_EQ(parsed.value(), block);
  }
  EXPECT_EQ(BlockName(BlockId::Attention(3)), "a3");
  EXPECT_EQ(BlockName(BlockId::Ffn(12)), "f12");
}

TEST(ParseBlockName, RefusesEverythingElseNamingBlockAndRange) {
  for (const char* name : {"", "a", "f", "3", "a16", "f16", "a-1", "a-0", "A3", "g3", "a3x", "a 3", "aa3", "a3.5",
                           "a+3", "a99999999999999999999", "3a"}) {
    const auto block = ParseBlockName(name, 16);
    ASSERT_FALSE(block.ok()) << "'" << name << "' gave " << BlockName(block.value());
    EXPECT_EQ(block.status().code(), ErrorCode::kInvalidArgument);
    const std::string& message = block.status().message();
    EXPECT_NE(message.find(std::string("'") + name + "'"), std::string::npos) << message;
    EXPECT_NE(message.find("a0 to a15"), std::string::npos) << message;
    EXPECT_NE(message.find("f0 to f15"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace espalier
