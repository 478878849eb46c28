#include "kernels/table.hpp"

#include <algorithm>
#include <set>

#include "../catch.hpp"
#include "kernels/run_rows.hpp"

using namespace orrery;

TEST_CASE("every row has a name of its own, a group, and only columns of that group") {
  for (int gpus : {1, 2, 8}) {
    const Table table = make_table(gpus, "test", gpus > 1 ? "nvlink4" : "none");
    std::set<std::string> names;
    for (const Row& row : table.rows) {
      INFO(row.name);
      CHECK(names.insert(row.name).second);
      const auto group =
          std::find_if(table.groups.begin(), table.groups.end(), [&](const Group& g) { return g.name == row.group; });
      REQUIRE(group != table.groups.end());
      CHECK(group->missing.empty());  // a group with rows is not left out
      for (const auto& [key, value] : row.keys) {
        CHECK(std::find(group->columns.begin(), group->columns.end(), key) != group->columns.end());
      }
      CHECK(row.run);
      CHECK_FALSE(row.what.empty());
    }
    for (const Group& group : table.groups) {
      const std::set<std::string> unique(group.columns.begin(), group.columns.end());
      CHECK(unique.size() == group.columns.size());
    }
  }
}

namespace {
std::string key_of(const Row& row, const std::string& name) {
  for (const auto& [key, value] : row.keys) {
    if (key == name) return value;
  }
  return "";
}
double number_of(const Row& row, const std::string& name) {
  return std::stod(key_of(row, name));
}
}  // namespace

TEST_CASE("a run over ranks counts 4 FLOPs forward and 10 backward for every pair, head and number of a head") {
  int runs = 0;
  for (const Row& row : make_table(4, "test", "nvlink4").rows) {
    if (row.group != "ring" || key_of(row, "schedule") == "halo") continue;
    INFO(row.name);
    const double n = number_of(row, "seq_len"), pairs = key_of(row, "causal") == "true" ? n * (n + 1) / 2 : n * n;
    const std::string pass = key_of(row, "pass");
    const double each = pass == "forward" ? 4 : pass == "backward" ? 10 : 14;
    CHECK(row.flops == each * pairs * number_of(row, "heads") * number_of(row, "head_dim"));
    ++runs;
  }
#if ORRERY_HAVE_CUDNN
  CHECK(runs > 100);
#endif
}

TEST_CASE("products count 2 FLOPs a number, and memory-bound kernels the bytes that they must read and write") {
  int gemms = 0, copies = 0;
  for (const Row& row : make_table(1, "test", "none").rows) {
    INFO(row.name);
    if (row.group == "gemm" && ++gemms)
      CHECK(row.flops == 2 * number_of(row, "tokens") * number_of(row, "in") * number_of(row, "out"));
    if (row.group != "elementwise") continue;
    const std::string kernel = key_of(row, "kernel");
    const double tensors = kernel == "add" || kernel == "swiglu" ? 3 : 2, tokens = number_of(row, "tokens");
    const double tables = kernel == "rotary" ? 64 * 8 * tokens : kernel == "embed" ? 4 * tokens : 0;
    CHECK(row.bytes == tensors * 2 * tokens * number_of(row, "width") + tables);
    ++copies;
  }
  CHECK(gemms > 50);
  CHECK(copies > 50);
}

TEST_CASE("rounds of a row are spread evenly over the time of the rows that have one") {
  Row once, host;
  once.expected_s = 1;
  host.rounds = 3;
  const std::vector<const Row*> single(4, &once);
  std::vector<const Row*> rows{&host};
  rows.insert(rows.end(), single.begin(), single.end());
  CHECK(in_rounds(rows) == std::vector<const Row*>{&host, &once, &once, &host, &once, &once, &host});
  CHECK(in_rounds(single) == single);
  CHECK(in_rounds({&host}) == std::vector<const Row*>(3, &host));
}

TEST_CASE("the quick set and the full set fit their time on one GPU by the table's own guesses") {
  double quick = 0, full = 0;
  const Table table = make_table(1, "test", "none");
  for (const Row& row : table.rows) {
    if (row.in_full) full += row.expected_s;
    if (row.quick) quick += row.expected_s;
  }
  CHECK(quick < 120);
  CHECK(full < 480);
}

TEST_CASE("a GPU's key is the name its files go by") {
  CHECK(gpu_key("NVIDIA H200") == "h200_sxm");
  CHECK(gpu_key("NVIDIA H100 80GB HBM3") == "h100_sxm");
  CHECK(gpu_key("NVIDIA A100-SXM4-80GB") == "a100_sxm4_80gb");
}
