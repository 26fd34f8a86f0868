#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/api_fields.h"
#include "server/completion_request_parts.h"
#include "server/endpoints.h"
#include "server/endpoints_parts.h"
#include "server/prompt_text.h"
#include "server/prompt_tokens.h"
#include "server/utf8.h"

namespace espalier {
namespace {

using Value = nlohmann::json;
using Tokens = std::vector<int32_t>;

struct TokenizeRequest {
  const Value* content = nullptr;  // llama-server's field
  const Value* prompt = nullptr;   // vLLM's
  bool add_special = false;
  bool parse_special = true;
  bool with_pieces = false;
};

ApiResult<int32_t> ReadToken(const Value& value, const std::string& param, const Tokenizer& tokenizer) {
  const std::optional<int64_t> token = IntegerIn(value, 0, tokenizer.n_vocab() - 1);
  if (!token) {
    return WrongValue(param, fmt::format("a token id in 0 to {}", tokenizer.n_vocab() - 1), value);
  }
  return static_cast<int32_t>(*token);
}

ApiResult<Tokens> EncodeText(const Tokenizer& tokenizer, const std::string& text, bool add_special,
                             bool parse_special) {
  auto tokens = tokenizer.Encode(text, add_special, parse_special);
  if (!tokens.ok()) {
    return ErrorFromStatus(tokens.status());
  }
  return *std::move(tokens);
}

// Texts and token ids as one sequence; special tokens are added at its beginning only, and only before a text.
ApiResult<Tokens> EncodeMixed(const Tokenizer& tokenizer, const TokenizeRequest& request) {
  Tokens tokens;
  for (size_t i = 0; i < request.content->size(); ++i) {
    const Value& element = (*request.content)[i];
    if (element.is_string()) {
      auto more = EncodeText(tokenizer, element.get_ref<const std::string&>(), request.add_special && i == 0,
                             request.parse_special);
      if (IsError(more)) {
        return more;
      }
      tokens.insert(tokens.end(), std::get<Tokens>(more).begin(), std::get<Tokens>(more).end());
    } else {
      const auto token = ReadToken(element, fmt::format("content[{}]", i), tokenizer);
      if (IsError(token)) {
        return std::get<ApiError>(token);
      }
      tokens.push_back(std::get<int32_t>(token));
    }
  }
  return tokens;
}

ApiResult<Tokens> EncodeRequest(const Tokenizer& tokenizer, const TokenizeRequest& request) {
  const bool native = request.content != nullptr;
  if (native && request.content->is_array()) {
    return EncodeMixed(tokenizer, request);
  }
  const Value& text = native ? *request.content : *request.prompt;
  if (!text.is_string()) {
    return native ? WrongValue("content", "a string, or a list of strings and token ids", text)
                  : WrongValue("prompt", "a string", text);
  }
  return EncodeText(tokenizer, text.get_ref<const std::string&>(), request.add_special, request.parse_special);
}

// A piece may end inside a character: then its bytes, as numbers.
Json PieceJson(const std::string& piece) {
  if (IsUtf8(piece)) {
    return piece;
  }
  Json bytes = Json::array();
  for (const char c : piece) {
    bytes.push_back(static_cast<unsigned char>(c));
  }
  return bytes;
}

Json TokensJson(const Tokenizer& tokenizer, const Tokens& tokens, bool with_pieces) {
  Json list = Json::array();
  for (const int32_t token : tokens) {
    if (with_pieces) {
      list.push_back({{"id", token}, {"piece", PieceJson(tokenizer.Piece(token, /*render_special=*/true))}});
    } else {
      list.push_back(token);
    }
  }
  return list;
}

// Every piece as it is, special ones too: what llama-server's /detokenize gives. (Whoever asks in vLLM's way tokenises
// the text again and expects the same tokens: PiecesAsGiven.)
std::string TextOf(const Tokenizer& tokenizer, const Tokens& tokens) {
  std::string text;
  for (const int32_t token : tokens) {
    text += tokenizer.Piece(token, /*render_special=*/true);
  }
  return text;
}

}  // namespace

ApiResult<HttpResponse> TokenizeAnswer(const Served& served, std::string_view body) {
  const ApiResult<Value> parsed = ParseBody(body);
  if (IsError(parsed)) {
    return std::get<ApiError>(parsed);
  }
  FieldReader fields(std::get<Value>(parsed));
  TokenizeRequest request;
  request.content = fields.Find("content");
  request.prompt = fields.Find("prompt");
  const bool native = request.content != nullptr;
  if (!native && request.prompt == nullptr) {
    return InvalidRequest("content", "field 'content' (or 'prompt'): expected the text, found none");
  }
  request.add_special = !native;
  fields.Bool(native ? "add_special" : "add_special_tokens", &request.add_special);
  fields.Bool("parse_special", &request.parse_special);
  fields.Bool("with_pieces", &request.with_pieces);
  if (fields.error()) {
    return *fields.error();
  }
  const ApiResult<Tokens> encoded = EncodeRequest(*served.tokenizer, request);
  if (IsError(encoded)) {
    return std::get<ApiError>(encoded);
  }
  const auto& tokens = std::get<Tokens>(encoded);
  Json answer = {{"tokens", TokensJson(*served.tokenizer, tokens, request.with_pieces)}};
  if (!native) {
    answer["count"] = tokens.size();
    answer["max_model_len"] = served.context_tokens;
  }
  return JsonAnswer(answer);
}

ApiResult<HttpResponse> DetokenizeAnswer(const Served& served, std::string_view body) {
  const ApiResult<Value> parsed = ParseBody(body);
  if (IsError(parsed)) {
    return std::get<ApiError>(parsed);
  }
  const FieldReader fields(std::get<Value>(parsed));
  const Value* list = fields.Find("tokens");
  if (list == nullptr || !list->is_array()) {
    return WrongValue("tokens", "a list of token ids", list == nullptr ? Value() : *list);
  }
  Tokens tokens;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto token = ReadToken((*list)[i], fmt::format("tokens[{}]", i), *served.tokenizer);
    if (IsError(token)) {
      return std::get<ApiError>(token);
    }
    tokens.push_back(std::get<int32_t>(token));
  }
  const auto pieces = PiecesAsGiven(*served.tokenizer, tokens, /*render_special=*/true);
  return JsonAnswer(
      {{"content", TextOf(*served.tokenizer, tokens)}, {"prompt", fmt::format("{}", fmt::join(pieces, ""))}});
}

ApiResult<HttpResponse> ApplyTemplateAnswer(const Served& served, std::string_view body) {
  const ApiResult<Value> parsed = ParseBody(body);
  if (IsError(parsed)) {
    return std::get<ApiError>(parsed);
  }
  FieldReader fields(std::get<Value>(parsed));
  CompletionRequest request;
  request.kind = ApiKind::kChat;
  ReadMessages(&fields, &request);
  if (fields.error()) {
    return *fields.error();
  }
  const auto text = ChatText(served, request);
  if (!text.ok()) {
    return ErrorFromStatus(text.status());
  }
  return JsonAnswer({{"prompt", *text}});
}

}  // namespace espalier
