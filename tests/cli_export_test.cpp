// espalier export, as a user runs it, and what stock llama.cpp makes of the files.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "model/gguf_file.h"
#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"
#include "support/peer.h"

namespace espalier::test {
namespace {

using nlohmann::json;

const std::string kText = DataPath("books-excerpt.txt");

class CliExport : public CliTest {
 protected:
  json Export(const std::string& model, const std::string& dropped, const std::vector<std::string>& more = {}) const {
    return Report(std::vector<std::string>{"export", model, "--drop", dropped, "-o", Path("small.gguf")} + more);
  }
};

TEST_F(CliExport, StockPerplexityIsOursUnderThePlan) {
  for (const std::string& model : {TwinPath(), TwinAt("Q4_K_M")}) {
    for (const std::string dropped : {"a2,f2", "a0,f3,a5"}) {
      SCOPED_TRACE(model + " " + dropped);
      const json report = Export(model, dropped);
      EXPECT_EQ(report["file_bytes"], std::filesystem::file_size(Path("small.gguf")));
      EXPECT_EQ(report["architecture"], dropped == "a2,f2" ? "llama" : "deci");
      EXPECT_LT(report["size_ratio"], 1);
      const json ours = Report({"eval", model, "--text", kText, "--protocol", "llama", "-c", "512", "--windows", "4",
                                "--drop", dropped, "-t", "1"});
      const auto theirs = RunPeer("llama-perplexity",
                                  fmt::format("-m '{}' -f '{}' -c 512 --chunks 4 -t 1 2>&1", Path("small.gguf"), kText),
                                  "Final estimate");
      if (!theirs) {
        GTEST_SKIP() << kNoPeer;
      }
      std::smatch found;
      ASSERT_TRUE(std::regex_search(*theirs, found, std::regex("PPL = ([0-9.]+)"))) << *theirs;
      EXPECT_NEAR(ours["perplexity"].get<double>(), std::stod(found[1]), 6e-5) << "the digits it prints";
    }
  }
}

TEST_F(CliExport, SaysWhichArchitectureAndWhy) {
  const auto generate = [&](const std::string& name, const std::vector<std::string>& more) {
    Report(std::vector<std::string>{"generate-model", "--arch", name, "--layers", "3", "--type", "Q8_0", "-o",
                                    Path(name)} +
           more);
    return Path(name);
  };
  const std::string qwen2 = generate("qwen2", {"--biases"});
  const json report = Export(qwen2, "a1");
  EXPECT_EQ(report["architecture"], "deci");
  EXPECT_EQ(report["architecture_reason"],
            "layers differ (f1 without an attention block); rows of q and k are in the order of its rope");
  const Outcome text = Espalier({"export", qwen2, "--drop", "a1,f1", "-o", Path("small.gguf")});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("architecture qwen2: every layer has both halves\n"), std::string::npos) << text.out;
  ExpectRefusal({"export", generate("qwen3", {}), "--drop", "f1", "-o", Path("none.gguf")}, 1,
                {"a1 without an FFN block", "drop whole layers"});
  EXPECT_FALSE(std::filesystem::exists(Path("none.gguf")));
}

TEST_F(CliExport, NotesWhereItComesFromAndWhatItLoses) {
  Report({"rank", TwinPath(), "--text", kText, "-o", Path("profile"), "-c", "48", "--windows", "2", "-t", "1",
          "--minutes", "0", "--searches", "one-shot"});
  const json report = Export(TwinPath(), "a3", {"--profile", Path("profile")});
  EXPECT_GT(report["loss_nats"].get<double>(), 0);
  const auto file = GgufFile::Open(Path("small.gguf"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*(*file)->String("espalier.plan"), "a3=0");
  EXPECT_EQ((*file)->String("espalier.source.fingerprint")->size(), 32u);
  EXPECT_EQ(std::stod(*(*file)->String("espalier.loss_nats")), report["loss_nats"].get<double>());
  // Means of blocks become biases: more tensors, the same plan.
  const json with_means = Export(TwinPath(), "a3", {"--profile", Path("profile"), "--ablation", "mean"});
  EXPECT_GT(with_means["file_bytes"], report["file_bytes"]);
  EXPECT_EQ(with_means["ablation"], "mean");
  EXPECT_TRUE(with_means["loss_nats"].is_null()) << "it was measured without them";
}

TEST_F(CliExport, RefusesClearlyAndLeavesNothing) {
  const std::string out = Path("small.gguf");
  ExpectRefusal({"export", TwinPath(), "-o", out}, 1, {"--drop", "--plan"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a6", "-o", out}, 1, {"a6"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a1"}, 2, {"--output"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a1", "-o", Path("none/small.gguf")}, 1, {"none"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a0,f0,a1,f1,a2,f2,a3,f3,a4,f4,a5,f5", "-o", out}, 1,
                {"at least one"});
  ExpectRefusal({"export", TwinPath(), "--plan", "f2=0.5", "-o", out}, 1, {"whole blocks", "f2=0.5"});
  ExpectRefusal({"export", TwinPath(), "--drop", "a1", "--ablation", "mean", "--profile", "none", "-o", out}, 1,
                {"profile"});
  EXPECT_FALSE(std::filesystem::exists(out));
  std::filesystem::copy_file(TwinPath(), out);
  ExpectRefusal({"export", out, "--drop", "a1", "-o", out}, 1, {"own"});
  EXPECT_EQ(std::filesystem::file_size(out), std::filesystem::file_size(TwinPath()));
}

}  // namespace
}  // namespace espalier::test
