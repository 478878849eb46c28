// "Did you mean ...?": the known name closest to a mistyped one.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace orrery {

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The name with the least edit distance to `typed` (the first of several), if it is at most a third of the longer one;
/// otherwise the first that begins with it, if that is two letters or more.
std::optional<std::string> nearest(std::string_view typed, std::span<const std::string> names);

/// The end of a sentence about an unknown name: `did you mean "ring"? (known: ...)`, or `known: a, b, c`.
std::string suggest(std::string_view typed, std::span<const std::string> names);

}  // namespace orrery
