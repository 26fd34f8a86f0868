#include "cli/json_value.h"

#include <fmt/format.h>

#include "model/quote.h"

namespace espalier {

std::string ShowValue(const nlohmann::json& value, size_t max_bytes) {
  if (value.is_structured()) {
    return fmt::format("an {} of {}", value.type_name(), value.size());
  }
  return Printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), max_bytes);
}

}  // namespace espalier
