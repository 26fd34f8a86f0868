#include "text/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "model/model.h"
#include "support/paths.h"

namespace espalier {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

const std::string kTwin = test::ModelPath("espalier-twin-f16.gguf");

class QuantizeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("espalier-quantize-" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    output_ = folder_ / "model.gguf";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  fs::path folder_;
  fs::path output_;
};

TEST_F(QuantizeTest, WritesAModelOfTheTypeAndNothingElse) {
  const Status status = QuantizeModel(kTwin, output_, "q4_k_m", 1);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Files(), std::vector<std::string>{"model.gguf"});
  const auto model = Model::Open(output_);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ((*model)->quantization(), "Q4_K_M");
  EXPECT_LT(fs::file_size(output_), fs::file_size(kTwin) / 2);
}

TEST_F(QuantizeTest, NamesTheKnownTypes) {
  const Status status = QuantizeModel(kTwin, output_, "Q4_X", 1);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("'Q4_X'"));
  for (const std::string& name : QuantizationTypeNames()) {
    EXPECT_THAT(status.message(), HasSubstr(name));
  }
}

TEST_F(QuantizeTest, LeavesAnExistingFileAloneWhenItFails) {
  const std::string broken = folder_ / "broken.gguf";
  ASSERT_TRUE(WriteWholeFile(broken, "GGUF but no more").ok());
  ASSERT_TRUE(WriteWholeFile(output_, "precious").ok());
  const Status status = QuantizeModel(broken, output_, "Q8_0", 1);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("broken.gguf"));
  EXPECT_EQ(*ReadWholeFile(output_, 100), "precious");
  EXPECT_EQ(Files().size(), 2u);
}

TEST_F(QuantizeTest, SaysThatTheOutputCannotBeWritten) {
  const Status status = QuantizeModel(kTwin, folder_ / "no" / "such" / "folder.gguf", "Q8_0", 1);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("folder.gguf"));
  const Status missing = QuantizeModel(folder_ / "absent.gguf", output_, "Q8_0", 1);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace espalier
