#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>

#include "server/completion_response.h"
#include "server/endpoints.h"
#include "server/endpoints_parts.h"
#include "server/state_json.h"

namespace espalier {
namespace {

uint64_t ParametersOf(const Model& model) {
  uint64_t n = 0;
  for (const TensorInfo& tensor : model.gguf().tensors()) {
    n += static_cast<uint64_t>(tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]);
  }
  return n;
}

uint64_t TensorBytes(const Model& model) {
  uint64_t bytes = model.globals().file_bytes;
  for (int b = 0; b < model.n_block(); ++b) {
    bytes += model.block({b}).file_bytes;
  }
  return bytes;
}

// A string of the file's metadata; empty if there is none of that name, or if it is no string.
std::string MetadataString(const Model& model, const char* key) {
  const auto found = model.gguf().FindString(key);
  return found.ok() ? found->value_or("") : "";
}

// enum llama_vocab_type: the two kinds that CheckVocabulary lets in.
int VocabularyType(const Model& model) {
  constexpr int kSentencePiece = 1;
  constexpr int kBytePairs = 2;
  return MetadataString(model, "tokenizer.ggml.model") == "gpt2" ? kBytePairs : kSentencePiece;
}

Json MetaJson(const Served& served) {
  const Model& model = *served.model;
  const LoopSnapshot snapshot = served.loop->snapshot();
  return {{"vocab_type", VocabularyType(model)},
          {"n_vocab", served.tokenizer->n_vocab()},
          {"n_ctx", served.context_tokens},
          {"n_ctx_train", model.hparams().n_ctx_train},
          {"n_embd", model.hparams().n_embd},
          {"n_params", ParametersOf(model)},
          {"size", TensorBytes(model)},
          {"ftype", model.quantization()},
          {"quantization", model.quantization()},
          {"plan", snapshot.plan != nullptr ? Json(snapshot.plan->ToText()) : Json()},
          {"budget_bytes", LimitJson(snapshot.limit_bytes)},
          {"managed_bytes", snapshot.managed.total()},
          {"predicted_loss_nats", snapshot.loss ? Json(snapshot.loss->nats) : Json()}};
}

// The list in Ollama's form that llama-server gives beside OpenAI's, as empty of content as there.
Json TwinJson(const Served& served) {
  return {{"name", served.name},
          {"model", served.name},
          {"modified_at", ""},
          {"size", ""},
          {"digest", ""},
          {"type", "model"},
          {"description", ""},
          {"tags", Json::array({""})},
          {"capabilities", Json::array({"completion"})},
          {"parameters", ""},
          {"details",
           {{"parent_model", ""},
            {"format", "gguf"},
            {"family", served.model->architecture().name},
            {"families", Json::array({served.model->architecture().name})},
            {"parameter_size", ""},
            {"quantization_level", served.model->quantization()}}}};
}

// What a request that says nothing is answered with.
Json DefaultSettings(const SamplerOptions& sampling) {
  CompletionRequest request;
  request.sampling = sampling;
  return GenerationSettingsJson(request, sampling.seed);
}

// The text of a special token; null where the vocabulary has none.
Json SpecialToken(const Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? Json() : Json(tokenizer.Piece(token, /*render_special=*/true));
}

int32_t PaddingToken(const Served& served) {
  const auto found =
      served.model->gguf().FindInteger("tokenizer.ggml.padding_token_id", 0, served.tokenizer->n_vocab() - 1);
  return found.ok() ? static_cast<int32_t>(found->value_or(-1)) : -1;
}

}  // namespace

HttpResponse ModelsAnswer(const Served& served) {
  const Json model = {{"id", served.name},
                      {"object", "model"},
                      {"created", served.created_unix},
                      {"owned_by", "espalier"},
                      {"meta", MetaJson(served)}};
  return JsonAnswer({{"models", Json::array({TwinJson(served)})}, {"object", "list"}, {"data", Json::array({model})}});
}

HttpResponse PropsAnswer(const Served& served) {
  const auto text = [&](int32_t token) { return token < 0 ? "" : served.tokenizer->Piece(token, true); };
  return JsonAnswer({{"default_generation_settings",
                      {{"n_ctx", served.context_tokens}, {"params", DefaultSettings(served.sampling)}}},
                     {"total_slots", served.n_parallel},
                     {"model_alias", served.name},
                     {"model_ftype", served.model->quantization()},
                     {"model_path", served.model->path()},
                     {"modalities", {{"vision", false}, {"audio", false}}},
                     {"chat_template", MetadataString(*served.model, "tokenizer.chat_template")},
                     {"bos_token", text(served.tokenizer->bos())},
                     {"eos_token", text(served.tokenizer->eos())},
                     {"build_info", fmt::format("espalier {}", ESPALIER_VERSION)},
                     {"is_sleeping", false}});
}

HttpResponse SlotsAnswer(const Served& served) {
  return JsonAnswer(SlotsJson(served.loop->snapshot(), served.n_parallel, served.context_tokens));
}

HttpResponse TokenizerInfoAnswer(const Served& served) {
  const Tokenizer& tokenizer = *served.tokenizer;
  const std::string chat_template = MetadataString(*served.model, "tokenizer.chat_template");
  return JsonAnswer({{"bos_token", SpecialToken(tokenizer, tokenizer.bos())},
                     {"eos_token", SpecialToken(tokenizer, tokenizer.eos())},
                     {"pad_token", SpecialToken(tokenizer, PaddingToken(served))},
                     {"add_bos_token", tokenizer.adds_bos()},
                     {"model_max_length", served.context_tokens},
                     {"chat_template", chat_template.empty() ? Json() : Json(chat_template)}});
}

}  // namespace espalier
