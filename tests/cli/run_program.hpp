// Runs the program as a user would.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/scratch_folder.hpp"

namespace orrery {

struct ProgramRun {
  int exit_code = 0;
  std::string output, error;
};

inline ProgramRun run_program(const std::string& arguments, const std::filesystem::path& program = ORRERY_PROGRAM) {
  const ScratchFolder folder;
  const std::string out = (folder.path() / "out").string(), err = (folder.path() / "err").string();
  const int status = std::system((program.string() + " " + arguments + " >" + out + " 2>" + err).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

}  // namespace orrery
