// `espalier rank`, driven from outside: what it leaves behind, and that no interrupt, damage or mistake costs more than
// what was being measured.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <map>
#include <set>
#include <thread>

#include "support/cli.h"
#include "support/models.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

using nlohmann::json;

class CliRank : public CliTest {
 protected:
  static std::string Excerpt() { return Slurp(DataPath("books-excerpt.txt")); }

  // Two windows of 48 tokens: a few hundred plans of 12 blocks in a second or two. No swaps, which end by the clock.
  std::vector<std::string> Rank(const std::string& profile) {
    return {"rank",      TwinPath(), "--text", Write("text.txt", Excerpt().substr(0, 4000)),
            "-o",        profile,    "-c",     "48",
            "--windows", "2",        "-t",     "1",
            "--minutes", "0"};
  }

  static int64_t MeasuredWindows(const json& report) {
    int64_t windows = 0;
    for (const json& phase : report["phases"]) {
      windows += phase["measured_windows"].get<int64_t>();
    }
    return windows;
  }

  // Starts the command and sends `signal` once its journal has grown beyond `bytes`. The exit code, as the shell has
  // it; -1 if it ended before.
  int Interrupt(const std::vector<std::string>& arguments, const std::string& profile, int signal, uintmax_t bytes) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(::open(Path("stdout").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      ::dup2(::open(Path("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      Execute(arguments);
    }
    std::error_code error;
    while (::waitpid(child, nullptr, WNOHANG) == 0) {
      const auto size = std::filesystem::file_size(profile + ".journal", error);
      if (!error && size > bytes) {
        ::kill(child, signal);
        return ExitCode(child);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return -1;
  }
};

TEST_F(CliRank, FillsAProfileThatAnswersTheSecondTime) {
  const json first = Report(Rank(Path("p")));
  EXPECT_EQ(first["windows"], 2);
  EXPECT_EQ(first["scored_tokens"], 2 * 47);
  EXPECT_GT(MeasuredWindows(first), 0);
  EXPECT_GT(first["archive_plans"], 12 + 12) << "one-shot and the GSI chain at least";
  std::map<std::string, int> methods;
  for (const json& ranking : first["rankings"]) {
    ++methods[ranking["method"].get<std::string>()];
    EXPECT_EQ(ranking["drop_order"].size(), 12u);
  }
  for (const char* method : {"gsi", "one-shot", "shortgpt", "mha-drop", "ffn-skip"}) {
    EXPECT_EQ(methods[method], 1) << method;
  }
  EXPECT_EQ(methods["density"], 6);
  EXPECT_GE(methods["random"], 1);

  const json second = Report(Rank(Path("p")));
  EXPECT_EQ(MeasuredWindows(second), 0);
  for (const json& phase : second["phases"]) {
    EXPECT_TRUE(phase["name"] == "dense predictions" || phase["flop"] == 0) << phase;
  }
  EXPECT_EQ(second["rankings"], first["rankings"]);
  EXPECT_EQ(second["archive_plans"], first["archive_plans"]);
}

TEST_F(CliRank, GoesOnAfterKillAsIfNothingHadHappened) {
  const json whole = Report(Rank(Path("whole")));
  ASSERT_EQ(Interrupt(Rank(Path("p")), Path("p"), SIGKILL, 1500), 128 + SIGKILL);
  ASSERT_EQ(Interrupt(Rank(Path("p")), Path("p"), SIGKILL, 3000), 128 + SIGKILL);
  const json resumed = Report(Rank(Path("p")));
  EXPECT_LT(MeasuredWindows(resumed), MeasuredWindows(whole));
  EXPECT_EQ(resumed["rankings"], whole["rankings"]);
  EXPECT_EQ(resumed["archive_plans"], whole["archive_plans"]);
}

TEST_F(CliRank, SearchesForWhatIsAskedFor) {
  const json report = Report(Rank(Path("p")) + std::vector<std::string>{"--searches", "gsi"});
  std::set<std::string> methods;
  for (const json& ranking : report["rankings"]) {
    methods.insert(ranking["method"].get<std::string>());
  }
  EXPECT_EQ(methods, (std::set<std::string>{"gsi", "shortgpt", "mha-drop", "ffn-skip", "random"}));
  // Nothing more, whatever the profile lacks.
  const json again = Report(Rank(Path("p")) + std::vector<std::string>{"--searches", "none"});
  EXPECT_EQ(MeasuredWindows(again), 0);
  EXPECT_EQ(again["rankings"], report["rankings"]);
  // The search around the fronts has to have something to learn from.
  std::vector<std::string> afresh = Rank(Path("q"));
  afresh.back() = "0.1";
  ExpectRefusal(afresh + std::vector<std::string>{"--searches", "none"}, 1, {"at least 12 measured plans", "found 0"});
}

TEST_F(CliRank, InterruptSavesAndSaysHowToGoOn) {
  ASSERT_EQ(Interrupt(Rank(Path("p")), Path("p"), SIGINT, 2000), 130);
  EXPECT_EQ(Slurp(Path("stdout")), "");
  EXPECT_NE(Slurp(Path("stderr")).find("goes on from there"), std::string::npos) << Slurp(Path("stderr"));
  const json resumed = Report(Rank(Path("p")));
  std::filesystem::remove(Path("p"));
  std::filesystem::remove(Path("p.journal"));
  const json whole = Report(Rank(Path("p")));
  EXPECT_LT(MeasuredWindows(resumed), MeasuredWindows(whole));
  EXPECT_EQ(resumed["rankings"], whole["rankings"]);
}

TEST_F(CliRank, DamagedProfileIsMendedAndKeptBeside) {
  const json whole = Report(Rank(Path("p")));
  const std::string content = Slurp(Path("p"));
  // Cut in the midst of the losses, which lie in front of the header's copy.
  const std::string damaged = content.substr(0, content.rfind("GGUF") - 1000);
  Write("p", damaged);
  const Outcome outcome = Espalier(Rank(Path("p")) + std::vector<std::string>{"--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("espalier: warning: "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("cut short"), std::string::npos) << outcome.err;
  EXPECT_EQ(Slurp(Path("p.damaged")), damaged);
  const json mended = json::parse(outcome.out);
  EXPECT_EQ(mended["rankings"], whole["rankings"]);
  EXPECT_GT(MeasuredWindows(mended), 0);
  EXPECT_LT(MeasuredWindows(mended), MeasuredWindows(whole))
      << "what was sound was not measured again: " << outcome.err;
}

TEST_F(CliRank, WarnsOfTextThatOverlaps) {
  const std::string text = Excerpt();
  // What is said comes before the first measurement: no need to wait for the last.
  const auto said_of = [&](const std::string& name, size_t from) {
    const std::vector<std::string> arguments = {"rank",      TwinPath(), "--text", Write(name, text.substr(from, 3000)),
                                                "-o",        Path("p"),  "-c",     "256",
                                                "--windows", "1"};
    EXPECT_EQ(Interrupt(arguments, Path("p"), SIGINT, 200), 130);
    return Slurp(Path("stderr"));
  };
  EXPECT_EQ(said_of("a.txt", 0).find("overlap"), std::string::npos);
  const std::string shifted = said_of("b.txt", 200);
  EXPECT_NE(shifted.find("espalier: warning: "), std::string::npos) << shifted;
  EXPECT_NE(shifted.find("overlaps with"), std::string::npos) << shifted;
  EXPECT_NE(shifted.find("a.txt"), std::string::npos) << shifted;
  EXPECT_EQ(said_of("c.txt", 60000).find("overlap"), std::string::npos);
}

TEST_F(CliRank, RefusesWhatCannotBeMeasured) {
  const std::string profile = Path("p");
  const auto rank = [&](const std::string& text) {
    return std::vector<std::string>{"rank", TwinPath(), "--text", text, "-o", profile};
  };
  ExpectRefusal(rank(Path("missing.txt")), 1, {"missing.txt"});
  ExpectRefusal(rank(Write("empty.txt", "")), 1, {"empty.txt"});
  ExpectRefusal(rank(Write("tiny.txt", "Once upon a time")), 1, {"tiny.txt", "tokens"});
  ExpectRefusal({"rank", TwinPath(), "-o", profile}, 2, {"--text"});
  ExpectRefusal(rank(Path("tiny.txt")) + std::vector<std::string>{"--ablation", "median"}, 2, {"--ablation"});
  ExpectRefusal(rank(Path("tiny.txt")) + std::vector<std::string>{"--searches", "gsi,luck"}, 2, {"--searches", "luck"});
  EXPECT_FALSE(std::filesystem::exists(profile));
  EXPECT_FALSE(std::filesystem::exists(profile + ".journal"));
}

TEST_F(CliRank, RefusesFilesThatAreNotItsProfile) {
  const std::string text = Write("readme.md", "# something dear\n");
  ExpectRefusal(Rank(text), 1, {"readme.md", "expected an Espalier profile"});
  EXPECT_EQ(Slurp(text), "# something dear\n");
  ExpectRefusal(Rank("/proc/p.profile"), 1, {"/proc/p.profile"});
  ExpectRefusal(Rank(folder_.string()), 1, {folder_.filename().string()});
  // The twin's profile for the reference model.
  ASSERT_EQ(Interrupt(Rank(Path("p")), Path("p"), SIGINT, 2000), 130);
  auto other = Rank(Path("p"));
  other[1] = ReferencePath();
  ExpectRefusal(other, 1, {"belongs to another model"});
}

TEST_F(CliRank, FullDiskIsTold) {
  const std::string command = "ulimit -f 4; exec '" + ProgramPath() + "' rank '" + TwinPath() + "' --text '" +
                              Write("text.txt", Excerpt().substr(0, 4000)) + "' -o '" + Path("p") +
                              "' -c 48 --windows 2 -t 1 > '" + Path("stdout") + "' 2> '" + Path("stderr") + "'";
  const int status = std::system(("sh -c \"" + command + "\"").c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(Slurp(Path("stdout")), "");
  const std::string error = Slurp(Path("stderr"));
  EXPECT_NE(error.find(Path("p")), std::string::npos) << error;
  EXPECT_NE(error.find("writing"), std::string::npos) << error;
}

}  // namespace
}  // namespace espalier::test
