#include "model/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <numbers>
#include <span>
#include <thread>

#include "base/bytes.h"
#include "base/check.h"
#include "base/file.h"
#include "model/architecture.h"
#include "model/file_type.h"
#include "model/gguf_writer.h"

namespace espalier {
namespace {

constexpr int kSpecialTokens = 3;  // unknown, begin, end
constexpr int kByteTokens = 256;
// Floats that one thread makes and quantises at a time.
constexpr int64_t kChunkElements = int64_t{1} << 18;

// xoroshiro128+, seeded per row: any thread can make any row.
class RowRandom {
 public:
  RowRandom(uint64_t seed, uint64_t tensor, uint64_t row) {
    state_[0] = Mix(Mix(seed) ^ tensor);
    state_[1] = Mix(state_[0] ^ Mix(row + 1)) | 1;  // never all zeros
    state_[0] = Mix(state_[1]);
  }

  // The sum of four uniform numbers: mean 0, variance 1, bounded by 3.5, one draw. Weights need no better tail.
  float Normal() {
    const uint64_t bits = Next();
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      sum += static_cast<int64_t>((bits >> (16 * i)) & 0xffff);
    }
    return static_cast<float>(sum - 2 * 0xffff) * (std::numbers::sqrt3_v<float> / 65536.0f);
  }
  bool Coin() { return (Next() >> 63) != 0; }

