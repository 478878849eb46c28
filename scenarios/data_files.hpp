// Where input comes from: reading a text file with limits, and finding the data files that come with the program.
#pragma once

#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace orrery {

/// What is wrong with an input file: "FILE:LINE:COLUMN: problem (why), suggestion", or "FILE: ..." if it cannot be
/// read.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A message is one line, whatever a file or a command line holds: control characters become blanks.
std::string in_one_line(std::string text);

/// No input is larger; a file beyond it is refused before it is read.
inline constexpr std::size_t largest_input_file = 8u << 20;

/// The whole file as UTF-8 text. Throws InputError if it does not exist, is a directory, is empty, is larger than
/// largest_input_file, or is not text; `format` ("TOML", "JSON") is for the message.
std::string read_text_file(const std::filesystem::path& file, std::string_view format);

/// The folder with hardware/, models/, zoo/, ...: $ORRERY_DATA if set, else beside the executable
/// (../../scenarios in a build tree, ../share/orrery when installed), else the source tree the program was built from.
/// Throws InputError if ORRERY_DATA is not a directory or none of them exists.
std::filesystem::path data_directory();

/// The names that resolve() knows in a folder of the data directory, sorted: every NAME.toml.
std::vector<std::string> known_names(std::string_view folder);

/// A name that contains '/' or ends in .toml or .json is a path, relative to the file that mentions it (`mentioned_in`;
/// empty: to the current directory). Any other name is data_directory()/folder/name.toml; throws InputError with the
/// nearest and all known names if there is no such file. Table::file_name says where the name stands.
std::filesystem::path resolve(std::string_view name, std::string_view folder,
                              const std::filesystem::path& mentioned_in = {});

}  // namespace orrery
