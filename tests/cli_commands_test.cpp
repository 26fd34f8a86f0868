// The program as a user meets it: every command once, JSON alone on standard output, exit codes, and one line for each
// kind of bad input.
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "support/cli.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

const std::string kTwin = ModelPath("espalier-twin-f16.gguf");
const std::string kText = DataPath("books-excerpt.txt");

const std::vector<std::string> kRunTwin = {"run", kTwin, "-t", "1", "--temp", "0", "-n", "8", "-p", "The old house"};

// What is said of a model run on a GPU is said by llama.cpp, too, when there is none.
TEST_F(CliTest, TakesLlamaCppsFlagsForGpusAndFusedAttention) {
  const Outcome plain = Espalier(kRunTwin);
  ASSERT_EQ(plain.code, 0) << plain.err;
  auto flags = kRunTwin;
  flags.insert(flags.end(), {"-ngl", "0", "-fa", "auto"});
  EXPECT_EQ(Espalier(flags).out, plain.out);
  flags = kRunTwin;
  flags.insert(flags.end(), {"-fa", "off"});
  const Outcome off = Espalier(flags);
  EXPECT_NE(off.code, 0);
  EXPECT_NE(off.err.find("-fa off: expected on or auto"), std::string::npos) << off.err;
  flags = kRunTwin;
  flags.insert(flags.end(), {"-ngl", "99", "-fa"});
  const Outcome offloaded = Espalier(flags);
  EXPECT_EQ(offloaded.code, 0) << offloaded.err;
  if (offloaded.err.find("no GPU was found") != std::string::npos) {
    EXPECT_EQ(offloaded.out, plain.out);
  }
}

