// Matching the names of rows.
#pragma once
#include <string>

namespace orrery {

// `pattern` with * or ? must match the whole of `text`; without, it may be any part of it.
inline bool matches(const std::string& text, const std::string& pattern) {
  if (pattern.find_first_of("*?") == std::string::npos) return text.find(pattern) != std::string::npos;
  size_t t = 0, p = 0, star = std::string::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace orrery
