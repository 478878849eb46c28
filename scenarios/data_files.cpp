#include "scenarios/data_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <system_error>

#include "scenarios/nearest.hpp"

namespace orrery {
namespace {

namespace fs = std::filesystem;

/// Bytes of the UTF-8 sequence at `rest`, 0 if it is not one (RFC 3629: no overlong forms, no surrogates).
std::size_t utf8_sequence(std::string_view rest) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(rest[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (rest.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;
  if (lead == 0xED && byte(1) > 0x9F) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

bool is_text(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = text.front() == '\0' ? 0 : utf8_sequence(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

InputError too_large(const fs::path& file) {
  return InputError(fmt::format("{}: the file is larger than {} MiB (no input is that large), check the path",
                                file.string(), largest_input_file >> 20));
}

bool is_path(std::string_view name) {
  return name.find('/') != std::string_view::npos || name.ends_with(".toml") || name.ends_with(".json");
}

}  // namespace

std::string in_one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

std::string read_text_file(const fs::path& file, std::string_view format) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (!fs::exists(status)) throw InputError(fmt::format("{}: there is no such file, check the path", file.string()));
  if (fs::is_directory(status)) {
    throw InputError(
        fmt::format("{}: this is a directory (a {} file is needed), name a file in it", file.string(), format));
  }
  if (fs::is_regular_file(status) && fs::file_size(file, error) > largest_input_file) throw too_large(file);

  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw InputError(fmt::format("{}: the file cannot be read, check its permissions", file.string()));
  // A pipe has no size beforehand, so the limit is kept while reading too.
  std::string text;
  std::string chunk(1u << 16, '\0');
  while (stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || stream.gcount() > 0) {
    text.append(chunk, 0, static_cast<std::size_t>(stream.gcount()));
    if (text.size() > largest_input_file) throw too_large(file);
  }
  if (text.empty()) throw InputError(fmt::format("{}: the file is empty", file.string()));
  if (!is_text(text)) {
    throw InputError(
        fmt::format("{}: this is not a {} file (it holds bytes that are not UTF-8 text)", file.string(), format));
  }
  return text;
}

fs::path data_directory() {
  if (const char* chosen = std::getenv("ORRERY_DATA"); chosen != nullptr) {
    if (fs::is_directory(chosen)) return chosen;
    throw InputError(
        fmt::format("ORRERY_DATA is \"{}\" (which is not a directory), set it to the folder that holds "
                    "hardware/ and models/, or unset it",
                    chosen));
  }
  std::error_code error;
  const fs::path beside = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& folder :
       {beside / "../../scenarios", beside / "../share/orrery", fs::path(ORRERY_DATA_SOURCE)}) {
    // Some other folder may be called scenarios, so look inside.
    if (fs::is_directory(folder / "hardware", error)) return folder.lexically_normal();
  }
  throw InputError(
      fmt::format("the data files are neither beside the program nor in {}, set ORRERY_DATA to the folder "
                  "that holds hardware/ and models/",
                  ORRERY_DATA_SOURCE));
}

std::vector<std::string> known_names(std::string_view folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(data_directory() / folder, error)) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path resolve(std::string_view name, std::string_view folder, const fs::path& mentioned_in) {
  // An absolute path stays as it is: that is what operator/ does.
  if (is_path(name)) return mentioned_in.parent_path() / name;
  fs::path file = data_directory() / folder / fmt::format("{}.toml", name);
  std::error_code error;
  if (fs::exists(file, error)) return file;
  throw InputError(fmt::format("there is no \"{}\" in {}, {}", name, folder, suggest(name, known_names(folder))));
}

}  // namespace orrery
