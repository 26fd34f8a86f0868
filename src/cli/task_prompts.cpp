#include "cli/task_prompts.h"

#include <fmt/format.h>

#include <algorithm>

#include "eval/python_text.h"

namespace espalier {
namespace {

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t found = text.find(from); found != std::string_view::npos; found = text.find(from)) {
    out.append(text.substr(0, found)).append(to);
    text.remove_prefix(found + from.size());
  }
  return out.append(text);
}

// re.sub(r"\[.*?\]", "", text): from each bracket to the next that closes, unless a line feed comes before.
std::string WithoutBrackets(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = text.find('[');
    out.append(text.substr(0, open));
    text.remove_prefix(std::min(open, text.size()));
    const size_t close = text.find_first_of("]\n");
    const size_t length = close == std::string_view::npos ? text.size() : close + 1;
    if (close == std::string_view::npos || text[close] == '\n') {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string Capitalized(std::string_view text) {
  std::string out(text);
  for (size_t i = 0; i < out.size(); ++i) {
    const char c = out[i];
    if (i == 0 && c >= 'a' && c <= 'z') {
      out[i] = static_cast<char>(c - 'a' + 'A');
    } else if (i > 0 && c >= 'A' && c <= 'Z') {
      out[i] = static_cast<char>(c - 'A' + 'a');
    }
  }
  return out;
}

}  // namespace

std::string QuestionPrompt(std::string_view question) { return fmt::format("Question: {}\nAnswer:", question); }

std::string BoolQPrompt(std::string_view passage, std::string_view question) {
  return fmt::format("{}\nQuestion: {}?\nAnswer:", passage, question);
}

std::string WithoutWikiHowMarks(std::string_view text) {
  return ReplaceAll(WithoutBrackets(ReplaceAll(Strip(text), " [title]", ". ")), "  ", " ");
}

std::string HellaSwagPrompt(std::string_view activity, std::string_view first, std::string_view second) {
  return WithoutWikiHowMarks(fmt::format("{}: {} {}", activity, first, Capitalized(second)));
}

}  // namespace espalier
