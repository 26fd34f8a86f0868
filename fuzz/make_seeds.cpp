// make_seeds FOLDER: writes the hand-made seeds of gguf_fuzz, split_fuzz, profile_fuzz, plan_fuzz, trace_fuzz,
// http_fuzz and gbnf_fuzz to folders of these names in it, each a valid input that shows the fuzzer one more part of
// the format.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

#include "profile/journal.h"
#include "profile/profile_file.h"
#include "support/gguf_bytes.h"

namespace {

using namespace espalier::test;  // NOLINT: the vocabulary of hand-made files

void EveryType(GgufBytes& f) {
  f.Set("x.u8", U8(1));
  f.Set("x.i8", {1, Raw<int8_t>(-1)});
  f.Set("x.u16", {2, Raw<uint16_t>(1)});
  f.Set("x.i16", {3, Raw<int16_t>(-1)});
  f.Set("x.i32", I32(-1));
  f.Set("x.bool", Bool(1));
  f.Set("x.u64", U64(1));
  f.Set("x.i64", I64(-1));
  f.Set("x.f64", F64(0.5));
  f.Set("x.bools", Numbers<uint8_t>(7, {0, 1}));
  f.Set("x.doubles", Numbers<double>(12, {0.5, 1}));
}

void Bpe(GgufBytes& f) {
  f.Set("tokenizer.ggml.model", Str("gpt2"));
  f.Set("tokenizer.ggml.pre", Str("llama-bpe"));
  f.Set("tokenizer.ggml.tokens", Strings({"a", "b", "ab", "\u0120ab"}));
  f.Set("tokenizer.ggml.token_type", Ints({1, 3, 1, 4}));
  f.Set("tokenizer.ggml.merges", Strings({"a b", "\u0120 ab"}));
  f.Remove("tokenizer.ggml.scores");
}

void Sentences(GgufBytes& f) {
  f.Set("tokenizer.ggml.tokens", Strings({"<unk>", "<0x0A>", "</s>", "\u2581"}));
  f.Set("tokenizer.ggml.token_type", Ints({2, 6, 3, 1}));
  f.Set("tokenizer.ggml.add_bos_token", Bool(1));
  f.Set("tokenizer.ggml.add_eos_token", Bool(0));
  f.Set("tokenizer.ggml.add_space_prefix", Bool(0));
  f.Set("tokenizer.ggml.unknown_token_id", U32(0));
  f.Set("tokenizer.chat_template", Str("{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"));
}

void Yarn(GgufBytes& f) {
  f.Set("llama.rope.scaling.type", Str("yarn"));
  f.Set("llama.rope.scaling.factor", F32(4));
  f.Set("llama.rope.scaling.original_context_length", U32(16));
  f.Set("llama.rope.freq_base", F32(500000));
  f.Set("llama.attention.key_length", U32(4));
  f.Set("llama.attention.value_length", U32(4));
  f.Tensor("rope_freqs.weight").ne = {2};
}

void Biases(GgufBytes& f) {
  f.RemoveTensor("output.weight");
  f.Tensor("blk.0.attn_q.bias").ne = {8};
  f.Tensor("blk.0.attn_k.bias").ne = {4};
  f.Tensor("blk.0.attn_v.bias").ne = {4};
  f.Tensor("blk.0.attn_output.bias").ne = {8};
  f.Tensor("blk.0.ffn_down.bias").ne = {8};
}

void Quantised(GgufBytes& f) {
  f.Set("llama.feed_forward_length", U32(32));
  f.Set("general.file_type", U32(2));
  f.Tensor("blk.0.ffn_gate.weight").ne = {8, 32};
  f.Tensor("blk.0.ffn_up.weight").ne = {8, 32};
  f.Tensor("blk.0.ffn_down.weight").ne = {32, 8};
  f.Tensor("blk.0.ffn_down.weight").type = GGML_TYPE_Q4_0;
  f.Tensor("blk.0.attn_q.weight").type = GGML_TYPE_F16;
}

void Aligned(GgufBytes& f) {
  f.version = 2;
  f.alignment = 64;
  f.Set("general.alignment", U32(64));
  f.Set("split.count", {2, Raw<uint16_t>(1)});
}

// No tensors: the shortest thing that is a GGUF.
void Empty(GgufBytes& f) {
  f.entries.clear();
  f.tensors.clear();
}

// Three layers of width 2, one of everything.
espalier::Profile SmallProfile() {
  using namespace espalier;  // NOLINT: it is all about one object
  Profile profile;
  profile.model_fingerprint = "00112233445566778899aabbccddeeff";
  profile.model_name = "a model";
  profile.n_layer = 3;
  profile.n_embd = 2;
  profile.means = {.n_embd = 2, .values = std::vector<float>(12, 0.5f)};
  const MeasurementSet set = {.corpus = "book",
                              .tokens_hash = "aa",
                              .protocol = "gptq",
                              .window_tokens = 4,
                              .n_windows = 2,
                              .tokens_scored = 6,
                              .key_type = "f16",
                              .value_type = "f16"};
  const std::vector<WindowLoss> losses = {{1, 2}, {3, 4}};
  Archive& archive = profile.ArchiveFor(set);
  for (const char* plan : {"a0=0", "a0=0 f2=0.5", "dense"}) {
    archive.Add(*Plan::Parse(plan, 3), 0, losses);
  }
  profile.primary_set = set.Key();
  profile.Put(Ranking{"density", 64, 1, {{0}, {1}, {2}, {3}, {4}, {5}}, {1, 2, 3, 4, 5, 6}});
  profile.Put(TextSketch{"book", "aa", {1, 2}});
  return profile;
}

espalier::Status WriteProfileSeeds(const std::string& folder) {
  using namespace espalier;  // NOLINT: likewise
  const Profile profile = SmallProfile();
  ESPALIER_RETURN_IF_ERROR(WriteProfile(profile, folder + "/profile"));
  Profile empty = profile;
  empty.archives.clear();
  empty.rankings.clear();
  empty.texts.clear();
  empty.means = {};
  ESPALIER_RETURN_IF_ERROR(WriteProfile(empty, folder + "/empty"));
  std::filesystem::remove(folder + "/journal");
  ESPALIER_ASSIGN_OR_RETURN(const auto journal, Journal::Open(folder + "/journal"));
  ESPALIER_RETURN_IF_ERROR(journal->Start(profile, 0));
  const Archive& archive = profile.archives.front();
  for (const ArchiveRow& row : archive.rows()) {
    ESPALIER_RETURN_IF_ERROR(journal->Append(archive.set(), row.plan, 0, row.windows));
  }
  return Status::Ok();
}

espalier::Status WriteModels(const std::string& folder) {
  const std::pair<const char*, std::function<void(GgufBytes&)>> seeds[] = {
      {"plain", [](GgufBytes&) {}}, {"types", EveryType}, {"bpe", Bpe},
      {"sentences", Sentences},     {"yarn", Yarn},       {"biases", Biases},
      {"quantised", Quantised},     {"aligned", Aligned}, {"empty", Empty},
  };
  for (const auto& [name, edit] : seeds) {
    GgufBytes file = TinyLlama();
    edit(file);
    ESPALIER_RETURN_IF_ERROR(espalier::WriteWholeFile(folder + "/" + name + ".gguf", file.Build()));
  }
  return espalier::Status::Ok();
}

// The files of one model, one behind the other. Small: no vocabulary, and the same tensors in each way to split them.
espalier::Status WriteSplits(const std::string& folder) {
  const std::vector<size_t> splits[] = {{1, 2}, {0, 3}, {1, 1, 1}, {3}};
  for (const std::vector<size_t>& counts : splits) {
    std::string bytes;
    for (size_t no = 0; no < counts.size(); ++no) {
      GgufBytes part;
      if (no == 0) {
        part.Set("general.architecture", Str("llama"));
      }
      part.Set("split.no", U16(static_cast<uint16_t>(no)));
      part.Set("split.count", U16(static_cast<uint16_t>(counts.size())));
      part.Set("split.tensors.count", I32(3));
      for (size_t i = 0; i < counts[no]; ++i) {
        part.Tensor(std::string(1, static_cast<char>('a' + no)) + std::to_string(i)).ne = {4, 2};
      }
      bytes += part.Build();
    }
    ESPALIER_RETURN_IF_ERROR(espalier::WriteWholeFile(
        folder + "/" + std::to_string(counts.size()) + "-" + std::to_string(counts[0]), bytes));
  }
  return espalier::Status::Ok();
}

using Texts = std::vector<std::string>;

// The first byte is the number of layers, less one.
const Texts& Plans() {
  static const Texts texts = {
      "\x0f"
      R"({"keep": {"a3": 0, "f9": 0.5}, "loss": [1, {"a3": 2}]})",
      "\x0f"
      "a3=0 f9=0.5"};
  return texts;
}

const Texts& Traces() {
  static const std::string head =
      R"({"trace": "espalier-load-trace", "version": 1, "name": "two", "seed": 9, "duration_seconds": 60.5})"
      "\n";
  static const Texts texts = {
      head + R"({"at": 2, "prompt_tokens": 120, "max_tokens": 64})"
             "\r\n\n"
             R"({"at": 1.25, "prompt_tokens": 12, "max_tokens": 6, "prompt_seed": 7, "shared_prefix_tokens": 4})",
      head + R"({"at": 30, "memory_budget": "60%"})"
             "\n"
             R"({"at": 10, "memory_budget": 734003200})"
             "\n"
             R"({"at": 10, "memory_budget": "2.5 GiB"})",
      head};
  return texts;
}

// The first byte is how they are cut.
const Texts& Connections() {
  static const Texts texts = {
      "aGET /health?x=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: b c\r\n\r\n",
      "\x05POST /v1/%63ompletions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n{ }",
      "\x02POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0\r\nX: y\r\n\r\n",
      "\x10GET http://a:80/b HTTP/1.1\r\nHost: a\r\n\r\n\r\nHEAD /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
      "\x20GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
  };
  return texts;
}

// As llama.cpp's examples write them.
const Texts& Grammars() {
  static const Texts texts = {
      "root ::= \"yes\" | \"no\"",
      "root ::= (expr \"=\" ws term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= num | \"(\" expr \")\" ws\n"
      "num ::= [0-9]+ ws\nws ::= [ \\t\\n]*",
      "root ::= \"\\x41\\u00e9\" [^\\x00-\\x1f] \"a\"{3} \"b\"{2,} \"c\"{0,4} # end\n",
      "root ::= <end> | !<[7]> . a?\r\na ::= \"\" | \"x\" a",
  };
  return texts;
}

espalier::Status WriteTexts(const std::string& folder, const Texts& texts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    ESPALIER_RETURN_IF_ERROR(espalier::WriteWholeFile(folder + "/" + std::to_string(i), texts[i]));
  }
  return espalier::Status::Ok();
}

espalier::Status WriteAll(const std::string& folder) {
  for (const char* name : {"gguf", "split", "profile", "plan", "trace", "http", "gbnf"}) {
    std::filesystem::create_directories(folder + "/" + name);
  }
  ESPALIER_RETURN_IF_ERROR(WriteModels(folder + "/gguf"));
  ESPALIER_RETURN_IF_ERROR(WriteSplits(folder + "/split"));
  ESPALIER_RETURN_IF_ERROR(WriteProfileSeeds(folder + "/profile"));
  ESPALIER_RETURN_IF_ERROR(WriteTexts(folder + "/plan", Plans()));
  ESPALIER_RETURN_IF_ERROR(WriteTexts(folder + "/trace", Traces()));
  ESPALIER_RETURN_IF_ERROR(WriteTexts(folder + "/http", Connections()));
  return WriteTexts(folder + "/gbnf", Grammars());
}

int Failed(const espalier::Status& status) {
  std::fprintf(stderr, "make_seeds: %s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "make_seeds: expected one folder\n");
    return 2;
  }
  const auto status = WriteAll(argv[1]);
  return status.ok() ? 0 : Failed(status);
}
