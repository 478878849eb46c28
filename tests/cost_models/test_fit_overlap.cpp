// Constants of NCCL beside kernels, from rows made with known ones.
#include "cost_models/fit_overlap.hpp"

#include <fmt/format.h>

#include <string>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

const std::string header = "gpu,link,n_gpu,kernel,mechanism,channels,transfer_alone_us,transfer_overlapped_us,status\n";

MeasuredTable table_of(const std::string& rows) {
  return MeasuredTable::parse(header + rows, "overlap.csv");
}

std::string row(const std::string& kernel, int channels, double alone, double beside,
                const std::string& mechanism = "nccl_send_recv") {
  return fmt::format("h,nvlink4,2,{},{},{},{},{},ok\n", kernel, mechanism, channels, alone, beside);
}

RowDigests used;
}  // namespace

TEST_CASE("Beside attention and products the slow-down is the slope, so that the wait for SMs does not count") {
  const double wait = 700, slow = 1.2;
  std::string rows;
  for (const std::string kernel : {"attention_forward", "attention_backward", "gemm"}) {
    for (const int channels : {1, 4, 16}) {
      const double alone = 6400.0 / channels;
      rows += row(kernel, channels, alone, wait + slow * alone);
    }
  }
  const NcclBeside found = fit_nccl_beside(std::vector{table_of(rows)}, used).value();
  CHECK_THAT(found.attention_forward.value, WithinRel(slow, 1e-9));
  CHECK_THAT(found.attention_backward.value, WithinRel(slow, 1e-9));
  CHECK_THAT(found.matrix_products.value, WithinRel(slow, 1e-9));
  CHECK_THAT(found.matrix_products.high, WithinRel((wait + slow * 6400) / 6400, 1e-9));
  CHECK(found.streams.provenance == Provenance::assumed);
}

TEST_CASE("Beside kernels that stream it is the median ratio of every third row, of NCCL's send and receive alone") {
  std::string rows = row("merge", 1, 100, 1000, "copy_engine");
  for (const double ratio : {3.0, 9.0, 9.5, 4.0, 9.7, 9.8, 5.0}) rows += row("merge", 1, 100, 100 * ratio);
  RowDigests seen;
  const NcclBeside found = fit_nccl_beside(std::vector{table_of(rows)}, seen).value();
  CHECK_THAT(found.streams.value, WithinRel(4, 1e-9));
  CHECK(found.streams.rows == 3);
  const MeasuredTable table = table_of(rows);
  CHECK(seen.contains(row_digest(table, 1)));        // the first of NCCL's rows is fitted on
  CHECK_FALSE(seen.contains(row_digest(table, 2)));  // the second is not
  CHECK_FALSE(seen.contains(row_digest(table, 0)));  // nor a copy engine's
}

TEST_CASE("No transfer is faster beside a kernel, one size says nothing, and a table without transfers is no model") {
  const NcclBeside faster =
      fit_nccl_beside(std::vector{table_of(row("gemm", 1, 4000, 3900) + row("gemm", 4, 1000, 1000))}, used).value();
  CHECK(faster.matrix_products.value == 1);
  const NcclBeside one = fit_nccl_beside(std::vector{table_of(row("gemm", 1, 4000, 8000))}, used).value();
  CHECK(one.matrix_products.provenance == Provenance::assumed);
  CHECK_FALSE(fit_nccl_beside(std::vector{table_of(row("merge", 1, 100, 300, "copy_engine"))}, used));
  CHECK_FALSE(fit_nccl_beside({}, used));
}

TEST_CASE("A transfer that takes no time is an error that names its row") {
  CHECK_THROWS_WITH(fit_nccl_beside(std::vector{table_of(row("merge", 1, 0, 300))}, used),
                    ContainsSubstring("overlap.csv:2") && ContainsSubstring("takes no time"));
}
