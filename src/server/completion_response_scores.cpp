#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "server/completion_response_parts.h"
#include "server/utf8.h"

namespace espalier {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinity; this is what OpenAI says for "very unlikely".
double ShownLogprob(float logprob) {
  constexpr double kLeast = -9999;
  return std::isfinite(logprob) ? std::max<double>(logprob, kLeast) : kLeast;
}

std::string LegacyName(const std::string& piece) {
  if (IsUtf8(piece)) {
    return piece;
  }
  std::string name = "bytes:";
  for (const char c : piece) {
    name += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return name;
}

Json TopOf(const TokenAnswer& token) {
  Json top = Json::object();
  // Different tokens may have the same text: the likeliest counts, but the chosen one before all.
  top[LegacyName(token.chosen.piece)] = ShownLogprob(token.chosen.logprob);
  Json ordered = Json::object();
  for (const ScoredPiece& piece : token.top) {
    const std::string name = LegacyName(piece.piece);
    if (!ordered.contains(name)) {
      ordered[name] = top.contains(name) ? top[name] : Json(ShownLogprob(piece.logprob));
    }
  }
  ordered.update(top);
  return ordered;
}

Json PieceJson(const ScoredPiece& piece) {
  Json bytes = Json::array();
  for (const char c : piece.piece) {
    bytes.push_back(static_cast<unsigned char>(c));
  }
  return {{"id", piece.token},
          {"token", MendUtf8(piece.piece)},
          {"bytes", std::move(bytes)},
          {"logprob", ShownLogprob(piece.logprob)}};
}

}  // namespace

Json LegacyLogprobs(std::span<const TokenAnswer> tokens) {
  Json names = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (const TokenAnswer& token : tokens) {
    names.push_back(LegacyName(token.chosen.piece));
    logprobs.push_back(token.scored ? Json(ShownLogprob(token.chosen.logprob)) : Json());
    tops.push_back(token.scored ? TopOf(token) : Json());
    offsets.push_back(token.text_offset);
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json TokenLogprobs(std::span<const TokenAnswer> tokens) {
  Json list = Json::array();
  for (const TokenAnswer& token : tokens) {
    Json entry = PieceJson(token.chosen);
    Json top = Json::array();
    for (const ScoredPiece& piece : token.top) {
      top.push_back(PieceJson(piece));
    }
    entry["top_logprobs"] = std::move(top);
    list.push_back(std::move(entry));
  }
  return list;
}

Json LogprobsMember(ApiKind kind, std::span<const TokenAnswer> tokens) {
  if (tokens.empty()) {
    return {};
  }
  return kind == ApiKind::kCompletion ? LegacyLogprobs(tokens) : Json{{"content", TokenLogprobs(tokens)}};
}

}  // namespace espalier
