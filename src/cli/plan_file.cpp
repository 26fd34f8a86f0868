#include "cli/plan_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "base/file.h"
#include "json/json_value.h"
#include "model/quote.h"

namespace espalier {
namespace {

bool LooksLikeFile(const std::string& text) {
  struct stat unused = {};
  return text.find('/') != std::string::npos || text.ends_with(".json") || ::stat(text.c_str(), &unused) == 0;
}

}  // namespace

Result<Plan> ParseJsonPlan(std::string_view json, int n_layer) {
  // Members that come twice would silently overwrite each other; the parser only tells a callback. Members of others
  // than "keep" are left to whoever wrote them.
  std::set<std::string> seen;
  std::string repeated;
  bool in_keep = false;
  const nlohmann::json::parser_callback_t watch = [&](int depth, nlohmann::json::parse_event_t event,
                                                      nlohmann::json& value) {
    if (event != nlohmann::json::parse_event_t::key || depth > 2) {
      return true;
    }
    const auto& key = value.get_ref<const std::string&>();
    if (depth == 1) {
      in_keep = key == "keep";
    }
    if (in_keep && !seen.insert(key).second) {
      repeated = key;
    }
    return true;
  };
  const nlohmann::json document = nlohmann::json::parse(json, watch, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return InvalidArgument("not JSON");
  }
  if (!document.is_object() || !document.contains("keep") || !document["keep"].is_object()) {
    return InvalidArgument("expected an object with a member \"keep\", such as {\"keep\": {\"a3\": 0}}");
  }
  if (!repeated.empty()) {
    return InvalidArgument(fmt::format("member {}: expected once, found again", Quote(Printable(repeated, 32))));
  }
  Plan plan = Plan::Dense(n_layer);
  for (const auto& [name, value] : document["keep"].items()) {
    ESPALIER_ASSIGN_OR_RETURN(const BlockId block, ParseBlockName(name, n_layer));
    const double fraction = value.is_number() ? value.get<double>() : -1;
    if (!(fraction >= 0 && fraction <= 1)) {
      return InvalidArgument(
          fmt::format("block {}: expected a keep fraction from 0 to 1, found {}", name, ShowValue(value, 32)));
    }
    plan.set_keep(block, fraction);
  }
  return plan;
}

Result<Plan> ReadPlan(const std::string& text_or_file, int n_layer) {
  if (!LooksLikeFile(text_or_file)) {
    auto plan = Plan::Parse(text_or_file, n_layer);
    if (!plan.ok()) {
      return Status(plan.status().code(), plan.status().message() + "; and there is no file of that name");
    }
    return plan;
  }
  ESPALIER_ASSIGN_OR_RETURN(const std::string content, ReadWholeFile(text_or_file, kMiB));
  const size_t first = content.find_first_not_of(" \t\r\n");
  const bool json = first != std::string::npos && content[first] == '{';
  auto plan = json ? ParseJsonPlan(content, n_layer) : Plan::Parse(content, n_layer);
  if (!plan.ok()) {
    return Status(plan.status().code(), fmt::format("plan file {}: {}", Quote(text_or_file), plan.status().message()));
  }
  return plan;
}

}  // namespace espalier
