// Any bytes as a task file: the reader must answer with one line, or with items that can be scored.
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/check.h"
#include "cli/task_file.h"

namespace {

using namespace espalier;  // NOLINT: a fuzz target is about one library

void CheckItem(const TaskItem& item) {
  ESPALIER_CHECK(item.set == "some" && !item.task.empty());
  ESPALIER_CHECK(item.requests.size() >= 2 && item.gold < item.requests.size());
  ESPALIER_CHECK(item.characters.empty() || item.characters.size() == item.requests.size());
  for (const int64_t characters : item.characters) {
    ESPALIER_CHECK(characters >= 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto items = ParseTaskFile(text, "folder/some.jsonl", 0);
  const auto first = ParseTaskFile(text, "folder/some.jsonl", 1);
  ESPALIER_CHECK(items.ok() == first.ok());
  if (!items.ok()) {
    ESPALIER_CHECK(!items.status().message().empty());
    ESPALIER_CHECK(items.status().message().find('\n') == std::string::npos);
    return 0;
  }
  std::map<std::string, int> tasks;
  for (const TaskItem& item : *items) {
    CheckItem(item);
    ++tasks[item.task];
  }
  ESPALIER_CHECK(first->size() == tasks.size());
  return 0;
}
