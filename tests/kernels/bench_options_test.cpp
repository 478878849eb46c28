#include "kernels/bench_options.hpp"

#include <stdexcept>

#include "../catch.hpp"

using namespace orrery;

TEST_CASE("orrery-bench options: what is given is what is measured") {
  const BenchOptions none = parse_bench_options({});
  CHECK_FALSE(none.full);
  CHECK_FALSE(none.complete());
  CHECK(none.command == "orrery-bench");
  const BenchOptions some = parse_bench_options({"--full", "--only", "gemm/*", "--only", "merge", "--device", "3"});
  CHECK(some.full);
  CHECK(some.only == std::vector<std::string>{"gemm/*", "merge"});
  CHECK(some.device == 3);
  CHECK(some.command == "orrery-bench --full --only gemm/* --only merge --device 3");
  CHECK_FALSE(some.complete());
  CHECK(parse_bench_options({"--full"}).complete());
  CHECK_FALSE(parse_bench_options({"--full", "--quick"}).full);
  const BenchOptions plan = parse_bench_options({"--plan", "h200_sxm:4:nvlink4", "--output", "there"});
  CHECK(plan.planned_gpu == "h200_sxm");
  CHECK(plan.planned_gpus == 4);
  CHECK(plan.planned_link == "nvlink4");
}

TEST_CASE("orrery-bench options: mistakes are named") {
  const auto message = [](const std::vector<std::string>& arguments) -> std::string {
    try {
      parse_bench_options(arguments);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  CHECK(message({"--lst"}) == "\"--lst\" is not an option (see --help)");
  CHECK(message({"--list", "gemm"}) == "\"gemm\" is not an option (see --help)");
  CHECK(message({"--only"}) == "--only needs a value (see --help)");
  CHECK(message({"--only", ""}) == "--only needs a value (see --help)");
  CHECK(message({"--plan", "h200_sxm:4:nvlink4"}) == "--plan needs --output DIR, since its files hold no measurements");
  for (const char* bad : {"h200_sxm", "h200_sxm:4", "h200_sxm:0:nvlink4", "h200_sxm:x:nvlink4", ":4:nvlink4",
                          "h200_sxm:4:", "h200_sxm:257:nvlink4", "h200_sxm:4:nvlink4:x"}) {
    CHECK(message({"--plan", bad}) ==
          "--plan \"" + std::string(bad) +
              "\" is not a GPU, a number of them (at most 256) and a link (h200_sxm:4:nvlink4)");
  }
  CHECK(message({"--output", "a", "--full", "--output", "b"}) == "--output is given twice");
  CHECK(message({"--only", "a", "--only", "a"}) == "accepted");
  for (const char* bad : {"one", "-1", "1x", "99999999999"}) {
    CHECK(message({"--device", bad}) == "--device \"" + std::string(bad) + "\" is not the number of a GPU (0, 1, ...)");
  }
}

TEST_CASE("a partial set of rows never goes where a complete one lies unless told to") {
  CHECK(output_folder(parse_bench_options({"--full"}), "h200_sxm") == "validate/measured/h200_sxm");
  for (const auto& partial : {std::vector<std::string>{}, {"--quick"}, {"--full", "--only", "gemm"}}) {
    CHECK(output_folder(parse_bench_options(partial), "h200_sxm") == "validate/measured/h200_sxm_part");
  }
  CHECK(output_folder(parse_bench_options({"--only", "gemm", "--output", "here"}), "h200_sxm") == "here");
}
