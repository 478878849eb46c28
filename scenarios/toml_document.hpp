// A parsed TOML file. For the reader alone: it keeps toml++ out of everybody else's headers.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

// toml++ is compiled once, in toml_document.cpp.
//
// toml++ 3.3 asserts what a damaged file need not fulfil ("[!") and, in release builds, tells the compiler to rely on
// it, although the code after it reports the error. Without NDEBUG and with an empty assertion both are gone.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(condition) static_assert(true)
#define TOML_HEADER_ONLY 0
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

namespace orrery {

/// Throws InputError if the text is not TOML, holds nothing, or nests its keys too deep. `file` is for messages.
toml::table parse_toml(std::string_view text, const std::filesystem::path& file);

/// "FILE:LINE:COLUMN: message", in one line whatever the file says.
std::string message_at(const std::filesystem::path& file, toml::source_position where, std::string_view message);

}  // namespace orrery
