#include "export/pruned_layers.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr BlockId A(int layer) { return BlockId::Attention(layer); }
constexpr BlockId F(int layer) { return BlockId::Ffn(layer); }

std::vector<PrunedLayer> Without(const char* dropped) { return PairBlocks(*Plan::ParseDrop(dropped, 4)); }

TEST(PairBlocks, LayersThatAreWholeStayAsTheyAre) {
  EXPECT_EQ(Without("a1,f1,a3,f3"), (std::vector<PrunedLayer>{{A(0), F(0)}, {A(2), F(2)}}));
}

TEST(PairBlocks, HalvesOfDifferentLayersBecomeOne) {
  EXPECT_EQ(Without("f0,a1"), (std::vector<PrunedLayer>{{A(0), F(1)}, {A(2), F(2)}, {A(3), F(3)}}));
}

TEST(PairBlocks, WhatFindsNoOtherHalfStandsAlone) {
  const std::optional<BlockId> none;
  EXPECT_EQ(Without("a0,f1,a2,a3"), (std::vector<PrunedLayer>{{none, F(0)}, {A(1), F(2)}, {none, F(3)}}));
  EXPECT_EQ(Without("f0,f1,f2,f3"), (std::vector<PrunedLayer>{{A(0), none}, {A(1), none}, {A(2), none}, {A(3), none}}));
  EXPECT_EQ(Without("a0,f0,a1,f1,a2,f2,a3,f3"), std::vector<PrunedLayer>());
}

}  // namespace
}  // namespace espalier
