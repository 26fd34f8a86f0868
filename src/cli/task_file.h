// Task files: JSON Lines, one item a line. docs/formats/tasks.md says which fields make which kind of item.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "eval/tasks.h"

namespace espalier {

// One line. `set` becomes the item's set, and its task where the line names none. The error names the field, what was
// expected and what was found.
Result<TaskItem> ParseTaskLine(std::string_view line, const std::string& set);

// The items of a file of at most 1 GiB, in order; the first `limit` of each task (0: all). Blank lines are skipped. The
// set is the file's name without folder and extension. Errors name file and line; a file without items is one.
Result<std::vector<TaskItem>> ReadTaskFile(const std::string& path, int64_t limit);

// The same over text already read; `path` is for names and messages.
Result<std::vector<TaskItem>> ParseTaskFile(std::string_view text, const std::string& path, int64_t limit);

}  // namespace espalier