 private:
  static uint64_t Mix(uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  static uint64_t Rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t Next() {
    const uint64_t a = state_[0];
    uint64_t b = state_[1];
    const uint64_t result = a + b;
    b ^= a;
    state_[0] = Rotate(a, 24) ^ b ^ (b << 16);
    state_[1] = Rotate(b, 37);
    return result;
  }

  uint64_t state_[2];
};

uint64_t HashName(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

struct PlannedTensor {
  std::string name;
  TensorRole role;
  std::array<int64_t, 4> ne;
  ggml_type type;
  bool zero = false;

  int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
  int n_dims() const { return ne[1] > 1 ? 2 : 1; }
  uint64_t bytes() const { return static_cast<uint64_t>(rows()) * ggml_row_size(type, ne[0]); }
};

// How a tensor's elements are drawn. With these deviations the residual stream keeps its order of magnitude over the
// layers, attention is neither uniform nor one-hot, and each block changes the logits visibly.
struct Distribution {
  float mean = 0;
  float deviation = 0;
  bool random_sign = false;
};

Distribution DistributionOf(const PlannedTensor& tensor, const HyperParameters& h) {
  const float per_row = 1.0f / std::sqrt(static_cast<float>(tensor.ne[0]));
  const float head = 2.5f / std::sqrt(static_cast<float>(h.n_embd));
  // A tied embedding has the small deviation of an output head; the blocks follow, or it would drown in them.
  const float stream = h.tied_output ? head : 1.0f;
  const float per_layer = stream / std::sqrt(2.0f * static_cast<float>(h.n_layer));
  switch (tensor.role) {
    case TensorRole::kTokenEmbedding:
      return {0, stream};
    case TensorRole::kOutput:
      return {0, head};
    case TensorRole::kQuery:
    case TensorRole::kKey:
    case TensorRole::kFfnGate:
    case TensorRole::kFfnUp:
      return {0, 1.5f * per_row};
    case TensorRole::kValue:
      return {0, per_row};
    case TensorRole::kAttentionOutput:
      return {0, 4 * per_layer * per_row};
    case TensorRole::kFfnDown:
      return {0, 2 * per_layer * per_row};
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
    case TensorRole::kFfnGateBias:
    case TensorRole::kFfnUpBias:
      return {0, 0.5f};
    case TensorRole::kAttentionOutputBias:
    case TensorRole::kFfnDownBias:
      return {0, 0.5f * per_layer};
    // With a tied head every token would predict itself, were the signs not scrambled before the head.
    case TensorRole::kOutputNorm:
      return {1, 0.1f, h.tied_output};
    default:
      return {1, 0.1f};
  }
}

// Llama 3's division of rope frequencies: long wavelengths are stretched 32-fold, short ones kept, those between eased.
std::vector<float> RopeFrequencyFactors(int n_rot, float freq_base) {
  constexpr float kFactor = 32, kLow = 1, kHigh = 4, kOriginalContext = 8192;
  std::vector<float> factors;
  for (int i = 0; i < n_rot; i += 2) {
    const float wavelength =
        2 * std::numbers::pi_v<float> * std::pow(freq_base, static_cast<float>(i) / static_cast<float>(n_rot));
    const float turns = kOriginalContext / wavelength;
    const float smooth = std::clamp((turns - kLow) / (kHigh - kLow), 0.0f, 1.0f);
    factors.push_back(1.0f / ((1 - smooth) / kFactor + smooth));
  }
  return factors;
}

bool IsBias(TensorRole role) {
  switch (role) {
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
    case TensorRole::kAttentionOutputBias:
    case TensorRole::kFfnGateBias:
    case TensorRole::kFfnUpBias:
    case TensorRole::kFfnDownBias:
      return true;
    default:
      return false;
  }
}

// Tensors that are asked for must be some that the architecture knows.
Status CheckOptionalTensors(const RandomModelOptions& options, const Architecture& architecture) {
  const auto has = [&](auto&& wanted) {
    const auto in = [&](std::span<const TensorSpec> specs) {
      return std::any_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) { return wanted(spec.role); });
    };
    return in(architecture.attention) || in(architecture.ffn) || in(architecture.globals);
  };
  if (options.rope_freq_factors && !has([](TensorRole role) { return role == TensorRole::kRopeFrequencyFactors; })) {
    return InvalidArgument(
        fmt::format("model to generate: frequency factors: architecture {} has none", architecture.name));
  }
  if (options.biases && !has(IsBias)) {
    return InvalidArgument(fmt::format("model to generate: biases: architecture {} has none", architecture.name));
  }
  return Status::Ok();
}

Result<HyperParameters> ShapeOf(const RandomModelOptions& o) {
  HyperParameters h;
  const auto bad = [](const char* what, std::string_view expected, int64_t found) {
    return InvalidArgument(fmt::format("model to generate: {}: expected {}, found {}", what, expected, found));
  };
  struct Bound {
    const char* what;
    int value, lowest, highest;
  };
  const int n_head_kv = o.n_head_kv == 0 ? o.n_head : o.n_head_kv;
  for (const Bound& b : {Bound{"layers", o.n_layer, 1, 512}, Bound{"embedding length", o.n_embd, 2, 1 << 16},
                         Bound{"feed-forward length", o.n_ff, 2, 1 << 18}, Bound{"heads", o.n_head, 1, 1 << 12},
                         Bound{"KV heads", n_head_kv, 1, 1 << 12}, Bound{"head size", o.head_dim, 0, 1 << 12},
                         Bound{"vocabulary", o.n_vocab, kSpecialTokens + kByteTokens + 1, 1 << 20},
                         Bound{"context", o.n_ctx, 1, 1 << 30}, Bound{"threads", o.n_threads, 1, 1024}}) {
    if (b.value < b.lowest || b.value > b.highest) {
      return bad(b.what, fmt::format("{} to {}", b.lowest, b.highest), b.value);
    }
  }
  if (o.n_head % n_head_kv != 0) {
    return bad("KV heads", fmt::format("a divisor of the {} heads", o.n_head), n_head_kv);
  }
  if (o.head_dim == 0 && o.n_embd % o.n_head != 0) {
    return bad("embedding length", fmt::format("a multiple of the {} heads", o.n_head), o.n_embd);
  }
  h.head_dim = o.head_dim == 0 ? o.n_embd / o.n_head : o.head_dim;
  if (h.head_dim % 2 != 0) {
    return bad("head size", "an even number", h.head_dim);
  }
  for (const BlockId block : o.zero) {
    if (block.index < 0 || block.index >= 2 * o.n_layer) {
      return bad("index of a block of zeros", fmt::format("0 to {}", 2 * o.n_layer - 1), block.index);
    }
  }
  h.n_layer = o.n_layer;
  h.n_embd = o.n_embd;
  h.n_ff = o.n_ff;
  h.n_head = o.n_head;
  h.n_head_kv = n_head_kv;
  h.n_vocab = o.n_vocab;
  h.n_ctx_train = o.n_ctx;
  h.rms_epsilon = 1e-5f;
  h.tied_output = o.tied_output;
  h.rope.n_rot = h.head_dim;
  h.rope.freq_base = o.rope_freq_factors ? 500000.0f : 10000.0f;
  return h;
}

class Generator {
 public:
  Generator(const RandomModelOptions& options, const Architecture& architecture, const FileType& type,
            const HyperParameters& hparams)
      : options_(options), architecture_(architecture), type_(type), h_(hparams) {
    PlanGroup(architecture.globals, "", 0, false);
    for (int il = 0; il < h_.n_layer; ++il) {
      const std::string prefix = fmt::format("blk.{}.", il);
      PlanGroup(architecture.attention, prefix, il, IsZero(BlockId::Attention(il)));
      PlanGroup(architecture.ffn, prefix, il, IsZero(BlockId::Ffn(il)));
    }
  }

