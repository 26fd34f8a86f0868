#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "model/quote.h"
#include "server/completion_request_parts.h"

namespace espalier {
namespace {

using Json = nlohmann::json;

// Ranges are what the samplers take, and where they take anything, what nobody needs more of.
constexpr double kWide = 1000;
constexpr int64_t kMostTokens = 1 << 20;

// Any seed of 64 bits, as OpenAI's are; -1: another one each time. Those of 32 bits stay as they are.
void ReadSeed(FieldReader* fields, SamplerOptions* sampling) {
  int64_t seed = 0;
  if (!fields->Int("seed", INT64_MIN, INT64_MAX, &seed)) {
    return;
  }
  const auto bits = static_cast<uint64_t>(seed);
  const bool wide = seed < -1 || seed > int64_t{UINT32_MAX};
  sampling->seed = static_cast<uint32_t>(wide ? bits ^ (bits >> 32) : bits);
  if (wide && sampling->seed == SamplerOptions::kRandomSeed) {
    sampling->seed = 0;  // a seed that was given must give the same each time
  }
}

void ReadNumbers(FieldReader* fields, SamplerOptions* sampling) {
  // llama.cpp's habit: below 0 means greedy, too.
  fields->Number("temperature", -1, kWide, &sampling->temperature);
  fields->Number("dynatemp_range", 0, kWide, &sampling->dynatemp_range);
  fields->Number("dynatemp_exponent", -kWide, kWide, &sampling->dynatemp_exponent);
  fields->Int("top_k", -1, INT32_MAX, &sampling->top_k);
  fields->Number("top_p", 0, 1, &sampling->top_p);
  fields->Number("min_p", 0, 1, &sampling->min_p);
  fields->Number("typical_p", 0, 1, &sampling->typical_p);
  fields->Number("top_n_sigma", -1, kWide, &sampling->top_n_sigma);
  fields->Number("xtc_probability", 0, 1, &sampling->xtc_probability);
  fields->Number("xtc_threshold", 0, 1, &sampling->xtc_threshold);
  fields->Int("repeat_last_n", -1, kMostTokens, &sampling->repeat_last_n);
  fields->Number("repeat_penalty", 1 / kWide, kWide, &sampling->repeat_penalty);
  fields->Number("presence_penalty", -kWide, kWide, &sampling->presence_penalty);
  fields->Number("frequency_penalty", -kWide, kWide, &sampling->frequency_penalty);
  fields->Number("dry_multiplier", 0, kWide, &sampling->dry_multiplier);
  const float dry_base = sampling->dry_base;
  fields->Number("dry_base", 0, kWide, &sampling->dry_base);
  if (sampling->dry_base < 1) {
    sampling->dry_base = dry_base;  // llama-server's rule
  }
  fields->Int("dry_allowed_length", 0, kMostTokens, &sampling->dry_allowed_length);
  fields->Int("dry_penalty_last_n", -1, kMostTokens, &sampling->dry_penalty_last_n);
  fields->Int("mirostat", 0, 2, &sampling->mirostat);
  fields->Number("mirostat_tau", 0, kWide, &sampling->mirostat_tau);
  fields->Number("mirostat_eta", 0, kWide, &sampling->mirostat_eta);
  fields->Int("min_keep", 0, INT32_MAX, &sampling->min_keep);
  fields->Bool("ignore_eos", &sampling->ignore_eos);
}

void ReadBreakers(FieldReader* fields, SamplerOptions* sampling) {
  constexpr size_t kMost = 16;
  constexpr size_t kMostBytes = 40;  // libllama's
  const Json* list = fields->Find("dry_sequence_breakers");
  if (list == nullptr) {
    return;
  }
  if (!list->is_array() || list->empty() || list->size() > kMost) {
    return fields->Fail(WrongValue("dry_sequence_breakers", fmt::format("a list of 1 to {} strings", kMost), *list));
  }
  sampling->dry_sequence_breakers.clear();
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& one = (*list)[i];
    const auto text = one.is_string() ? one.get<std::string>() : std::string();
    if (text.empty() || text.size() > kMostBytes || text.find('\0') != std::string::npos) {
      return fields->Fail(WrongValue(fmt::format("dry_sequence_breakers[{}]", i),
                                     fmt::format("a string of 1 to {} bytes without U+0000", kMostBytes), one));
    }
    sampling->dry_sequence_breakers.push_back(text);
  }
}

// The order of the samplers is llama.cpp's and stays so; one that is not wanted can be switched off by its own field.
void CheckOrder(FieldReader* fields) {
  const Json* order = fields->Find("samplers");
  const Json names = {"penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"};
  if (order != nullptr && *order != names && *order != Json("edskypmxt")) {
    fields->Fail(WrongValue("samplers", names.dump() + " in this order (one that is off does nothing)", *order));
  }
}

struct BiasReader {
  const RequestDefaults& defaults;
  FieldReader* fields;
  CompletionRequest* request;

