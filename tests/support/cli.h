// Drives the built program from outside, as a user does.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/paths.h"

namespace espalier::test {

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

inline std::string Slurp(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

[[noreturn]] inline void Execute(std::vector<std::string> arguments) {
  const std::string program = ProgramPath();
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  ::_exit(127);
}

inline int ExitCode(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("espalier-cli-" + std::to_string(::getpid()) + "-" + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }

  Outcome Espalier(const std::vector<std::string>& arguments, const std::string& out = "") const {
    const std::string out_path = out.empty() ? Path("stdout") : out;
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(::open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      ::dup2(::open(Path("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      Execute(arguments);
    }
    Outcome outcome;
    outcome.code = ExitCode(child);
    outcome.out = out.empty() ? Slurp(out_path) : "";
    outcome.err = Slurp(Path("stderr"));
    return outcome;
  }

  // Runs with --json, and expects one object on standard output and nothing else.
  nlohmann::json Report(std::vector<std::string> arguments) const {
    arguments.emplace_back("--json");
    const Outcome outcome = Espalier(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const nlohmann::json report = nlohmann::json::parse(outcome.out, nullptr, false);
    EXPECT_TRUE(report.is_object()) << outcome.out;
    return report;
  }

  // Expects a refusal: exit code, nothing on standard output, one line on stderr with each of `parts`.
  void ExpectRefusal(const std::vector<std::string>& arguments, int code, const std::vector<std::string>& parts) const {
    for (const bool json : {false, true}) {
      std::vector<std::string> all = arguments;
      if (json) {
        all.emplace_back("--json");
      }
      const Outcome outcome = Espalier(all);
      EXPECT_EQ(outcome.code, code) << outcome.err;
      EXPECT_EQ(outcome.out, "");
      EXPECT_TRUE(outcome.err.starts_with("espalier: ")) << outcome.err;
      EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
      for (const std::string& part : parts) {
        EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
      }
    }
  }

  std::filesystem::path folder_;
};

inline std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace espalier::test
