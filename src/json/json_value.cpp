#include "json/json_value.h"

#include <fmt/format.h>

#include <set>

#include "model/quote.h"

namespace espalier {

std::string ShowValue(const nlohmann::json& value, size_t max_bytes) {
  if (value.is_structured()) {
    return fmt::format("an {} of {}", value.type_name(), value.size());
  }
  return Printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), max_bytes);
}

Result<nlohmann::json> ParseObjectLine(std::string_view line, size_t max_bytes) {
  if (line.size() > max_bytes) {
    return InvalidArgument(fmt::format("expected at most {} bytes, found {}", max_bytes, line.size()));
  }
  // A parser keeps the last of equal members; whoever wrote two meant something else.
  std::set<std::string> members;
  std::string repeated;
  const auto note = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::key && depth == 1 &&
        !members.insert(parsed.get<std::string>()).second) {
      repeated = parsed.get<std::string>();
    }
    return true;
  };
  nlohmann::json object = nlohmann::json::parse(line, note, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return InvalidArgument(fmt::format("expected a JSON object, found {}",
                                       object.is_discarded() ? "something that is not JSON" : object.type_name()));
  }
  if (!repeated.empty()) {
    return InvalidArgument(fmt::format("field \"{}\": expected once, found again", Printable(repeated, 48)));
  }
  return object;
}

}  // namespace espalier
