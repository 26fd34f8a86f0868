// make_seeds FOLDER: writes the hand-made seeds of gguf_fuzz and profile_fuzz to FOLDER/gguf and FOLDER/profile, each a
// valid file that shows the fuzzer one more part of the format.
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
  const std::pair<const char*, std::function<void(GgufBytes&)>> seeds[] = {
      {"plain", [](GgufBytes&) {}}, {"types", EveryType}, {"bpe", Bpe},
      {"sentences", Sentences},     {"yarn", Yarn},       {"biases", Biases},
      {"quantised", Quantised},     {"aligned", Aligned}, {"empty", Empty},
  };
  for (const auto& [name, edit] : seeds) {
    GgufBytes file = TinyLlama();
    edit(file);
    const auto status = espalier::WriteWholeFile(std::string(argv[1]) + "/gguf/" + name + ".gguf", file.Build());
    if (!status.ok()) {
      return Failed(status);
    }
  }
  const auto status = WriteProfileSeeds(std::string(argv[1]) + "/profile");
  return status.ok() ? 0 : Failed(status);
}
