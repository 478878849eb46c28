// A file that is written whole or not at all.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace orrery {

/// Written beside its place under another name, and moved there by keep(); without it nothing is left, and what was
/// there before stays. What is no plain file (a pipe, /dev/stdout) is written directly.
class OutputFile {
 public:
  /// Throws std::runtime_error if the file cannot be written.
  explicit OutputFile(std::string name);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  std::ostream& stream() { return stream_; }
  /// Call it once, when all is written. Throws std::runtime_error if not all of it reached the disk.
  void keep();

 private:
  std::string name_;               // as in messages
  std::filesystem::path place_;    // through links, so that these stay
  std::filesystem::path written_;  // place_, if that is no plain file
  std::ofstream stream_;
};

}  // namespace orrery
