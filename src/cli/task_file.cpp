#include "cli/task_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/task_prompts.h"
#include "eval/python_text.h"
#include "json/json_value.h"
#include "model/quote.h"

namespace espalier {
namespace {

using JsonValue = nlohmann::json;

constexpr size_t kMaxLineBytes = kMiB;
constexpr size_t kMaxChoices = 256;
constexpr size_t kMaxNameBytes = 256;

// The fields of one line, read with errors that name them.
class Fields {
 public:
  explicit Fields(const JsonValue& object) : object_(object) {}

  bool Has(std::string_view name) const { return object_.contains(name); }
  Result<std::string> Text(const char* name) const { return TextIn(object_, name, name); }
  Result<std::vector<std::string>> Texts(const char* name) const { return TextsIn(object_, name, name); }
  // {"text": [...], "label": [...]}, as ARC and OpenBookQA have their choices.
  Result<std::vector<std::string>> ChoiceTexts() const { return ChoiceMember("text"); }
  Result<std::vector<std::string>> ChoiceLabels() const { return ChoiceMember("label"); }

  // A number below `count`, or a text that is one (HellaSwag's label).
  Result<size_t> Index(const char* name, size_t count) const {
    const JsonValue* value = Find(object_, name);
    uint64_t index = count;
    if (value != nullptr && value->is_number_unsigned()) {
      index = value->get<uint64_t>();
    } else if (value != nullptr && value->is_string()) {
      const auto& text = value->get_ref<const std::string&>();
      const bool digits = !text.empty() && text.size() <= 3 &&
                          std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
      index = digits ? std::stoul(text) : count;
    }
    if (index >= count) {
      return Expected(name, fmt::format("an index from 0 to {}", count - 1), value);
    }
    return static_cast<size_t>(index);
  }

  Result<bool> Truth(const char* name) const {
    const JsonValue* value = Find(object_, name);
    if (value == nullptr || !value->is_boolean()) {
      return Expected(name, "true or false", value);
    }
    return value->get<bool>();
  }

 private:
  static const JsonValue* Find(const JsonValue& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() ? &*found : nullptr;
  }
  static Status Expected(std::string_view name, std::string_view what, const JsonValue* found) {
    return InvalidArgument(fmt::format("field \"{}\": expected {}, found {}", name, what,
                                       found != nullptr ? ShowValue(*found, 48) : "none"));
  }
  static Result<std::string> TextIn(const JsonValue& object, const char* name, std::string_view shown) {
    const JsonValue* value = Find(object, name);
    if (value == nullptr || !value->is_string()) {
      return Expected(shown, "a text", value);
    }
    return value->get<std::string>();
  }
  static Result<std::vector<std::string>> TextsIn(const JsonValue& object, const char* name, std::string_view shown) {
    const JsonValue* value = Find(object, name);
    const bool texts = value != nullptr && value->is_array() && value->size() >= 2 && value->size() <= kMaxChoices &&
                       std::all_of(value->begin(), value->end(), [](const JsonValue& v) { return v.is_string(); });
    if (!texts) {
      return Expected(shown, fmt::format("2 to {} texts", kMaxChoices), value);
    }
    return value->get<std::vector<std::string>>();
  }
  Result<std::vector<std::string>> ChoiceMember(const char* member) const {
    const JsonValue* choices = Find(object_, "choices");
    if (choices == nullptr || !choices->is_object()) {
      return Expected("choices", "an object with \"text\" and \"label\"", choices);
    }
    return TextsIn(*choices, member, fmt::format("choices.{}", member));
  }

