#include "scenarios/config_fields.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace orrery {

using nlohmann::json;

nlohmann::json parse_config(const std::string& text, const std::filesystem::path& file) {
  std::vector<std::set<std::string>> seen;  // the keys so far of each object around
  const auto refuse_twice = [&](int, json::parse_event_t event, const json& parsed) {
    if (event == json::parse_event_t::object_start) seen.emplace_back();
    if (event == json::parse_event_t::object_end) seen.pop_back();
    if (event == json::parse_event_t::key && !seen.back().insert(parsed.get<std::string>()).second) {
      throw InputError(fmt::format("{}: {} is given twice, remove one of the two", file.string(),
                                   in_one_line(parsed.get<std::string>().substr(0, 40))));
    }
    return true;
  };
  try {
    return json::parse(text, refuse_twice);
  } catch (const json::parse_error& error) {
    // nlohmann counts bytes, from 1, and points behind what it did not expect.
    const std::size_t offset = std::min(error.byte == 0 ? 0 : error.byte - 1, text.size());
    const std::string before = text.substr(0, offset);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    throw InputError(
        fmt::format("{}:{}:{}: this is not valid JSON (something is missing or left over here), compare "
                    "with the config.json of a published model",
                    file.string(), line, before.size() - (before.rfind('\n') + 1) + 1));
  } catch (const json::out_of_range&) {
    throw InputError(fmt::format(
        "{}: this is not a model config (it holds a number beyond the range of a double), correct it", file.string()));
  }
}

ConfigFields::ConfigFields(const json& root, const std::filesystem::path& file) : root_(root), file_(file) {
  if (!root.is_object())
    throw error("this is not a model config (the file does not hold a JSON object), check the path");
  if (const auto found = root.find("text_config"); found != root.end() && found->is_object()) text_ = &*found;
}

InputError ConfigFields::error(std::string_view message) const {
  return InputError(fmt::format("{}: {}", file_.string(), message));
}

const json* ConfigFields::find(std::initializer_list<const char*> names) const {
  for (const json* object : {text_, &root_}) {
    if (object == nullptr) continue;
    for (const char* name : names) {
      if (const auto found = object->find(name); found != object->end() && !found->is_null()) return &*found;
    }
  }
  return nullptr;
}

std::int64_t ConfigFields::count(std::initializer_list<const char*> names, std::int64_t most) {
  const json* value = find(names);
  if (value == nullptr) {
    missing_.emplace_back(*names.begin());
    return 0;
  }
  return to_count(*names.begin(), *value, most);
}

std::int64_t ConfigFields::count_or(std::initializer_list<const char*> names, std::int64_t otherwise,
                                    std::int64_t most) const {
  const json* value = find(names);
  return value == nullptr ? otherwise : to_count(*names.begin(), *value, most);
}

bool ConfigFields::boolean(const char* name) {
  const json* value = find({name});
  if (value == nullptr) missing_.emplace_back(name);
  if (value != nullptr && !value->is_boolean()) {
    throw error(fmt::format("{} is {}, expected true or false", name, value->type_name()));
  }
  return value != nullptr && value->get<bool>();
}

std::string ConfigFields::string(std::initializer_list<const char*> names) {
  const json* value = find(names);
  if (value == nullptr) missing_.emplace_back(*names.begin());
  if (value != nullptr && !value->is_string()) {
    throw error(fmt::format("{} is {}, expected a string", *names.begin(), value->type_name()));
  }
  return value == nullptr ? std::string() : value->get<std::string>();
}

void ConfigFields::refuse_missing() const {
  if (missing_.empty()) return;
  const bool one = missing_.size() == 1;
  throw error(fmt::format("missing {} ({} no default), add {} or use the config.json of a decoder model",
                          fmt::join(missing_, ", "), one ? "it has" : "they have", one ? "it" : "them"));
}

std::int64_t ConfigFields::to_count(const char* name, const json& value, std::int64_t most) const {
  // An unsigned number beyond 2^63 would come out negative, so it is compared as what it is.
  const bool whole = value.is_number_integer();
  const bool large = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most);
  if (whole && !large && value.get<std::int64_t>() > 0) return value.get<std::int64_t>();
  throw error(fmt::format("{} is {}, expected a whole number from 1 to {}", name,
                          value.is_number() ? value.dump() : std::string(value.type_name()), most));
}

}  // namespace orrery
