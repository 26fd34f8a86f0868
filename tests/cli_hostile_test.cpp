// What the program does with files that are broken or meant to break it: one line that names the file, on stderr, an
// exit code that is not 0, and nothing on stdout. Never a signal.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "support/gguf_bytes.h"
#include "support/models.h"
#include "support/paths.h"

namespace espalier::test {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;  // 128 + signal, as the shell has it
  std::string output;
  std::string error;
};

class Hostile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(ScratchFolder()) / ("hostile-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override {
    fs::permissions(folder_, fs::perms::owner_all);
    fs::remove_all(folder_);
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::string Write(const std::string& name, const std::string& bytes) const {
    EXPECT_TRUE(WriteWholeFile(Path(name), bytes).ok());
    return Path(name);
  }

  // `arguments` in shell syntax; `limits` are ulimit commands in front.
  Outcome Run(const std::string& arguments, const std::string& limits = "") const {
    const std::string command = limits + "'" + ProgramPath() + "' " + arguments + " > '" + Path("stdout") + "' 2> '" +
                                Path("stderr") + "' < /dev/null";
    const int status = std::system(command.c_str());
    Outcome outcome;
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    outcome.output = *ReadWholeFile(Path("stdout"), 1 << 24);
    outcome.error = *ReadWholeFile(Path("stderr"), 1 << 24);
    return outcome;
  }

  void ExpectOneLine(const std::string& arguments, const std::vector<std::string>& parts,
                     const std::string& limits = "") const {
    SCOPED_TRACE(arguments);
    const Outcome outcome = Run(arguments, limits);
    EXPECT_EQ(outcome.exit_code, 1) << outcome.error;
    EXPECT_EQ(outcome.output, "");
    EXPECT_EQ(outcome.error.rfind("espalier: ", 0), 0u) << outcome.error;
    EXPECT_EQ(outcome.error.find('\n') + 1, outcome.error.size()) << outcome.error;
    for (const std::string& part : parts) {
      EXPECT_NE(outcome.error.find(part), std::string::npos) << "expected: " << part << "\nfound: " << outcome.error;
    }
  }

  fs::path folder_;
};

std::string Spoilt(const std::function<void(GgufBytes&)>& spoil) {
  GgufBytes file = TinyLlama();
  spoil(file);
  return file.Build();
}

TEST_F(Hostile, EveryCommandRefusesABrokenModelInOneLine) {
  const std::string model = Write("broken.gguf", Spoilt([](GgufBytes& f) { f.n_tensors = uint64_t{1} << 60; }));
  const std::string text = Write("text.txt", std::string(10000, 'a'));
  for (const std::string& command :
       {"inspect '" + model + "'", "inspect '" + model + "' --json", "run '" + model + "' -p hello -n 1",
        "memory '" + model + "' --workload 1x16", "memory '" + model + "' --workload 1x16 --json",
        "eval '" + model + "' --text '" + text + "'", "eval '" + model + "' --text '" + text + "' --json",
        "bench '" + model + "'", "bench '" + model + "' --json"}) {
    ExpectOneLine(command, {"broken.gguf", "tensor count", "1152921504606846976"});
  }
}

