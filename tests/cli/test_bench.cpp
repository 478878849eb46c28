// `orrery bench` is orrery-bench beside the program, whatever that is.
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
namespace fs = std::filesystem;

TEST_CASE("bench without orrery-bench says how to get it and exits with 2") {
  const ScratchFolder folder;
  const fs::path program = folder.path() / "orrery";
  fs::copy_file(ORRERY_PROGRAM, program);
  const ProgramRun run = run_program("bench --list", program);
  CHECK(run.exit_code == 2);
  CHECK(run.output.empty());
  CHECK_THAT(run.error, ContainsSubstring((folder.path() / "orrery-bench").string() + " does not exist"));
  CHECK_THAT(run.error, ContainsSubstring("CUDA toolkit"));
}

TEST_CASE("bench passes every argument on as it is, and the exit code back") {
  const ScratchFolder folder;
  const fs::path program = folder.path() / "orrery";
  fs::copy_file(ORRERY_PROGRAM, program);
  const fs::path bench = folder.write("orrery-bench", "#!/bin/sh\nfor a in \"$@\"; do echo \"<$a>\"; done\nexit 7\n");
  fs::permissions(bench, fs::perms::owner_all);
  const ProgramRun run = run_program("bench --full --only 'gemm/*' --only 'a b' --help --version -- x", program);
  CHECK(run.output == "<--full>\n<--only>\n<gemm/*>\n<--only>\n<a b>\n<--help>\n<--version>\n<-->\n<x>\n");
  CHECK(run.error.empty());
  CHECK(run.exit_code == 7);
  CHECK(run_program("bench", program).output.empty());
}