  Result<RandomModelSummary> Write(const std::string& path) {
    ESPALIER_ASSIGN_OR_RETURN(const auto writer, AtomicFileWriter::Create(path));
    const std::vector<std::byte> metadata = Metadata();
    RandomModelSummary summary;
    summary.file_bytes = metadata.size();
    for (const PlannedTensor& tensor : tensors_) {
      summary.parameters += static_cast<uint64_t>(tensor.rows() * tensor.ne[0]);
      summary.file_bytes += RoundUp(tensor.bytes(), kGgufAlignment);
    }
    ESPALIER_RETURN_IF_ERROR(writer->Append(metadata));
    for (const PlannedTensor& tensor : tensors_) {
      ESPALIER_RETURN_IF_ERROR(WriteTensor(tensor, *writer, summary.file_bytes));
    }
    ESPALIER_CHECK(writer->size() == summary.file_bytes);
    if (options_.progress) {
      options_.progress(summary.file_bytes, summary.file_bytes);
    }
    ESPALIER_RETURN_IF_ERROR(writer->Commit());
    return summary;
  }

 private:
  bool IsZero(BlockId block) const {
    return std::find(options_.zero.begin(), options_.zero.end(), block) != options_.zero.end();
  }

  void PlanGroup(std::span<const TensorSpec> specs, const std::string& prefix, int il, bool zero) {
    for (const TensorSpec& spec : specs) {
      const bool wanted = spec.required || (spec.role == TensorRole::kOutput && !h_.tied_output) ||
                          (spec.role == TensorRole::kRopeFrequencyFactors && options_.rope_freq_factors) ||
                          (IsBias(spec.role) && options_.biases);
      if (!wanted) {
        continue;
      }
      const auto ne = TensorShape(spec, h_);
      const bool matrix = std::string_view(spec.shape).size() > 1;
      const ggml_type type = matrix ? MatrixType(type_, h_, spec.role, il, ne[0]) : GGML_TYPE_F32;
      const bool last = spec.role == TensorRole::kAttentionOutput || spec.role == TensorRole::kFfnDown ||
                        spec.role == TensorRole::kAttentionOutputBias || spec.role == TensorRole::kFfnDownBias;
      tensors_.push_back({prefix + spec.name, spec.role, ne, type, zero && last});
    }
  }

  std::vector<std::byte> Metadata() const;
  void SetHyperParameters(GgufHeader& header) const;
  void SetVocabulary(GgufHeader& header) const;
  Status WriteTensor(const PlannedTensor& tensor, AtomicFileWriter& writer, uint64_t total_bytes) const;
  void MakeRows(const PlannedTensor& tensor, int64_t first, int64_t count, std::span<std::byte> out) const;
  void FillRow(const PlannedTensor& tensor, int64_t row, std::span<float> out) const;

  const RandomModelOptions& options_;
  const Architecture& architecture_;
  const FileType& type_;
  const HyperParameters h_;
  std::vector<PlannedTensor> tensors_;
};

void Generator::SetHyperParameters(GgufHeader& header) const {
  const std::string prefix = std::string(architecture_.name) + ".";
  const auto set = [&](const char* key, int value) { header.SetUint32(prefix + key, static_cast<uint32_t>(value)); };
  header.SetText("general.architecture", architecture_.name);
  header.SetText("general.name",
                 fmt::format("random {} of {} layers, width {}", architecture_.name, h_.n_layer, h_.n_embd));
  header.SetUint32("general.file_type", static_cast<uint32_t>(type_.number));
  header.SetUint32("general.quantization_version", GGML_QNT_VERSION);
  set("vocab_size", h_.n_vocab);
  set("context_length", h_.n_ctx_train);
  set("embedding_length", h_.n_embd);
  set("block_count", h_.n_layer);
  set("feed_forward_length", h_.n_ff);
  set("attention.head_count", h_.n_head);
  set("attention.head_count_kv", h_.n_head_kv);
  set("attention.key_length", h_.head_dim);
  set("attention.value_length", h_.head_dim);
  set("rope.dimension_count", h_.rope.n_rot);
  header.SetFloat(prefix + "attention.layer_norm_rms_epsilon", h_.rms_epsilon);
  header.SetFloat(prefix + "rope.freq_base", h_.rope.freq_base);
}

// SentencePiece with all bytes, so that any text can be tokenized; the words are never in it.
void Generator::SetVocabulary(GgufHeader& header) const {
  enum : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {kUnknown, kControl, kControl};
  for (int byte = 0; byte < kByteTokens; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(kByte);
  }
  for (int i = kSpecialTokens + kByteTokens; i < h_.n_vocab; ++i) {
    tokens.push_back(fmt::format("\u2581t{}", i));
    types.push_back(kNormal);
  }
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.size(); ++i) {
    scores.push_back(-static_cast<float>(i));
  }
  header.SetText("tokenizer.ggml.model", "llama");
  header.SetText("tokenizer.ggml.pre", "default");
  header.SetTexts("tokenizer.ggml.tokens", tokens);
  header.SetFloats("tokenizer.ggml.scores", scores);
  header.SetInt32s("tokenizer.ggml.token_type", types);
  header.SetUint32("tokenizer.ggml.unknown_token_id", 0);
  header.SetUint32("tokenizer.ggml.bos_token_id", 1);
  header.SetUint32("tokenizer.ggml.eos_token_id", 2);
}

