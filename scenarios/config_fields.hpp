// The fields of the config.json of a Hugging Face model, by name and type.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/data_files.hpp"

namespace orrery {

/// Throws InputError, also for a key that is given twice.
nlohmann::json parse_config(const std::string& text, const std::filesystem::path& file);

/// The fields of a config: those of a nested text_config come first, then those around it. GPT-2 has its own names.
class ConfigFields {
 public:
  ConfigFields(const nlohmann::json& root, const std::filesystem::path& file);
  InputError error(std::string_view message) const;

  /// The first of the names that is there and is not null, or nothing.
  const nlohmann::json* find(std::initializer_list<const char*> names) const;

  std::int64_t count_or(std::initializer_list<const char*> names, std::int64_t otherwise, std::int64_t most) const;

  // A missing field is noted and 0, false or nothing returned; refuse_missing() then reports all of them at once.
  std::int64_t count(std::initializer_list<const char*> names, std::int64_t most);
  bool boolean(const char* name);
  std::string string(std::initializer_list<const char*> names);
  void refuse_missing() const;

  /// The first field that `is_it(name, value)` holds for and what it holds, or nothing; fields of nested objects too.
  template <class IsIt>
  const nlohmann::json* find_if(IsIt is_it, std::string& found) const {
    for (const nlohmann::json* object : {text_, &root_}) {
      if (object == nullptr) continue;
      for (const auto& [name, value] : object->items()) {
        found = name;
        if (is_it(found, value)) return &value;
        if (!value.is_object()) continue;
        for (const auto& [inner_name, inner] : value.items()) {
          found = inner_name;
          if (is_it(found, inner)) return &inner;
        }
      }
    }
    return nullptr;
  }

 private:
  std::int64_t to_count(const char* name, const nlohmann::json& value, std::int64_t most) const;

  const nlohmann::json& root_;
  const nlohmann::json* text_ = nullptr;
  const std::filesystem::path& file_;
  std::vector<std::string> missing_;
};

}  // namespace orrery
