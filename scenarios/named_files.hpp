// What the files that a scenario names hold: a sweep reads many scenarios that name the same few.
#pragma once

#include <any>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <typeindex>

namespace orrery {

/// Each file is found and read once; a file that cannot be read is tried again. For several threads.
class NamedFiles {
 public:
  struct Question {
    std::string_view folder, name, depends_on;
  };

  /// What load() returned when this question was first asked.
  template <class Load>
  auto get(const Question& question, Load load) {
    using Value = decltype(load());
    const Key key(typeid(Value), question.folder, question.name, question.depends_on);
    {
      const std::lock_guard lock(mutex_);
      const auto found = values_.find(key);
      if (found != values_.end()) return std::any_cast<const Value&>(found->second);
    }
    Value value = load();
    const std::lock_guard lock(mutex_);
    values_.emplace(key, value);
    return value;
  }

 private:
  using Key = std::tuple<std::type_index, std::string, std::string, std::string>;
  std::mutex mutex_;
  std::map<Key, std::any> values_;
};

}  // namespace orrery
