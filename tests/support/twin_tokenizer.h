// A fixture with the bundled model's tokenizer, for tests that need a real vocabulary.
#pragma once

#include <gtest/gtest.h>

#include "model/model.h"
#include "support/paths.h"
#include "text/tokenizer.h"

namespace espalier::test {

// Opened once for all tests of a suite.
class TwinTokenizerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto model = Model::Open(ModelPath("espalier-twin-f16.gguf"));
    ASSERT_TRUE(model.ok()) << model.status().message();
    auto tokenizer = Tokenizer::Open(**model);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    tokenizer_ = tokenizer->release();
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    tokenizer_ = nullptr;
  }

  static inline const Tokenizer* tokenizer_ = nullptr;
};

}  // namespace espalier::test