TEST_F(CliTest, HelpAndVersionGoToStandardOutput) {
  const Outcome version = Espalier({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_NE(version.out.find("ggml"), std::string::npos);
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{},
                                                                                       {"run"},
                                                                                       {"inspect"},
                                                                                       {"memory"},
                                                                                       {"eval"},
                                                                                       {"rank"},
                                                                                       {"compare"},
                                                                                       {"train", "rap"},
                                                                                       {"train", "stratnet"},
                                                                                       {"export"},
                                                                                       {"bench"},
                                                                                       {"bench", "residency"},
                                                                                       {"generate-model"}}) {
    const Outcome help = Espalier(command + std::vector<std::string>{"--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find("Examples:"), std::string::npos) << help.out;
    EXPECT_EQ(help.err, "");
  }
}

TEST_F(CliTest, RunWritesTheTextAloneAndTheSameTextTwice) {
  const Outcome first = Espalier(kRunTwin);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_GT(first.out.size(), 8u);
  EXPECT_EQ(first.out.find("espalier"), std::string::npos);
  EXPECT_EQ(Espalier(kRunTwin).out, first.out);
}

TEST_F(CliTest, RunReportsWhatItHolds) {
  const Json report = Report(kRunTwin);
  EXPECT_EQ(report["generated_tokens"], 8);
  EXPECT_EQ(report["stop_reason"], "token limit");
  EXPECT_EQ(report["plan"]["text"], "dense");
  EXPECT_TRUE(report["budget_bytes"].is_null());
  EXPECT_NEAR(report["managed_bytes"].get<double>() / report["predicted_managed_bytes"].get<double>(), 1, 0.01);
  EXPECT_GT(report["decode_tokens_per_second"], 0);
}

TEST_F(CliTest, RunHoldsWhatMemorySaysOfOneSequence) {
  for (const char* type : {"f16", "q8_0"}) {
    const Json memory = Report({"memory", kTwin, "-w", "1x200", "-t", "1", "-ctk", type, "-ctv", type});
    const Json run = Report(
        {"run", kTwin, "-c", "200", "-t", "1", "-ctk", type, "-ctv", type, "--ignore-eos", "-p", "The old house"});
    EXPECT_EQ(run["prompt_tokens"].get<int>() + run["generated_tokens"].get<int>(), 201) << "the context is full";
    EXPECT_EQ(run["weight_bytes"], memory["weight_bytes"]);
    EXPECT_EQ(run["kv_bytes"], memory["kv_bytes"]);
    // The backend's scratch is what the heap grew by when it was measured: a few kB more or less in each process.
    EXPECT_NEAR(run["managed_bytes"].get<double>(), memory["managed_bytes"].get<double>(), 8192) << type;
  }
}

TEST_F(CliTest, ABudgetStepsDownAndUpInMidText) {
  const Json report = Report({"run", kTwin, "-t", "1", "--temp", "0", "--ignore-eos", "-n", "48", "-p", "The old house",
                              "--budget-schedule", "0:100%,8:60%,16:100%"});
  EXPECT_EQ(report["generated_tokens"], 48);
  EXPECT_EQ(report["budget_violations"], 0);
  EXPECT_EQ(report["plan_at_end"]["text"], "dense");
  EXPECT_EQ(report["reprefills"], 1);
  int64_t released = 0;
  int64_t loaded = 0;
  for (const Json& transition : report["transitions"]) {
    released += transition["blocks_released"].get<int64_t>();
    loaded += transition["blocks_loaded"].get<int64_t>();
    EXPECT_LE(transition["after"]["managed_bytes"].get<int64_t>() + transition["after"]["process_bytes"].get<int64_t>(),
              transition["budget_bytes"].get<int64_t>());
    EXPECT_NEAR(transition["after"]["managed_bytes"].get<double>() / transition["predicted_bytes_after"].get<double>(),
                1, 0.01);
  }
  EXPECT_GT(released, 0);
  EXPECT_EQ(loaded, released);
}

TEST_F(CliTest, ATightBudgetDropsBlocksWithAWarning) {
  const Outcome outcome = Espalier(kRunTwin + std::vector<std::string>{"-c", "512", "--memory-budget", "70%"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.err.find("warning"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("=0"), std::string::npos) << outcome.err;
}

TEST_F(CliTest, PlansMeanTheSameInEveryForm) {
  Write("plan.txt", "f2=0 a3=0\n");
  Write("plan.json", R"({"keep": {"a3": 0, "f2": 0}})");
  const std::string expected = Espalier(kRunTwin + std::vector<std::string>{"--drop", "a3,f2"}).out;
  EXPECT_NE(expected, Espalier(kRunTwin).out);
  for (const std::string& plan : {std::string("a3=0 f2=0"), Path("plan.txt"), Path("plan.json")}) {
    EXPECT_EQ(Espalier(kRunTwin + std::vector<std::string>{"--plan", plan}).out, expected) << plan;
  }
  EXPECT_EQ(Report({"memory", kTwin, "--drop", "a3,f2"})["plan"]["text"], "f2=0 a3=0");
  const Json bench = Report(
      {"bench", kTwin, "--drop", "a3,f2", "-p", "8", "-n", "2", "-r", "1", "-t", "1", "--bandwidth-buffer", "16MiB"});
  EXPECT_EQ(bench["plan"]["text"], "f2=0 a3=0");
  EXPECT_GT(bench["decode_byte_ratio"], 1);
}

TEST_F(CliTest, InspectAccountsForEveryByteOfWeights) {
  const Json report = Report({"inspect", "twin"});
  EXPECT_EQ(report["model"]["architecture"], "llama");
  ASSERT_EQ(report["blocks"].size(), 12u);
  uint64_t bytes = report["globals"]["file_bytes"];
  for (const Json& block : report["blocks"]) {
    bytes += block["file_bytes"].get<uint64_t>();
  }
  EXPECT_EQ(bytes, report["weight_bytes"]);
  EXPECT_LT(bytes, report["file_bytes"]);
}

TEST_F(CliTest, MemoryAddsUpAndChoosesAPlanThatFits) {
  const Json dense = Report({"memory", kTwin, "--workload", "4x256"});
  EXPECT_EQ(dense["workload"]["kv_cells"], 1024);
  EXPECT_EQ(
      dense["managed_bytes"].get<int64_t>(),
      dense["weight_bytes"].get<int64_t>() + dense["kv_bytes"].get<int64_t>() + dense["compute_bytes"].get<int64_t>());
  EXPECT_EQ(dense["total_bytes"].get<int64_t>(),
            dense["process_bytes"].get<int64_t>() + dense["peak_bytes"].get<int64_t>());
  const Json pruned = Report({"memory", kTwin, "--workload", "4x256", "--memory-budget", "75%"});
  EXPECT_TRUE(pruned["fits"]);
  EXPECT_EQ(pruned["policy"], "data-free");
  EXPECT_LE(pruned["total_bytes"], pruned["budget_bytes"]);
  EXPECT_FALSE(pruned["plan"]["keep"].empty());
  // What one command writes, --plan reads.
  const std::string plan = Write("plan.json", pruned["plan"].dump());
  const Json again = Report({"memory", kTwin, "--workload", "4x256", "--plan", plan});
  EXPECT_EQ(again["weight_bytes"], pruned["weight_bytes"]);
}

TEST_F(CliTest, MemoryTellsThatAPlanDoesNotFit) {
  const Json report = Report({"memory", kTwin, "--drop", "a3", "--memory-budget", "10MiB"});
  EXPECT_FALSE(report["fits"]);
  EXPECT_EQ(report["plan"]["text"], "a3=0");
}

TEST_F(CliTest, EvalMeasuresPerplexityKlAndSwitches) {
  const std::vector<std::string> eval = {"eval", kTwin, "--text", kText, "--windows", "2", "-c", "128", "-t", "1"};
  const Json dense = Report(eval);
  EXPECT_EQ(dense["protocol"], "gptq");
  EXPECT_EQ(dense["windows"], 2);
  const Json dropped = Report(eval + std::vector<std::string>{"--drop", "a3,f3", "--kl"});
  EXPECT_GT(dropped["perplexity"], dense["perplexity"]);
  EXPECT_NEAR(dropped["perplexity_dense"].get<double>(), dense["perplexity"].get<double>(), 1e-3);
  EXPECT_GT(dropped["kl_nats"], 0);
  const Json switched = Report(eval + std::vector<std::string>{"--drop", "a3,f3", "--switch-at", "64"});
  EXPECT_EQ(switched["switch_at_token"], 64);
  EXPECT_EQ(switched["skipped_attention_blocks"], 1);
  const Json llama = Report(eval + std::vector<std::string>{"--protocol", "llama"});
  EXPECT_EQ(llama["scored_tokens"], 2 * 63);
}

TEST_F(CliTest, BenchChecksLogitsAndReportsPhysicalUnits) {
  const Json report = Report(
      {"bench", kTwin, "-p", "32", "-n", "4", "-r", "2", "-t", "1", "--vs-libllama", "--bandwidth-buffer", "16MiB"});
  EXPECT_EQ(report["logits_equal"], true);
  for (const char* key : {"prefill_tokens_per_second", "decode_tokens_per_second", "decode_gigabytes_per_second",
                          "memory_bandwidth_gigabytes_per_second", "prefill_ratio", "decode_ratio"}) {
    EXPECT_GT(report[key], 0) << key;
  }
  EXPECT_EQ(report["decode_ratio_quartiles"].size(), 2u);
}

TEST_F(CliTest, BenchResidencyGivesMemoryBackInEveryCycle) {
  const Json report = Report({"bench", "residency", kTwin, "--cycles", "2", "-t", "1"});
  ASSERT_EQ(report["stores"].size(), 2u);
  for (const Json& store : report["stores"]) {
    ASSERT_EQ(store["cycles"].size(), 2u);
    for (const Json& cycle : store["cycles"]) {
      EXPECT_GT(cycle["anonymous_share_of_released"], 0.99) << store["store"];
      EXPECT_EQ(cycle["managed_bytes_restored"], cycle["managed_bytes_before"]);
    }
  }
}

TEST_F(CliTest, GenerateModelWritesWhatInspectReads) {
  const std::vector<std::string> small = {"generate-model",
                                          "--layers",
                                          "2",
                                          "--embedding-length",
                                          "64",
                                          "--feed-forward-length",
                                          "128",
                                          "--heads",
                                          "2",
                                          "--kv-heads",
                                          "1",
                                          "--vocab",
                                          "300",
                                          "--ctx",
                                          "64",
                                          "--type",
                                          "Q8_0",
                                          "--seed",
                                          "3",
                                          "-t",
                                          "1"};
  const Json written = Report(small + std::vector<std::string>{"-o", Path("a.gguf")});
  const Json read = Report({"inspect", Path("a.gguf")});
  EXPECT_EQ(read["parameters"], written["parameters"]);
  EXPECT_EQ(read["file_bytes"], written["file_bytes"]);
  EXPECT_EQ(read["model"]["quantization"], "Q8_0");
  EXPECT_EQ(read["kv_heads"], 1);
  EXPECT_EQ(Espalier(small + std::vector<std::string>{"-o", Path("b.gguf")}).code, 0);
  EXPECT_EQ(Slurp(Path("a.gguf")), Slurp(Path("b.gguf"))) << "the same seed gives the same file";
}

TEST_F(CliTest, BadModelFilesAreRefused) {
  ExpectRefusal({"inspect", Write("text.gguf", "this is no model, but it is long enough to be one")}, 1,
                {"text.gguf", "GGUF"});
  const std::string twin = Slurp(kTwin);
  ExpectRefusal({"run", "-p", "x", Write("truncated.gguf", twin.substr(0, twin.size() / 2))}, 1, {"truncated.gguf"});
  std::string other = twin;
  other.replace(other.find("llama", other.find("general.architecture")), 5, "mamba");
  ExpectRefusal({"inspect", Write("mamba.gguf", other)}, 1, {"mamba", "llama"});
  ExpectRefusal({"inspect", Path("missing.gguf")}, 1, {"missing.gguf"});
}

TEST_F(CliTest, UnknownBlocksAreNamedWithTheRange) {
  ExpectRefusal({"run", kTwin, "-p", "x", "--drop", "a1,a99"}, 1, {"a99", "a0", "a5", "f5"});
  ExpectRefusal({"memory", kTwin, "--plan", "f6=0"}, 1, {"f6", "a5", "f5"});
  ExpectRefusal({"eval", kTwin, "--text", kText, "--plan", Write("plan.json", R"({"keep": {"b1": 0}})")}, 1,
                {"plan.json", "b1", "a5"});
}

TEST_F(CliTest, ABudgetBelowTheMinimumNamesTheMinimum) {
  ExpectRefusal(kRunTwin + std::vector<std::string>{"--memory-budget", "1MiB"}, 1,
                {"1048576", "minimum of ", " bytes"});
  ExpectRefusal(kRunTwin + std::vector<std::string>{"--budget-schedule", "0:100%,4:1MiB"}, 1, {"minimum of "});
  ExpectRefusal(kRunTwin + std::vector<std::string>{"--memory-budget", "10MiB", "--drop", "a3"}, 1,
                {"minimum of ", "a3=0"});
  const Outcome refused = Espalier(kRunTwin + std::vector<std::string>{"--memory-budget", "1MiB"});
  const std::string mark = "minimum of ";
  // The process is not the same to the byte each time.
  const uint64_t enough = std::stoull(refused.err.substr(refused.err.find(mark) + mark.size())) + (1 << 20);
  EXPECT_EQ(Espalier(kRunTwin + std::vector<std::string>{"--memory-budget", std::to_string(enough)}).code, 0);
}

TEST_F(CliTest, TextsAndContextsOutOfRangeAreRefusedWithBothNumbers) {
  ExpectRefusal({"eval", kTwin, "--text", Write("short.txt", "Too short.")}, 1, {"short.txt", "512"});
  ExpectRefusal({"run", kTwin, "-p", "x", "-c", "1024"}, 1, {"1024", "512"});
  ExpectRefusal({"memory", kTwin, "--workload", "2x513"}, 1, {"513", "512"});
  std::string long_prompt;
  for (int i = 0; i < 600; ++i) {
    long_prompt += "house ";
  }
  ExpectRefusal({"run", kTwin, "-f", Write("long.txt", long_prompt)}, 1, {"512"});
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsRefused) {
  ExpectRefusal({"generate-model", "-o", Path("no/such/folder/model.gguf")}, 1, {"no/such/folder/model.gguf"});
  EXPECT_EQ(Espalier({"inspect", kTwin}, "/dev/full").code, 1);
}

TEST_F(CliTest, GenerateModelRefusesWhatItCannotMake) {
  ExpectRefusal({"generate-model", "--type", "Q9_9", "-o", Path("x.gguf")}, 1, {"Q9_9", "Q4_K_M"});
  ExpectRefusal({"generate-model", "--layers", "80", "--embedding-length", "8192", "--feed-forward-length", "28672",
                 "--heads", "64", "--vocab", "32000", "-o", Path("x.gguf")},
                1, {"billion"});
  ExpectRefusal({"generate-model", "--arch", "gpt9", "-o", Path("x.gguf")}, 1, {"gpt9"});
  EXPECT_FALSE(fs::exists(Path("x.gguf")));
}

TEST_F(CliTest, AWrongCommandLineHasAnExitCodeOfItsOwn) {
  ExpectRefusal({"fly"}, 2, {"expected one of run, ", "found 'fly'", "espalier --help"});
  ExpectRefusal({"train", "fly"}, 2, {"command of train: ", "expected one of rap, stratnet", "found 'fly'"});
  EXPECT_EQ(Espalier({"train"}).err,
            "espalier: command of train: expected one of rap, stratnet, found none (espalier train --help tells "
            "more)\n");
  EXPECT_EQ(Espalier({"train"}).code, 2);
  ExpectRefusal({"run", "--no-such-flag"}, 2, {"no-such-flag"});
  ExpectRefusal({"run", kTwin, "--drop", "a1", "--plan", "a1=0", "-p", "x"}, 2, {"--drop"});
  ExpectRefusal({"run", kTwin}, 1, {"-p"});
  ExpectRefusal({"run", kTwin, "-p", "x", "-ctk", "q3"}, 1, {"q3", "q8_0"});
  ExpectRefusal({"run", kTwin, "-p", "x", "--memory-budget", "lots"}, 1, {"lots"});
  ExpectRefusal({"run", kTwin, "-p", "x", "--memory-budget", "auto"}, 1, {"auto"});
  ExpectRefusal({"run", "", "-p", "x"}, 1, {"MODEL", "reference"});
  ExpectRefusal({"run", "-hf", "user/model"}, 2, {"hf-repo"});
  const Outcome nothing = Espalier({});
  EXPECT_EQ(nothing.code, 2);
  for (const char* command : {"run", "compress", "export", "serve", "generate-trace"}) {
    EXPECT_NE(nothing.err.find(command), std::string::npos) << nothing.err;
  }
}

TEST_F(CliTest, AFileOfOptionsThatCannotBeReadIsNamedWithWhatIsExpected) {
  const auto expect = [&](const std::string& text, const std::vector<std::string>& parts) {
    const std::string path = Write("serve.ini", text);
    const Outcome outcome = Espalier({"serve", kTwin, "--memory-budget", "1MiB", "--config", path});
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string& part : parts + std::vector<std::string>{"--config " + path}) {
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' in: " << outcome.err;
    }
  };
  const std::string expected = "expected the long name of an option of serve";
  for (const char* key : {"bogus", "ub", "help", "config"}) {
    expect("parallel = 2\n" + std::string(key) + " = 3\n", {std::string("key '") + key + "'", expected, "ctx-size"});
  }
  expect("[serve]\nbogus = 3\n", {"key 'bogus'", expected});
  expect("[run]\ntemp = 1\n", {"section 'run'", "expected none, or [serve]"});
  expect("[fly.high]\ntemp = 1\n", {"section 'fly'", "expected none, or [serve]"});
  expect("[serve.http]\nport = 1\n", {"section 'serve.http'", "expected none, or [serve]"});
  // What is read fails for the budget alone.
  const std::string good = Write("good.ini", "[serve]\nparallel = 2\nc = 512\nno-metrics = true\n");
  const Outcome read = Espalier({"serve", kTwin, "--memory-budget", "1MiB", "--config", good});
  EXPECT_EQ(read.code, 1) << read.err;
  EXPECT_NE(read.err.find("2x256"), std::string::npos) << read.err;
  ExpectRefusal({"serve", kTwin, "--config", folder_.string()}, 2, {folder_.string(), "regular file, found a folder"});
  EXPECT_NE(Espalier({"serve", kTwin, "--config"}).err.find("--config: 1 required FILE missing"), std::string::npos);
}

TEST_F(CliTest, AFileOfTheWrongKindIsNamedWithWhatIsExpected) {
  const std::string zero = "expected text, found a zero byte at offset 5";
  ExpectRefusal({"run", kTwin, "-f", kTwin}, 1, {kTwin, zero});
  ExpectRefusal({"eval", kTwin, "--text", kTwin}, 1, {kTwin, zero});
  ExpectRefusal({"rank", kTwin, "--text", kTwin, "-o", Path("twin.profile")}, 1, {kTwin, zero});
  ASSERT_EQ(Espalier({"generate-trace", "--seconds", "1", "-o", Path("trace.jsonl")}).code, 0);
  ExpectRefusal({"replay", Path("trace.jsonl"), kTwin, "--text", kTwin}, 1, {kTwin, zero});
  ExpectRefusal({"memory", kTwin, "--plan", "no-such-plan"}, 1,
                {"'no-such-plan'", "expected BLOCK=FRACTION", "no file of that name"});
  const Outcome cgroup = Espalier({"serve", kTwin, "--cgroup-root", Path("nowhere")});
  EXPECT_EQ(cgroup.code, 2) << cgroup.err;
  EXPECT_NE(cgroup.err.find("--cgroup-root: Directory does not exist: " + Path("nowhere")), std::string::npos);
}

TEST_F(CliTest, WhatIsTooMuchOrTooLittleIsNamedInTheOrderItStandsIn) {
  ExpectRefusal({"bench", kTwin, "--cycles", "3"}, 2, {"not expected: '--cycles 3", "espalier bench --help"});
  ExpectRefusal({"inspect", kTwin, "extra"}, 2, {"not expected: 'extra", "espalier inspect --help"});
  ExpectRefusal({"compress", kTwin}, 1, {"expected one of --requests, ", "found none of them"});
  ExpectRefusal({"compress", kTwin, "--size-ratio", "0.5", "--max-loss", "1", "--requests", "x"}, 1,
                {"expected one of ", "found --size-ratio and --max-loss and --requests"});
}

TEST_F(CliTest, NumbersOfFlagsAreFiniteAndInTheirRange) {
  for (const char* number : {"nan", "inf", "-1e999", "x"}) {
    ExpectRefusal({"run", kTwin, "-p", "x", "--temp", number}, 2, {"--temp", "-1 to 1000", number});
    ExpectRefusal({"run", kTwin, "-p", "x", "--pace", number}, 2, {"--pace", "at least 0", number});
    ExpectRefusal({"run", kTwin, "-p", "x", "--max-loss", number}, 2, {"--max-loss", "at least 0", number});
    ExpectRefusal({"rank", kTwin, "--text", kText, "--minutes", number}, 2, {"--minutes", number});
    ExpectRefusal({"generate-trace", "-o", Path("t"), "--rate", number}, 2, {"--rate", number});
    ExpectRefusal({"compress", kTwin, "--size-ratio", number}, 2, {"--size-ratio", number});
    ExpectRefusal({"replay", Path("t"), "--speed", number}, 2, {"--speed", "0.001 to 1000000", number});
  }
  ExpectRefusal({"run", kTwin, "-p", "x", "--repeat-penalty", "0"}, 2, {"--repeat-penalty"});
  ExpectRefusal({"run", kTwin, "-p", "x", "--gpu-layers", "-1"}, 2, {"--gpu-layers", "at least 0"});
}

TEST_F(CliTest, AGrammarThatIsNoneIsRefusedBeforeTheModelIsRead) {
  ASSERT_TRUE(WriteWholeFile(Path("deep.gbnf"), "root ::= " + std::string(20000, '(')).ok());
  ExpectRefusal({"run", "no-such-model", "-p", "x", "--grammar-file", Path("deep.gbnf")}, 1, {"deep.gbnf", "nested"});
}

TEST_F(CliTest, PenaltiesMayLookAtTheWholeContext) {
  auto flags = kRunTwin;
  flags.insert(flags.end(), {"--repeat-last-n", "-1", "--repeat-penalty", "1.2"});
  const Outcome whole = Espalier(flags);
  EXPECT_EQ(whole.code, 0) << whole.err;
  flags[flags.size() - 3] = "4096";
  EXPECT_EQ(Espalier(flags).out, whole.out) << "more than there is";
}

// Runs in a pseudo-terminal of 80x24 and returns what it wrote there.
std::string OnATerminal(const std::vector<std::string>& arguments, bool colour) {
  int master = -1;
  winsize size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  const pid_t child = ::forkpty(&master, nullptr, nullptr, &size);
  if (child == 0) {
    ::setenv("TERM", "xterm-256color", 1);
    colour ? ::unsetenv("NO_COLOR") : ::setenv("NO_COLOR", "1", 1);
    Execute(arguments);
  }
  std::string screen;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(master, buffer, sizeof(buffer))) > 0;) {
    screen.append(buffer, static_cast<size_t>(n));
  }
  ::close(master);
  EXPECT_EQ(ExitCode(child), 0) << screen;
  return screen;
}

TEST_F(CliTest, ATerminalShowsThePanelAndIsGivenBack) {
  for (const bool colour : {false, true}) {
    const std::string screen = OnATerminal(kRunTwin + std::vector<std::string>{"--memory-budget", "75%"}, colour);
    EXPECT_NE(screen.find(" attention "), std::string::npos);
    EXPECT_NE(screen.find("token 8/8"), std::string::npos);
    EXPECT_NE(screen.find("(75%)"), std::string::npos);
    const std::string set_region = "\x1b[1;18r";
    const std::string reset_region = "\x1b[r";
    ASSERT_NE(screen.find(set_region), std::string::npos);
    EXPECT_GT(screen.rfind(reset_region), screen.rfind(set_region)) << "the scroll region must be lifted at the end";
    EXPECT_EQ(screen.find("\x1b[32m") != std::string::npos, colour);
  }
  const std::string plain = OnATerminal(kRunTwin + std::vector<std::string>{"--no-display"}, true);
  EXPECT_EQ(plain.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace espalier::test
