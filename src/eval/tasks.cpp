#include "eval/tasks.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "eval/python_text.h"

namespace espalier {
namespace {

size_t IndexOfFirstMax(std::span<const double> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

std::string Join(std::string_view delimiter, const std::string& text) { return std::string(delimiter) + text; }

}  // namespace

TaskItem ChooseContinuation(const std::string& context, std::span<const std::string> choices,
                            std::string_view delimiter) {
  TaskItem item;
  for (const std::string& choice : choices) {
    item.requests.push_back({context, Join(delimiter, choice)});
    item.characters.push_back(CountCharacters(choice));
  }
  return item;
}

TaskItem ChooseContext(std::span<const std::string> contexts, const std::string& continuation,
                       std::string_view delimiter) {
  TaskItem item;
  for (const std::string& context : contexts) {
    item.requests.push_back({context, Join(delimiter, continuation)});
  }
  return item;
}

ItemVerdict JudgeItem(const TaskItem& item, std::span<const double> log_likelihoods) {
  ESPALIER_CHECK(!log_likelihoods.empty() && log_likelihoods.size() == item.requests.size());
  ItemVerdict verdict;
  verdict.picked = IndexOfFirstMax(log_likelihoods);
  verdict.picked_norm = verdict.picked;
  if (!item.characters.empty()) {
    std::vector<double> per_character(log_likelihoods.begin(), log_likelihoods.end());
    for (size_t i = 0; i < per_character.size(); ++i) {
      // An empty choice is infinitely unlikely per character, as it is for numpy; 0 / 0 alone would be NaN.
      per_character[i] = item.characters[i] > 0 ? per_character[i] / static_cast<double>(item.characters[i])
                                                : -std::numeric_limits<double>::infinity();
    }
    verdict.picked_norm = IndexOfFirstMax(per_character);
  }
  return verdict;
}

}  // namespace espalier
