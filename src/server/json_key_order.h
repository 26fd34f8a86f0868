// In which order the members of JSON objects were written: nlohmann::json sorts them, and its ordered twin takes time
// that grows with the square of their number. For schemas the order matters: a model that is to reason before it
// answers must write the members in the order in which they were given.
#pragma once

#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace espalier {

// For objects of the parsed text: the place of each member, counted through the text. Objects that are not in it are in
// no known order.
using JsonKeyOrder = std::unordered_map<const nlohmann::json*, std::map<std::string, size_t>>;

// Of what is below the members `within` of the object that `text` is. `parsed` is what it was parsed to, must outlive
// the result and stay where it is.
JsonKeyOrder KeyOrderOf(std::string_view text, const nlohmann::json& parsed, const std::vector<std::string>& within);

// The names of the members, in the order of the text where it is known, else sorted. REQUIRES: an object.
std::vector<std::string> NamesInOrder(const nlohmann::json& object, const JsonKeyOrder& order);

}  // namespace espalier
