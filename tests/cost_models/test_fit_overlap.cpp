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

TEST_CASE(
    "No transfer is faster beside a kernel, one size or two alike say nothing, and a table without transfers is no "
    "model") {
  const NcclBeside faster =
      fit_nccl_beside(std::vector{table_of(row("gemm", 1, 4000, 3900) + row("gemm", 4, 1000, 1000))}, used).value();
  CHECK(faster.matrix_products.value == 1);
  const NcclBeside one = fit_nccl_beside(std::vector{table_of(row("gemm", 1, 4000, 8000))}, used).value();
  CHECK(one.matrix_products.provenance == Provenance::assumed);
  const MeasuredTable alike = table_of(row("gemm", 1, 4000, 8000) + row("gemm", 2, 4000 / 1.4, 3000));
  CHECK(fit_nccl_beside(std::vector{alike}, used)->matrix_products.provenance == Provenance::assumed);
  CHECK_FALSE(fit_nccl_beside(std::vector{table_of(row("merge", 1, 100, 300, "copy_engine"))}, used));
  CHECK_FALSE(fit_nccl_beside({}, used));
}

TEST_CASE("Beside a kernel nothing gets faster, or a thousand times slower: one of the columns is in another unit") {
  for (const double factor : {1e-3, 0.5, 1e3}) {
    INFO(factor);
    CHECK_THROWS_WITH(fit_nccl_beside(std::vector{table_of(row("merge", 1, 100, 100 * factor))}, used),
                      ContainsSubstring("overlap.csv:2") && ContainsSubstring("transfer_overlapped_us"));
  }
  for (const double factor : {0.96, 16.0})
    CHECK_NOTHROW(fit_nccl_beside(std::vector{table_of(row("merge", 1, 100, 100 * factor))}, used));
}

TEST_CASE("A transfer alone is a message like those of links.csv and collectives.csv") {
  const MeasuredTable table = MeasuredTable::parse(
      "gpu,link,n_gpu,kernel,mechanism,channels,transfer_bytes,transfer_alone_us,status\n"
      "h,nvlink4,4,merge,nccl_send_recv,8,1e8,700,ok\nh,nvlink4,2,merge,nccl_all_gather,auto,1e8,500,ok\n"
      "h,nvlink4,2,merge,copy_engine,,1e8,300,ok\n",
      "overlap.csv");
  const std::vector<MeasuredKernel> alone = transfers_alone(table);
  REQUIRE(alone.size() == 2);  // those of a copy engine are no row of links.csv
  CHECK(alone[0].family == "nvlink4 nccl send_recv 8 channels 4 ranks");
  CHECK(alone[1].family == "nvlink4 nccl all_gather");
  CHECK(alone[1].time == Seconds::from_si(500e-6));
}

TEST_CASE("A transfer that takes no time is an error that names its row") {
  CHECK_THROWS_WITH(fit_nccl_beside(std::vector{table_of(row("merge", 1, 0, 300))}, used),
                    ContainsSubstring("overlap.csv:2") && ContainsSubstring("takes no time"));
}