  const JsonValue& object_;
};

Result<std::string> DelimiterOf(const Fields& fields) {
  return fields.Has("delimiter") ? fields.Text("delimiter") : Result<std::string>(std::string(kTaskDelimiter));
}

// Two sentences from nothing; the first is the right one. The harness counts no acc_norm for BLiMP.
TaskItem MinimalPair(std::string good, std::string bad) {
  TaskItem item = ChooseContinuation("", std::array{std::move(good), std::move(bad)});
  item.characters.clear();
  return item;
}

Result<TaskItem> ReadGoodBad(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(std::string good, fields.Text("good"));
  ESPALIER_ASSIGN_OR_RETURN(std::string bad, fields.Text("bad"));
  return MinimalPair(std::move(good), std::move(bad));
}

Result<TaskItem> ReadBlimp(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(std::string good, fields.Text("sentence_good"));
  ESPALIER_ASSIGN_OR_RETURN(std::string bad, fields.Text("sentence_bad"));
  TaskItem item = MinimalPair(std::move(good), std::move(bad));
  if (fields.Has("UID")) {
    ESPALIER_ASSIGN_OR_RETURN(item.task, fields.Text("UID"));
  }
  if (fields.Has("linguistics_term")) {
    ESPALIER_ASSIGN_OR_RETURN(item.group, fields.Text("linguistics_term"));
  }
  return item;
}

Result<TaskItem> ReadMultipleChoice(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string context, fields.Text("context"));
  ESPALIER_ASSIGN_OR_RETURN(const auto choices, fields.Texts("choices"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string delimiter, DelimiterOf(fields));
  TaskItem item = ChooseContinuation(context, choices, delimiter);
  ESPALIER_ASSIGN_OR_RETURN(item.gold, fields.Index("gold", choices.size()));
  return item;
}

Result<TaskItem> ReadPartial(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const auto contexts, fields.Texts("contexts"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string continuation, fields.Text("continuation"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string delimiter, DelimiterOf(fields));
  TaskItem item = ChooseContext(contexts, continuation, delimiter);
  ESPALIER_ASSIGN_OR_RETURN(item.gold, fields.Index("gold", contexts.size()));
  return item;
}

Result<TaskItem> ReadWinogrande(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string sentence, fields.Text("sentence"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string option1, fields.Text("option1"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string option2, fields.Text("option2"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string answer, fields.Text("answer"));
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) {
    return InvalidArgument("field \"sentence\": expected a blank, '_', found none");
  }
  if (answer != "1" && answer != "2") {
    return InvalidArgument(
        fmt::format("field \"answer\": expected \"1\" or \"2\", found \"{}\"", Printable(answer, 48)));
  }
  const std::string before = sentence.substr(0, blank);
  TaskItem item = ChooseContext(std::array{before + option1, before + option2},
                                std::string(Strip(std::string_view(sentence).substr(blank + 1))));
  item.gold = answer == "1" ? 0 : 1;
  return item;
}

Result<TaskItem> ReadPiqa(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string goal, fields.Text("goal"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string first, fields.Text("sol1"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string second, fields.Text("sol2"));
  TaskItem item = ChooseContinuation(QuestionPrompt(goal), std::array{first, second});
  ESPALIER_ASSIGN_OR_RETURN(item.gold, fields.Index("label", 2));
  return item;
}

Result<TaskItem> ReadHellaSwag(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string activity, fields.Text("activity_label"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string first, fields.Text("ctx_a"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string second, fields.Text("ctx_b"));
  ESPALIER_ASSIGN_OR_RETURN(auto endings, fields.Texts("endings"));
  for (std::string& ending : endings) {
    ending = WithoutWikiHowMarks(ending);
  }
  TaskItem item = ChooseContinuation(HellaSwagPrompt(activity, first, second), endings);
  ESPALIER_ASSIGN_OR_RETURN(item.gold, fields.Index("label", endings.size()));
  return item;
}

// ARC and OpenBookQA: choices with labels, and the label of the right one.
Result<TaskItem> LabelledChoices(const Fields& fields, const std::string& context) {
  ESPALIER_ASSIGN_OR_RETURN(const auto texts, fields.ChoiceTexts());
  ESPALIER_ASSIGN_OR_RETURN(const auto labels, fields.ChoiceLabels());
  ESPALIER_ASSIGN_OR_RETURN(const std::string answer, fields.Text("answerKey"));
  const auto found = std::find(labels.begin(), labels.end(), Strip(answer));
  if (texts.size() != labels.size() || found == labels.end()) {
    return InvalidArgument(fmt::format("field \"answerKey\": expected one of {} labels for {} choices, found \"{}\"",
                                       labels.size(), texts.size(), Printable(answer, 48)));
  }
  TaskItem item = ChooseContinuation(context, texts);
  item.gold = static_cast<size_t>(found - labels.begin());
  return item;
}

Result<TaskItem> ReadArc(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string question, fields.Text("question"));
  return LabelledChoices(fields, QuestionPrompt(question));
}

Result<TaskItem> ReadOpenBookQa(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string question, fields.Text("question_stem"));
  return LabelledChoices(fields, question);
}

// "label" in SuperGLUE, "answer" in the data set of its own.
Result<TaskItem> ReadBoolQ(const Fields& fields) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string passage, fields.Text("passage"));
  ESPALIER_ASSIGN_OR_RETURN(const std::string question, fields.Text("question"));
  TaskItem item = ChooseContinuation(BoolQPrompt(passage, question), std::array<std::string, 2>{"no", "yes"});
  item.characters.clear();
  if (fields.Has("label")) {
    ESPALIER_ASSIGN_OR_RETURN(item.gold, fields.Index("label", 2));
  } else {
    ESPALIER_ASSIGN_OR_RETURN(const bool yes, fields.Truth("answer"));
    item.gold = yes ? 1 : 0;
  }
  return item;
}

// A line is of the first kind whose fields it all has.
struct Kind {
  std::array<std::string_view, 2> marks;
  Result<TaskItem> (*read)(const Fields& fields);
};
constexpr std::array kKinds = {Kind{{"good", "bad"}, ReadGoodBad},
                               Kind{{"sentence_good", "sentence_bad"}, ReadBlimp},
                               Kind{{"contexts", "continuation"}, ReadPartial},
                               Kind{{"context", "choices"}, ReadMultipleChoice},
                               Kind{{"goal", "sol1"}, ReadPiqa},
                               Kind{{"ctx_a", "endings"}, ReadHellaSwag},
                               Kind{{"sentence", "option1"}, ReadWinogrande},
                               Kind{{"question_stem", "choices"}, ReadOpenBookQa},
                               Kind{{"question", "choices"}, ReadArc},
                               Kind{{"passage", "question"}, ReadBoolQ}};

Status SetNames(const Fields& fields, const std::string& set, TaskItem* item) {
  item->set = set;
  for (const auto& [name, value] : {std::pair("task", &item->task), std::pair("group", &item->group)}) {
    if (fields.Has(name)) {
      ESPALIER_ASSIGN_OR_RETURN(*value, fields.Text(name));
    }
    if (value->size() > kMaxNameBytes) {
      return InvalidArgument(
          fmt::format("field \"{}\": expected at most {} bytes, found {}", name, kMaxNameBytes, value->size()));
    }
  }
  if (item->task.empty()) {
    item->task = set;
  }
  return Status::Ok();
}

}  // namespace

Result<TaskItem> ParseTaskLine(std::string_view line, const std::string& set) {
  ESPALIER_ASSIGN_OR_RETURN(const JsonValue object, ParseObjectLine(line, kMaxLineBytes));
  const Fields fields(object);
  const auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&fields](const Kind& k) {
    return std::all_of(k.marks.begin(), k.marks.end(), [&fields](std::string_view mark) { return fields.Has(mark); });
  });
  if (kind == kKinds.end()) {
    return InvalidArgument(
        "expected the fields \"context\", \"choices\", \"gold\", or \"contexts\", \"continuation\", \"gold\", or "
        "\"good\", \"bad\", or those of a published task (docs/formats/tasks.md)");
  }
  ESPALIER_ASSIGN_OR_RETURN(TaskItem item, kind->read(fields));
  ESPALIER_RETURN_IF_ERROR(SetNames(fields, set, &item));
  return item;
}

Result<std::vector<TaskItem>> ParseTaskFile(std::string_view text, const std::string& path, int64_t limit) {
  const std::string set = std::filesystem::path(path).stem().string();
  std::vector<TaskItem> items;
  std::map<std::string, int64_t> taken;
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    auto item = ParseTaskLine(line, set);
    if (!item.ok()) {
      return Status(item.status().code(),
                    fmt::format("task file {}, line {}: {}", Quote(path), number, item.status().message()));
    }
    if (limit == 0 || taken[item->task]++ < limit) {
      items.push_back(std::move(*item));
    }
  }
  if (items.empty()) {
    return InvalidArgument(fmt::format("task file {}: no items in it", Quote(path)));
  }
  return items;
}

Result<std::vector<TaskItem>> ReadTaskFile(const std::string& path, int64_t limit) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kGiB));
  return ParseTaskFile(text, path, limit);
}

}  // namespace espalier
