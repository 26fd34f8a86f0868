// Models in several files, as a user names them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/gguf_file.h"
#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"
#include "support/split_model.h"

namespace espalier::test {
namespace {

const std::string kText = DataPath("books-excerpt.txt");

class CliSplit : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    parts_ = SplitModel(TwinPath(), Path("twin"), {.most_tensors = 20});
  }

  std::vector<std::string> parts_;
};

TEST_F(CliSplit, InspectTellsTheNumberOfFiles) {
  const auto whole = Report({"inspect", TwinPath()});
  const auto split = Report({"inspect", parts_[0]});
  EXPECT_EQ(whole["files"], 1);
  EXPECT_EQ(split["files"], parts_.size());
  uint64_t bytes = 0;
  for (const std::string& part : parts_) {
    bytes += std::filesystem::file_size(part);
  }
  EXPECT_EQ(split["file_bytes"], bytes);
  EXPECT_EQ(split["blocks"], whole["blocks"]);
  EXPECT_EQ(Report({"memory", parts_[0], "-w", "1x64"})["reclaimable_bytes"], bytes);
  EXPECT_NE(Espalier({"inspect", parts_[0]}).out.find(fmt::format("first of {} files", parts_.size())),
            std::string::npos);
  EXPECT_EQ(Espalier({"inspect", TwinPath()}).out.find(" files"), std::string::npos);
}

TEST_F(CliSplit, EvaluatesToTheSameNumbersWithTheSameProfile) {
  const auto eval = [&](const std::string& model, const std::vector<std::string>& more) {
    return Report(std::vector<std::string>{"eval", model, "--text", kText, "-c", "64", "--windows", "4", "-t", "1"} +
                  more);
  };
  EXPECT_EQ(eval(TwinPath(), {})["perplexity"], eval(parts_[0], {})["perplexity"]);
  Report({"rank", TwinPath(), "--text", kText, "-o", Path("profile"), "-c", "48", "--windows", "2", "-t", "1",
          "--minutes", "0", "--searches", "one-shot"});
  const std::vector<std::string> pruned = {"--profile", Path("profile"), "--memory-budget", "80%"};
  const auto expected = eval(TwinPath(), pruned);
  const auto found = eval(parts_[0], pruned);
  EXPECT_EQ(expected["plan"], found["plan"]);
  EXPECT_NE(expected["plan"], "dense");
  EXPECT_EQ(expected["perplexity"], found["perplexity"]);
}

TEST_F(CliSplit, ExportsTheVeryFileThatTheWholeModelDoes) {
  Report({"export", TwinPath(), "--drop", "a1,f2", "-o", Path("of-whole.gguf")});
  Report({"export", parts_[0], "--drop", "a1,f2", "-o", Path("of-parts.gguf")});
  EXPECT_TRUE(Slurp(Path("of-whole.gguf")) == Slurp(Path("of-parts.gguf")));
  const auto exported = GgufFile::Open(Path("of-parts.gguf"));
  ASSERT_TRUE(exported.ok()) << exported.status().message();
  EXPECT_EQ((*exported)->version(), 3u);
  EXPECT_EQ((*exported)->FindEntry("split.count"), nullptr);
}

TEST_F(CliSplit, ExportWritesOverNoneOfTheModelsFiles) {
  for (const std::string& part : parts_) {
    const auto size = std::filesystem::file_size(part);
    ExpectRefusal({"export", parts_[0], "--drop", "a1", "-o", part}, 1, {"the model's own"});
    EXPECT_EQ(std::filesystem::file_size(part), size);
  }
}

TEST_F(CliSplit, RefusesClearly) {
  ExpectRefusal({"inspect", parts_[1]}, 1, {parts_[1], parts_[0], "found file 2"});
  std::filesystem::copy_file(parts_[0], Path("twin.gguf"));
  ExpectRefusal({"inspect", Path("twin.gguf")}, 1, {Path("twin.gguf"), "NAME-00001-of-"});
  std::filesystem::remove(parts_[2]);
  ExpectRefusal({"inspect", parts_[0]}, 1, {parts_[2], "No such file"});
  ExpectRefusal({"run", parts_[0], "-p", "hello"}, 1, {parts_[2], "No such file"});
}

}  // namespace
}  // namespace espalier::test
