#include "eval/subject.h"

#include <fmt/format.h>

namespace espalier {

EvalSubject DescribeSubject(const Engine& engine, const Plan& plan, const Windows& windows) {
  EvalSubject subject;
  subject.model = engine.model().display_name();
  subject.quantization = engine.model().quantization();
  subject.plan = plan.ToText();
  subject.corpus = windows.corpus;
  subject.protocol = windows.protocol;
  subject.text_tokens = windows.text_tokens;
  subject.window_tokens = windows.window_tokens;
  subject.windows = windows.count();
  subject.tokens_scored = windows.count() * windows.targets_per_window();
  return subject;
}

Status NotFiniteError(const Engine& engine, int64_t window, int64_t position) {
  return Corrupt(fmt::format("{}: logits after token {} of window {} are not finite numbers", engine.model().path(),
                             position, window));
}

}  // namespace espalier
