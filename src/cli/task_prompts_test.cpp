// Expected texts are what lm-evaluation-harness 0.4.13 makes of the same fields.
#include "cli/task_prompts.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(TaskPrompts, AskQuestions) {
  EXPECT_EQ(QuestionPrompt("How?"), "Question: How?\nAnswer:");
  EXPECT_EQ(BoolQPrompt("It rains.", "is it dry"), "It rains.\nQuestion: is it dry?\nAnswer:");
}

TEST(TaskPrompts, CleanWikiHowTexts) {
  EXPECT_EQ(WithoutWikiHowMarks("  How to row [title] Sit down. [step] Pull  hard.\n"),
            "How to row. Sit down. Pull hard.");
  EXPECT_EQ(WithoutWikiHowMarks("a [b [c] d] e"), "a d] e");
  EXPECT_EQ(WithoutWikiHowMarks("a [b\nc] d [] e ["), "a [b\nc] d e [");
  EXPECT_EQ(WithoutWikiHowMarks("[x"), "[x");
  EXPECT_EQ(WithoutWikiHowMarks("a    b"), "a  b");  // each pair once, as str.replace
  EXPECT_EQ(WithoutWikiHowMarks(""), "");
}

TEST(TaskPrompts, JoinHellaSwagsParts) {
  EXPECT_EQ(HellaSwagPrompt("Rowing", "A man sits.", "then HE rows"), "Rowing: A man sits. Then he rows");
  EXPECT_EQ(HellaSwagPrompt("Rowing", "[header] A man sits.", ""), "Rowing: A man sits.");
}

}  // namespace
}  // namespace espalier
