#include "cli/task_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace espalier {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TaskItem Parse(std::string_view line) {
  auto item = ParseTaskLine(line, "file");
  EXPECT_TRUE(item.ok()) << item.status().message();
  return item.ok() ? *item : TaskItem();
}

std::string ErrorOf(std::string_view line) {
  const auto item = ParseTaskLine(line, "file");
  EXPECT_FALSE(item.ok()) << line;
  return item.ok() ? "" : item.status().message();
}

void ExpectRequests(const TaskItem& item, const std::vector<std::pair<std::string, std::string>>& expected) {
  ASSERT_EQ(item.requests.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(item.requests[i].context, expected[i].first);
    EXPECT_EQ(item.requests[i].continuation, expected[i].second);
  }
}

TEST(ParseTaskLine, ReadsMinimalPairs) {
  const TaskItem item = Parse(R"({"task": "npi", "group": "licensing", "good": "I ever.", "bad": "Ever I."})");
  EXPECT_EQ(item.set, "file");
  EXPECT_EQ(item.task, "npi");
  EXPECT_EQ(item.group, "licensing");
  EXPECT_EQ(item.gold, 0u);
  EXPECT_THAT(item.characters, IsEmpty());
  ExpectRequests(item, {{"", " I ever."}, {"", " Ever I."}});
}

TEST(ParseTaskLine, ReadsBlimpAsPublished) {
  const TaskItem item = Parse(R"({"sentence_good": "A.", "sentence_bad": "B.", "field": "syntax",
                                  "linguistics_term": "binding", "UID": "principle_A_case_1", "pair_id": 0})");
  EXPECT_EQ(item.task, "principle_A_case_1");
  EXPECT_EQ(item.group, "binding");
  ExpectRequests(item, {{"", " A."}, {"", " B."}});
}

TEST(ParseTaskLine, ReadsMultipleChoice) {
  const TaskItem item = Parse(R"({"context": "Sky:", "choices": ["grün", "blue", "red"], "gold": 1})");
  EXPECT_EQ(item.task, "file");
  EXPECT_EQ(item.gold, 1u);
  EXPECT_THAT(item.characters, ElementsAre(4, 4, 3));
  ExpectRequests(item, {{"Sky:", " grün"}, {"Sky:", " blue"}, {"Sky:", " red"}});
  const TaskItem bare = Parse(R"({"context": "Sky", "choices": ["a", "b"], "gold": 0, "delimiter": ""})");
  ExpectRequests(bare, {{"Sky", "a"}, {"Sky", "b"}});
}

TEST(ParseTaskLine, ReadsPartialScoring) {
  const TaskItem item =
      Parse(R"({"task": "w", "contexts": ["The cat", "The dog"], "continuation": "slept.", "gold": 1})");
  EXPECT_EQ(item.gold, 1u);
  EXPECT_THAT(item.characters, IsEmpty());
  ExpectRequests(item, {{"The cat", " slept."}, {"The dog", " slept."}});
}

TEST(ParseTaskLine, ReadsPublishedTasks) {
  const TaskItem piqa = Parse(R"({"goal": "Open a jar", "sol1": "turn", "sol2": "push", "label": 1})");
  ExpectRequests(piqa, {{"Question: Open a jar\nAnswer:", " turn"}, {"Question: Open a jar\nAnswer:", " push"}});
  EXPECT_EQ(piqa.gold, 1u);
  EXPECT_THAT(piqa.characters, ElementsAre(4, 4));

  const TaskItem hellaswag =
      Parse(R"({"ind": 4, "activity_label": "Rowing", "ctx_a": "A man sits.", "ctx_b": "he", "ctx": "unused",
                "endings": ["rows [substeps] on.", "flies."], "label": "1"})");
  ExpectRequests(hellaswag, {{"Rowing: A man sits. He", " rows on."}, {"Rowing: A man sits. He", " flies."}});
  EXPECT_EQ(hellaswag.gold, 1u);
  EXPECT_THAT(hellaswag.characters, ElementsAre(8, 6));

  const TaskItem winogrande =
      Parse(R"({"sentence": "Ann thanked Beth since _ helped.", "option1": "Ann", "option2": "Beth", "answer": "2"})");
  ExpectRequests(winogrande, {{"Ann thanked Beth since Ann", " helped."}, {"Ann thanked Beth since Beth", " helped."}});
  EXPECT_EQ(winogrande.gold, 1u);
  EXPECT_THAT(winogrande.characters, IsEmpty());

  const TaskItem arc = Parse(R"({"id": "x", "question": "Which?", "answerKey": "2",
                                 "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}})");
  ExpectRequests(arc, {{"Question: Which?\nAnswer:", " ice"}, {"Question: Which?\nAnswer:", " fire"}});
  EXPECT_EQ(arc.gold, 1u);

  const TaskItem openbookqa = Parse(R"({"question_stem": "The sun is", "answerKey": " A",
                                        "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}})");
  ExpectRequests(openbookqa, {{"The sun is", " hot"}, {"The sun is", " cold"}});
  EXPECT_EQ(openbookqa.gold, 0u);
}

