#include "cli/output_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <stdexcept>
#include <system_error>
#include <utility>

namespace orrery {

namespace fs = std::filesystem;

OutputFile::OutputFile(std::string name) : name_(std::move(name)), place_(name_) {
  std::error_code error;
  const fs::file_status status = fs::status(place_, error);
  if (fs::exists(status)) place_ = fs::canonical(place_, error);
  const bool direct = fs::exists(status) && !fs::is_regular_file(status);
  written_ = direct ? place_ : fs::path(fmt::format("{}.{}.part", place_.string(), ::getpid()));
  stream_.open(written_, std::ios::binary);
  if (!stream_) throw std::runtime_error(fmt::format("{}: cannot be written (does the folder exist?)", name_));
}

OutputFile::~OutputFile() {
  std::error_code error;
  if (written_ != place_) fs::remove(written_, error);
}

void OutputFile::keep() {
  stream_.close();
  if (!stream_) throw std::runtime_error(fmt::format("{}: could not be written whole (is the disk full?)", name_));
  std::error_code error;
  if (written_ != place_) fs::rename(written_, place_, error);
  if (error) throw std::runtime_error(fmt::format("{}: cannot be written ({})", name_, error.message()));
}

}  // namespace orrery
