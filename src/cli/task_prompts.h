// The prompts that lm-evaluation-harness (0.4.13) makes of the published tasks' fields.
#pragma once

#include <string>
#include <string_view>

namespace espalier {

// PIQA and ARC: "Question: ...\nAnswer:".
std::string QuestionPrompt(std::string_view question);

// "PASSAGE\nQuestion: QUESTION?\nAnswer:".
std::string BoolQPrompt(std::string_view passage, std::string_view question);

// HellaSwag's texts from WikiHow: stripped, " [title]" becomes ". ", other brackets go with what is in them, then each
// pair of spaces becomes one.
std::string WithoutWikiHowMarks(std::string_view text);

// "ACTIVITY: FIRST Second", cleaned like that. The second part gets a capital and is otherwise lower case, as Python's
// capitalize does it; letters outside ASCII stay as they are.
std::string HellaSwagPrompt(std::string_view activity, std::string_view first, std::string_view second);

}  // namespace espalier