TEST_F(Hostile, FilesThatAreNoModel) {
  const auto reference = ReadWholeFile(ReferencePath(), uint64_t{1} << 30);
  ASSERT_TRUE(reference.ok());
  struct Case {
    const char* name;
    std::string bytes;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {"empty.gguf", "", {"empty", "expected a GGUF file, found 0 bytes"}},
      {"text.gguf", "Call me Ishmael.", {"not a GGUF", "'Call'"}},
      {"count.gguf", reference->substr(0, 12), {"truncated", "the tensor count needs 8 bytes at offset 8, found 4"}},
      {"header.gguf", reference->substr(0, 20), {"truncated", "the metadata count needs 8 bytes"}},
      {"table.gguf", reference->substr(0, 100), {"truncated", "146 tensors needs at least", "at offset 24, found 76"}},
      {"metadata.gguf",
       reference->substr(0, 50000),
       {"truncated", "8192 elements of key 'tokenizer.ggml.tokens' needs at least 65536 bytes", "found 489"}},
      {"half.gguf", reference->substr(0, reference->size() / 2), {"truncated", "'blk."}},
      {"short.gguf", reference->substr(0, reference->size() - 1000), {"truncated", "'blk.15."}},
      {"endian.gguf", Spoilt([](auto& f) { f.version = 0x03000000; }), {"big endian"}},
      {"keys.gguf", Spoilt([](auto& f) { f.n_entries = ~uint64_t{0}; }), {"metadata count"}},
      {"string.gguf",
       Spoilt([](auto& f) {
         f.Set("x", {8, Raw(uint64_t{1} << 60)});
       }),
       {"key 'x'"}},
      {"array.gguf", Spoilt([](auto& f) { f.Set("x", Array(4, uint64_t{1} << 61, "")); }), {"key 'x'"}},
      {"offset.gguf", Spoilt([](auto& f) { f.Tensor("output.weight").offset = ~uint64_t{31}; }), {"'output.weight'"}},
      {"overlap.gguf", Spoilt([](auto& f) { f.Tensor("output.weight").offset = 0; }), {"'output.weight'", "overlap"}},
      {"arch.gguf", Spoilt([](auto& f) { f.Set("general.architecture", Str("mamba")); }), {"llama", "'mamba'"}},
      {"lines.gguf", Spoilt([](auto& f) { f.Set("general.architecture", Str("a\nb\x1b[2J")); }), {"'a?b?[2J'"}},
      {"layers.gguf", Spoilt([](auto& f) { f.Set("llama.block_count", U32(400)); }), {"'blk.1.attn_norm.weight'"}},
      {"tokens.gguf",
       Spoilt([](auto& f) {
         f.Set("tokenizer.ggml.tokens", Strings({"a", "a", "a", "a"}));
       }),
       {"tokenizer.ggml.tokens", "twice"}},
      {"bos.gguf", Spoilt([](auto& f) { f.Set("tokenizer.ggml.bos_token_id", U32(99)); }), {"bos_token_id", "99"}},
      {"bytes.gguf", Spoilt([](auto& f) { f.Set("general.name", Str("no bytes in the vocabulary")); }), {}},
  };
  for (const Case& c : cases) {
    const std::string path = Write(c.name, c.bytes);
    std::vector<std::string> parts = c.parts;
    parts.push_back(c.name);
    ExpectOneLine("run '" + path + "' -p hello -n 1", parts);
  }
}

TEST_F(Hostile, PathsThatAreNoFile) {
  ExpectOneLine("inspect '" + Path("missing.gguf") + "'", {"missing.gguf"});
  ExpectOneLine("inspect '" + folder_.string() + "'", {folder_.string(), "regular file, found a folder"});
  ExpectOneLine("inspect /dev/zero", {"/dev/zero", "regular file, found a device"});
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  ExpectOneLine("inspect '" + Path("pipe") + "'", {"pipe", "regular file, found a pipe"});  // nobody writes into it
}

TEST_F(Hostile, WhatCannotBeWrittenLeavesTheOldFile) {
  const std::string shape = "generate-model --layers 2 --embedding-length 256 --feed-forward-length 512 --heads 4 ";
  ExpectOneLine(shape + "-o '" + Path("missing/model.gguf") + "'", {"missing/model.gguf"});
  const std::string old = Write("old.gguf", "what was there before");
  // A file size limit stands in for a full disk; the shell must not let its signal through.
  ExpectOneLine(shape + "-o '" + old + "'", {"old.gguf", "writing failed"}, "trap '' XFSZ; ulimit -f 256; ");
  EXPECT_EQ(*ReadWholeFile(old, 1000), "what was there before");
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    files += entry.path().filename().string().find("gguf") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(files, 1);
}

// {fmt} throws where it cannot print; the program was aborted by a log without room.
TEST_F(Hostile, FullStreamsAreNoReasonToCrash) {
  const auto exit_code = [&](const std::string& arguments) {
    const std::string command = "'" + ProgramPath() + "' " + arguments + " < /dev/null";
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  };
  const std::string error = "2> '" + Path("stderr") + "'";
  for (const char* arguments :
       {"--help", "--version", "run --help", "inspect reference", "inspect reference --json", "memory reference --json",
        "run reference -p x -n 2", "run reference -p x -n 2 --json"}) {
    for (const char* full : {"> /dev/full ", ">&- "}) {
      EXPECT_EQ(exit_code(std::string(arguments) + " " + full + error), 1) << arguments << full;
      const std::string told = *ReadWholeFile(Path("stderr"), 1 << 20);
      EXPECT_NE(told.find("espalier: standard output: cannot write\n"), std::string::npos) << told;
    }
  }
  EXPECT_EQ(exit_code("run reference -p x -n 2 > '" + Path("stdout") + "' 2> /dev/full"), 0);
  EXPECT_NE(ReadWholeFile(Path("stdout"), 1 << 20)->size(), 0u);
  EXPECT_EQ(exit_code("inspect '" + Path("missing.gguf") + "' 2> /dev/full"), 1);
  EXPECT_EQ(exit_code("inspect '" + Path("missing.gguf") + "' 2>&-"), 1);
}

}  // namespace
}  // namespace espalier::test
