// Runs the program as a user would.
#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/catch.hpp"
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

/// What it prints if nothing is wrong.
inline std::string output_of(const std::string& arguments) {
  const ProgramRun run = run_program(arguments);
  INFO(run.error);
  CHECK(run.exit_code == 0);
  return run.output;
}

/// What it says where it refuses: one line, and prints nothing.
inline std::string refusal_of(const std::string& arguments) {
  const ProgramRun run = run_program(arguments);
  INFO(arguments << ": " << run.error);
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
  CHECK(run.error.starts_with("orrery: "));
  CHECK(std::count(run.error.begin(), run.error.end(), '\n') == 1);
  return run.error;
}

inline void check_refused(const std::string& arguments, const std::string& words) {
  CHECK_THAT(refusal_of(arguments), ContainsSubstring(words));
}

}  // namespace orrery
