// Helpers of the tests about input: what an error says, and a text with one thing changed.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "scenarios/data_files.hpp"

namespace orrery {

/// What the InputError of an action says; "no error" if there is none.
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

/// The text with the first `what` replaced; there must be one.
inline std::string replaced(std::string text, std::string_view what, std::string_view with) {
  const std::size_t at = text.find(what);
  if (at == std::string::npos) throw std::invalid_argument("not in the text: " + std::string(what));
  return text.replace(at, what.size(), with);
}

}  // namespace orrery