TEST(ParseTaskLine, ReadsBoolQOfSuperGlueAndOfItsOwn) {
  for (const char* line : {R"({"passage": "Ice is cold.", "question": "is ice cold", "label": 1})",
                           R"({"passage": "Ice is cold.", "question": "is ice cold", "answer": true})"}) {
    const TaskItem item = Parse(line);
    ExpectRequests(item, {{"Ice is cold.\nQuestion: is ice cold?\nAnswer:", " no"},
                          {"Ice is cold.\nQuestion: is ice cold?\nAnswer:", " yes"}});
    EXPECT_EQ(item.gold, 1u);
    EXPECT_THAT(item.characters, IsEmpty());
  }
}

TEST(ParseTaskLine, NestingTakesNoStack) {
  const std::string deep(400'000, '[');
  EXPECT_THAT(ErrorOf(R"({"good": )" + deep + std::string(deep.size(), ']') + R"(, "bad": "b"})"),
              HasSubstr("\"good\": expected a text, found an array of 1"));
}

TEST(ParseTaskLine, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(ErrorOf("{"), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("array"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("\"contexts\""));
  EXPECT_THAT(ErrorOf(R"({"good": 1, "bad": "b"})"), AllOf(HasSubstr("\"good\""), HasSubstr("found 1")));
  EXPECT_THAT(ErrorOf(R"({"good": "a", "bad": "b", "task": ["t"]})"), HasSubstr("\"task\""));
  EXPECT_THAT(ErrorOf(R"({"good": "a", "bad": "b", "group": ")" + std::string(300, 'g') + "\"}"), HasSubstr("300"));
  EXPECT_THAT(ErrorOf(R"({"context": "c", "choices": ["a"], "gold": 0})"),
              AllOf(HasSubstr("\"choices\""), HasSubstr("found an array of 1")));
  EXPECT_THAT(ErrorOf(R"({"context": "c", "choices": ["a", 2], "gold": 0})"), HasSubstr("\"choices\""));
  for (const char* gold : {"2", "-1", "0.5", "\"\"", "\"x\"", "null", "99999999999999999999", "true"}) {
    EXPECT_THAT(ErrorOf(R"({"context": "c", "choices": ["a", "b"], "gold": )" + std::string(gold) + "}"),
                HasSubstr("\"gold\": expected an index from 0 to 1"));
  }
  EXPECT_THAT(ErrorOf(R"({"context": "c", "choices": ["a", "b"]})"), HasSubstr("found none"));
  EXPECT_THAT(ErrorOf(R"({"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"})"),
              HasSubstr("\"sentence\""));
  EXPECT_THAT(ErrorOf(R"({"sentence": "_", "option1": "a", "option2": "b", "answer": ""})"), HasSubstr("\"answer\""));
  EXPECT_THAT(ErrorOf(R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})"),
              HasSubstr("\"answerKey\""));
  EXPECT_THAT(ErrorOf(R"({"question": "q", "choices": {"text": ["a", "b"]}, "answerKey": "A"})"),
              HasSubstr("choices.label"));
  EXPECT_THAT(ErrorOf(R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B", "C"]},
                          "answerKey": "C"})"),
              HasSubstr("3 labels for 2 choices"));
  EXPECT_THAT(ErrorOf(R"({"passage": "p", "question": "q", "answer": "yes"})"), HasSubstr("\"answer\""));
  EXPECT_THAT(ErrorOf("{\"good\": \"\xff\", \"bad\": \"b\"}"), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf(std::string(2 << 20, ' ')), HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf(std::string(200000, '[')), HasSubstr("not JSON"));
}

TEST(ParseTaskFile, TakesTheFirstItemsOfEachTask) {
  const char* text =
      "{\"task\": \"a\", \"good\": \"1\", \"bad\": \"x\"}\n\n"
      "{\"task\": \"a\", \"good\": \"2\", \"bad\": \"x\"}\r\n"
      "{\"task\": \"b\", \"good\": \"3\", \"bad\": \"x\"}\n"
      "{\"task\": \"a\", \"good\": \"4\", \"bad\": \"x\"}";
  const auto all = ParseTaskFile(text, "folder/blimp.jsonl", 0);
  ASSERT_TRUE(all.ok()) << all.status().message();
  EXPECT_EQ(all->size(), 4u);
  EXPECT_EQ(all->front().set, "blimp");
  const auto some = ParseTaskFile(text, "folder/blimp.jsonl", 2);
  ASSERT_TRUE(some.ok());
  ASSERT_EQ(some->size(), 3u);
  EXPECT_EQ((*some)[1].requests[0].continuation, " 2");
  EXPECT_EQ((*some)[2].requests[0].continuation, " 3");
}

TEST(ParseTaskFile, NamesFileAndLine) {
  const auto bad = ParseTaskFile("{\"good\": \"1\", \"bad\": \"x\"}\n\n{\"good\": 3, \"bad\": \"x\"}\n", "f.jsonl", 0);
  ASSERT_FALSE(bad.ok());
  EXPECT_THAT(bad.status().message(), HasSubstr("task file 'f.jsonl', line 3: field \"good\""));
  for (const char* empty : {"", "\n \r\n"}) {
    const auto nothing = ParseTaskFile(empty, "f.jsonl", 0);
    ASSERT_FALSE(nothing.ok());
    EXPECT_THAT(nothing.status().message(), HasSubstr("no items"));
  }
}

}  // namespace
}  // namespace espalier
