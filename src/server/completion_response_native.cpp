#include <algorithm>
#include <cmath>

#include "server/completion_response_parts.h"

namespace espalier {
namespace {

using Json = nlohmann::ordered_json;

Json BiasesJson(const SamplerOptions& sampling) {
  Json list = Json::array();
  for (const LogitBias& bias : sampling.logit_bias) {
    list.push_back({{"bias", std::isfinite(bias.bias) ? Json(bias.bias) : Json(false)}, {"token", bias.token}});
  }
  return list;
}

}  // namespace

Json GenerationSettingsJson(const CompletionRequest& request, uint32_t seed) {
  const SamplerOptions& sampling = request.sampling;
  return {{"seed", seed},
          {"temperature", sampling.temperature},
          {"dynatemp_range", sampling.dynatemp_range},
          {"dynatemp_exponent", sampling.dynatemp_exponent},
          {"top_k", sampling.top_k},
          {"top_p", sampling.top_p},
          {"min_p", sampling.min_p},
          {"top_n_sigma", sampling.top_n_sigma},
          {"xtc_probability", sampling.xtc_probability},
          {"xtc_threshold", sampling.xtc_threshold},
          {"typical_p", sampling.typical_p},
          {"repeat_last_n", sampling.repeat_last_n},
          {"repeat_penalty", sampling.repeat_penalty},
          {"presence_penalty", sampling.presence_penalty},
          {"frequency_penalty", sampling.frequency_penalty},
          {"dry_multiplier", sampling.dry_multiplier},
          {"dry_base", sampling.dry_base},
          {"dry_allowed_length", sampling.dry_allowed_length},
          {"dry_penalty_last_n", sampling.dry_penalty_last_n},
          {"dry_sequence_breakers", sampling.dry_sequence_breakers},
          {"mirostat", sampling.mirostat},
          {"mirostat_tau", sampling.mirostat_tau},
          {"mirostat_eta", sampling.mirostat_eta},
          {"adaptive_target", -1.0},  // off: there is no such sampler here, but clients look for it
          {"adaptive_decay", 0.9},
          {"stop", request.stop},
          {"max_tokens", request.max_tokens},
          {"n_predict", request.max_tokens},
          {"n_keep", 0},
          {"t_max_predict_ms", request.max_predict_ms},
          {"n_discard", 0},
          {"ignore_eos", sampling.ignore_eos},
          {"stream", request.stream},
          {"logit_bias", BiasesJson(sampling)},
          {"n_probs", std::max(request.n_top, 0)},
          {"min_keep", sampling.min_keep},
          {"grammar", sampling.grammar},
          {"timings_per_token", request.timings_per_token},
          {"post_sampling_probs", false}};
}

Json NativeFinal(const AnswerHead& head, const CompletionRequest& request, const ChoiceAnswer& choice) {
  const RequestEnd* const end = &choice.end;
  const StopKind stop = StopKindOf(choice.end.reason, !choice.stopping_word.empty());
  // A stream has told content and tokens already.
  Json answer = {{"index", choice.index},
                 {"content", request.stream ? std::string() : choice.text},
                 {"tokens", request.return_tokens && !request.stream ? choice.tokens : std::vector<int32_t>()},
                 {"id_slot", -1},  // sequences have no fixed place here
                 {"stop", true},
                 {"model", head.model},
                 {"tokens_predicted", choice.end.generated_tokens},
                 {"tokens_evaluated", choice.end.prompt_tokens},
                 {"generation_settings", GenerationSettingsJson(request, choice.seed)},
                 {"prompt", choice.prompt_text},
                 {"has_new_line", choice.has_new_line},
                 {"truncated", false},
                 {"stop_type", StopTypeName(stop)},
                 {"stopping_word", choice.stopping_word},
                 {"tokens_cached", choice.end.prompt_tokens + choice.end.generated_tokens},
                 {"timings", TimingsJson({&end, 1})},
                 {"espalier", EspalierJson({&end, 1})}};
  if (!request.stream && !choice.scores.empty()) {
    answer["completion_probabilities"] = TokenLogprobs(choice.scores);
  }
  return answer;
}

}  // namespace espalier