std::vector<std::byte> Generator::Metadata() const {
  GgufHeader header;
  SetHyperParameters(header);
  SetVocabulary(header);
  for (const PlannedTensor& planned : tensors_) {
    header.AddTensor(planned.name, planned.type, std::span(planned.ne).first(static_cast<size_t>(planned.n_dims())));
  }
  return header.Bytes();
}

void Generator::FillRow(const PlannedTensor& tensor, int64_t row, std::span<float> out) const {
  if (tensor.zero) {
    std::fill(out.begin(), out.end(), 0.0f);
    return;
  }
  if (tensor.role == TensorRole::kRopeFrequencyFactors) {
    const auto factors = RopeFrequencyFactors(h_.rope.n_rot, h_.rope.freq_base);
    std::copy(factors.begin(), factors.end(), out.begin());
    return;
  }
  const Distribution d = DistributionOf(tensor, h_);
  RowRandom random(options_.seed, HashName(tensor.name), static_cast<uint64_t>(row));
  for (float& value : out) {
    value = d.mean + d.deviation * random.Normal();
  }
  if (d.random_sign) {
    for (float& value : out) {
      value = random.Coin() ? value : -value;
    }
  }
}

void Generator::MakeRows(const PlannedTensor& tensor, int64_t first, int64_t count, std::span<std::byte> out) const {
  const int64_t row = tensor.ne[0];
  std::vector<float> values(static_cast<size_t>(count * row));
  for (int64_t i = 0; i < count; ++i) {
    FillRow(tensor, first + i, std::span(values).subspan(static_cast<size_t>(i * row), static_cast<size_t>(row)));
  }
  ggml_quantize_chunk(tensor.type, values.data(), out.data(), 0, count, row, /*imatrix=*/nullptr);
}

// Row by row chunks go to threads; what they made is appended in order.
Status Generator::WriteTensor(const PlannedTensor& tensor, AtomicFileWriter& writer, uint64_t total_bytes) const {
  const int64_t rows_per_chunk = std::max<int64_t>(1, kChunkElements / tensor.ne[0]);
  const uint64_t row_bytes = ggml_row_size(tensor.type, tensor.ne[0]);
  const int64_t batch_rows = std::min<int64_t>(tensor.rows(), rows_per_chunk * options_.n_threads * 4);
  std::vector<std::byte> out(static_cast<uint64_t>(batch_rows) * row_bytes);
  for (int64_t start = 0; start < tensor.rows(); start += batch_rows) {
    const int64_t end = std::min(start + batch_rows, tensor.rows());
    std::atomic<int64_t> next = start;
    const auto work = [&] {
      for (int64_t at = next.fetch_add(rows_per_chunk); at < end; at = next.fetch_add(rows_per_chunk)) {
        const int64_t count = std::min(rows_per_chunk, end - at);
        MakeRows(tensor, at, count,
                 std::span(out).subspan(static_cast<uint64_t>(at - start) * row_bytes,
                                        static_cast<uint64_t>(count) * row_bytes));
      }
    };
    const int64_t n_chunks = (end - start + rows_per_chunk - 1) / rows_per_chunk;
    {
      std::vector<std::jthread> helpers;
      for (int64_t t = 1; t < std::min<int64_t>(options_.n_threads, n_chunks); ++t) {
        helpers.emplace_back(work);
      }
      work();
    }
    ESPALIER_RETURN_IF_ERROR(writer.Append(std::span(out).first(static_cast<uint64_t>(end - start) * row_bytes)));
    if (options_.progress) {
      options_.progress(writer.size(), total_bytes);
    }
  }
  return PadTensor(writer);
}

}  // namespace

Result<RandomModelSummary> GenerateRandomModel(const RandomModelOptions& options, const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(options.architecture));
  ESPALIER_ASSIGN_OR_RETURN(const FileType* type, ParseFileType(options.type));
  ESPALIER_ASSIGN_OR_RETURN(const HyperParameters hparams, ShapeOf(options));
  ESPALIER_RETURN_IF_ERROR(CheckOptionalTensors(options, *architecture));
  return Generator(options, *architecture, *type, hparams).Write(path);
}

}  // namespace espalier
