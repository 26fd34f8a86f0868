#include "text/libllama_reference.h"

#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <thread>

#include "text/libllama.h"

namespace espalier {
namespace {

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};

Result<ggml_type> FindType(const std::string& name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    const char* type_name = ggml_type_name(type);
    if (type_name != nullptr && name == type_name) {
      return type;
    }
  }
  return InvalidArgument(fmt::format("KV type '{}': unknown to ggml; expected for example f16 or q8_0", name));
}

Status CheckOptions(const LibllamaOptions& options) {
  if (options.n_ctx < 0 || options.n_ctx > (int64_t{1} << 27) || options.n_ubatch < 1 || options.n_ubatch > 65536 ||
      options.n_sequences < 1 || options.n_sequences > static_cast<int>(llama_max_parallel_sequences()) ||
      options.n_threads < 0 || options.n_threads > 1024) {
    return InvalidArgument(fmt::format(
        "libllama: context {}, ubatch {}, {} sequences, {} threads: expected at most 2^27, 65536, {} and 1024",
        options.n_ctx, options.n_ubatch, options.n_sequences, options.n_threads, llama_max_parallel_sequences()));
  }
  return Status::Ok();
}

}  // namespace

struct LibllamaReference::Native {
  std::unique_ptr<llama_model, ModelDeleter> model;
  std::unique_ptr<llama_context, ContextDeleter> context;  // goes before the model
};

LibllamaReference::LibllamaReference(std::unique_ptr<Native> native, const LibllamaOptions& options)
    : native_(std::move(native)),
      options_(options),
      n_vocab_(llama_vocab_n_tokens(llama_model_get_vocab(native_->model.get()))) {}

LibllamaReference::~LibllamaReference() = default;

Result<std::unique_ptr<LibllamaReference>> LibllamaReference::Open(const std::string& path,
                                                                   const LibllamaOptions& options) {
  StartLibllama();
  ClearLibllamaError();
  ESPALIER_RETURN_IF_ERROR(CheckOptions(options));
  ESPALIER_ASSIGN_OR_RETURN(const ggml_type key_type, FindType(options.key_type));
  ESPALIER_ASSIGN_OR_RETURN(const ggml_type value_type, FindType(options.value_type));
  ggml_backend_dev_t devices[] = {nullptr, nullptr};
  if (!options.device.empty() && options.device != "CPU") {
    devices[0] = ggml_backend_dev_by_name(options.device.c_str());
    if (devices[0] == nullptr) {
      return NotFound(fmt::format("libllama: no device '{}'", options.device));
    }
  }
  auto native = std::make_unique<Native>();
  llama_model_params model_params = llama_model_default_params();
  model_params.devices = devices;
  model_params.n_gpu_layers = devices[0] == nullptr ? 0 : -1;
  model_params.use_extra_bufts = options.repack;
  native->model.reset(llama_model_load_from_file(path.c_str(), model_params));
  if (!native->model) {
    return Unsupported(fmt::format("{}: libllama cannot load the model: {}", path, LibllamaErrorOr("no reason given")));
  }
  const int n_threads =
      options.n_threads > 0 ? options.n_threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(options.n_ctx);
  params.n_batch = static_cast<uint32_t>(options.n_ubatch);
  params.n_ubatch = params.n_batch;
  params.n_seq_max = static_cast<uint32_t>(options.n_sequences);
  params.n_outputs_max = options.all_logits ? 0 : params.n_seq_max;
  params.n_threads = n_threads;
  params.n_threads_batch = n_threads;
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = key_type;
  params.type_v = value_type;
  params.kv_unified = options.unified_kv;
  params.no_perf = true;
  native->context.reset(llama_init_from_model(native->model.get(), params));
  if (!native->context) {
    return Unsupported(fmt::format("{}: libllama cannot run the model: {}", path, LibllamaErrorOr("no reason given")));
  }
  LibllamaOptions filled = options;
  // libllama lowers the batch to the context; a longer one would abort the process.
  filled.n_ubatch = std::min(options.n_ubatch, static_cast<int>(llama_n_batch(native->context.get())));
  return std::unique_ptr<LibllamaReference>(new LibllamaReference(std::move(native), filled));
}