  void Token(const std::string& param, int64_t token, const Json& value) {
    if (token < 0 || token >= defaults.n_vocab) {
      return fields->Fail(WrongValue(param, fmt::format("a token id in 0 to {}", defaults.n_vocab - 1), Json(token)));
    }
    if (const auto bias = Bias(param, value)) {
      request->sampling.logit_bias.push_back({.token = static_cast<int32_t>(token), .bias = *bias});
    }
  }
  void Text(const std::string& param, const std::string& text, const Json& value) {
    if (const auto bias = Bias(param, value)) {
      request->text_biases.push_back({.text = text, .bias = *bias});
    }
  }
  // false bans.
  std::optional<float> Bias(const std::string& param, const Json& value) {
    constexpr double kMost = 1e6;
    if (value.is_boolean() && !value.get<bool>()) {
      return -std::numeric_limits<float>::infinity();
    }
    if (!value.is_number() || !(value.get<double>() >= -kMost && value.get<double>() <= kMost)) {
      fields->Fail(WrongValue(param, fmt::format("a bias in {} to {}, or false", -kMost, kMost), value));
      return std::nullopt;
    }
    return static_cast<float>(value.get<double>());
  }
};

// {"15043": -100, " the": 2}: a key that is a number is a token's id.
void ReadBiasObject(const Json& object, BiasReader reader) {
  for (const auto& [key, value] : object.items()) {
    const std::string param = "logit_bias." + Printable(key, 48);
    int64_t token = 0;
    const char* end = key.data() + key.size();
    const auto [rest, error] = std::from_chars(key.data(), end, token);
    if (rest != end || error == std::errc::invalid_argument) {
      reader.Text(param, key, value);
    } else {
      reader.Token(param, error == std::errc() ? token : -1, value);
    }
  }
}

// [[15043, -100], [" the", false]]
void ReadBiasList(const Json& list, BiasReader reader) {
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string param = fmt::format("logit_bias[{}]", i);
    const Json& pair = list[i];
    if (!pair.is_array() || pair.size() != 2 || !(pair[0].is_string() || pair[0].is_number())) {
      return reader.fields->Fail(WrongValue(param, "a pair of a token id or text, and a bias", pair));
    }
    if (pair[0].is_string()) {
      reader.Text(param, pair[0].get<std::string>(), pair[1]);
    } else {
      const auto token = IntegerIn(pair[0], 0, INT32_MAX);
      if (!token) {
        return reader.fields->Fail(WrongValue(param + "[0]", "a token id", pair[0]));
      }
      reader.Token(param, *token, pair[1]);
    }
  }
}

void ReadBiases(BiasReader reader) {
  const Json* biases = reader.fields->Find("logit_bias");
  if (biases == nullptr) {
    return;
  }
  reader.request->sampling.logit_bias.clear();  // not added to the server's own: as in llama-server
  if (biases->is_object()) {
    ReadBiasObject(*biases, reader);
  } else if (biases->is_array()) {
    ReadBiasList(*biases, reader);
  } else {
    reader.fields->Fail(WrongValue("logit_bias", "an object or a list of pairs", *biases));
  }
}

}  // namespace

void ReadSampling(const RequestDefaults& defaults, FieldReader* fields, CompletionRequest* request) {
  request->sampling = defaults.sampling;
  ReadSeed(fields, &request->sampling);
  ReadNumbers(fields, &request->sampling);
  ReadBreakers(fields, &request->sampling);
  CheckOrder(fields);
  ReadBiases({.defaults = defaults, .fields = fields, .request = request});
}

}  // namespace espalier
