#include "server/json_key_order.h"

#include <algorithm>

namespace espalier {
namespace {

using Json = nlohmann::json;

// Walks through the text and, beside it, through what was parsed. nullptr where that is something else: of members with
// the same name only the last was kept.
class Walker : public nlohmann::json_sax<Json> {
 public:
  Walker(const Json& root, const std::vector<std::string>& within, JsonKeyOrder* order)
      : within_(within), order_(order), next_(&root) {}

  bool null() override { return Pass(); }
  bool boolean(bool) override { return Pass(); }
  bool number_integer(number_integer_t) override { return Pass(); }
  bool number_unsigned(number_unsigned_t) override { return Pass(); }
  bool number_float(number_float_t, const string_t&) override { return Pass(); }
  bool string(string_t&) override { return Pass(); }
  bool binary(binary_t&) override { return Pass(); }
  bool start_object(size_t) override { return Enter(next_ != nullptr && next_->is_object()); }
  bool start_array(size_t) override {
    Enter(next_ != nullptr && next_->is_array());
    return NextElement();
  }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    const Json* object = places_.back().node;
    next_ = nullptr;
    if (object == nullptr ||
        (places_.size() == 1 && std::find(within_.begin(), within_.end(), name) == within_.end())) {
      return true;
    }
    const auto found = object->find(name);
    next_ = found == object->end() ? nullptr : &*found;
    if (places_.size() > 1) {
      (*order_)[object].emplace(name, count_++);
    }
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception&) override { return false; }

 private:
  struct Place {
    const Json* node;
    size_t element;
  };

  bool Enter(bool same) {
    places_.push_back({same ? next_ : nullptr, 0});
    return true;
  }
  bool Leave() {
    places_.pop_back();
    return places_.empty() || Pass();
  }
  // A value is over: in an array the next one follows.
  bool Pass() { return places_.empty() || NextElement(); }
  bool NextElement() {
    Place& place = places_.back();
    const bool inside = place.node != nullptr && place.node->is_array() && place.element < place.node->size();
    next_ = inside ? &(*place.node)[place.element++] : nullptr;
    return true;
  }

  const std::vector<std::string>& within_;
  JsonKeyOrder* order_;
  const Json* next_;  // what the next value of the text was parsed to
  std::vector<Place> places_;
  size_t count_ = 0;
};

}  // namespace

JsonKeyOrder KeyOrderOf(std::string_view text, const Json& parsed, const std::vector<std::string>& within) {
  JsonKeyOrder order;
  Walker walker(parsed, within, &order);
  Json::sax_parse(text, &walker);
  return order;
}

std::vector<std::string> NamesInOrder(const Json& object, const JsonKeyOrder& order) {
  std::vector<std::string> names;
  for (const auto& [name, unused] : object.items()) {
    names.push_back(name);
  }
  const auto found = order.find(&object);
  if (found == order.end()) {
    return names;
  }
  const auto place = [&](const std::string& name) {
    const auto known = found->second.find(name);
    return known == found->second.end() ? SIZE_MAX : known->second;
  };
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return place(a) < place(b); });
  return names;
}

}  // namespace espalier