Status LibllamaReference::DecodePart(std::span<const LibllamaToken> part) {
  const size_t n = part.size();
  std::vector<llama_token> tokens(n);
  std::vector<llama_seq_id> sequences(n);
  std::vector<llama_seq_id*> sequence_lists(n);
  std::vector<int32_t> sequence_counts(n, 1);
  std::vector<int8_t> wanted(n);
  for (size_t i = 0; i < n; ++i) {
    tokens[i] = part[i].token;
    sequences[i] = part[i].sequence;
    sequence_lists[i] = &sequences[i];
    wanted[i] = part[i].want_logits;
  }
  llama_batch batch = {};
  batch.n_tokens = static_cast<int32_t>(n);
  batch.token = tokens.data();  // positions stay null: libllama counts them per sequence
  batch.n_seq_id = sequence_counts.data();
  batch.seq_id = sequence_lists.data();
  batch.logits = wanted.data();
  ClearLibllamaError();
  const int32_t code = llama_decode(native_->context.get(), batch);
  if (code == 1) {
    return OutOfBudget(fmt::format("libllama: no room for {} tokens among {} KV cells", n, n_ctx()));
  }
  if (code != 0) {
    return InvalidArgument(fmt::format("libllama: decode failed ({}): {}", code, LibllamaErrorOr("no reason given")));
  }
  return Status::Ok();
}

Result<std::span<const float>> LibllamaReference::Decode(std::span<const LibllamaToken> batch) {
  const auto wanted = [](std::span<const LibllamaToken> part) {
    return static_cast<size_t>(std::count_if(part.begin(), part.end(), [](const auto& t) { return t.want_logits; }));
  };
  const auto part_size = static_cast<size_t>(options_.n_ubatch);
  const bool one_part = batch.size() <= part_size;
  const auto n_vocab = static_cast<size_t>(n_vocab_);
  rows_.clear();
  for (size_t begin = 0; begin < batch.size(); begin += part_size) {
    const auto part = batch.subspan(begin, std::min(part_size, batch.size() - begin));
    const size_t n_rows = wanted(part);
    if (!options_.all_logits && n_rows > static_cast<size_t>(options_.n_sequences)) {
      return InvalidArgument(fmt::format("libllama: {} logits rows wanted, but opened for {} (all_logits is off)",
                                         n_rows, options_.n_sequences));
    }
    ESPALIER_RETURN_IF_ERROR(DecodePart(part));
    if (n_rows == 0) {
      continue;
    }
    const float* logits = llama_get_logits(native_->context.get());
    if (one_part) {
      return std::span<const float>(logits, n_rows * n_vocab);
    }
    rows_.insert(rows_.end(), logits, logits + n_rows * n_vocab);
  }
  return std::span<const float>(rows_);
}

Result<std::span<const float>> LibllamaReference::Decode(std::span<const int32_t> tokens, bool all_logits) {
  std::vector<LibllamaToken> batch(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch[i] = {tokens[i], 0, all_logits || i + 1 == tokens.size()};
  }
  return Decode(batch);
}

void LibllamaReference::ClearMemory() { llama_memory_clear(llama_get_memory(native_->context.get()), true); }

void LibllamaReference::TruncateSequence(int32_t sequence, int64_t length) {
  llama_memory_seq_rm(llama_get_memory(native_->context.get()), sequence, static_cast<llama_pos>(length), -1);
}

void LibllamaReference::Synchronize() { llama_synchronize(native_->context.get()); }

int64_t LibllamaReference::n_ctx() const { return llama_n_ctx(native_->context.get()); }

}  // namespace espalier
