#include "cost_models/collective_tables.hpp"

#include "tests/catch.hpp"

using namespace orrery;

namespace {

MeasuredKernels kernels_of(std::vector<LinkTable> tables) {
  MeasuredKernels kernels;
  kernels.links = std::move(tables);
  return kernels;
}

LinkTable nccl_table(std::string op, std::vector<double> bytes, std::vector<double> seconds) {
  return {"nvlink4", "nccl", std::move(op), std::move(bytes), std::move(seconds), ""};
}

}  // namespace

TEST_CASE(
    "a ring collective of one measured number of ranks is launched once and takes as long for every part handled") {
  const MeasuredKernels kernels = kernels_of({nccl_table("all_gather", {1e3, 2e6}, {10e-6, 14e-6})});
  CHECK(ring_collective_over(2, kernels, "nvlink4", "all_gather")->seconds == std::vector<double>{10e-6, 14e-6});
  const LinkTable eight = *ring_collective_over(8, kernels, "nvlink4", "all_gather");
  CHECK(eight.bytes == std::vector<double>{1e3, 2e6});
  CHECK(eight.seconds[0] == Approx(10e-6));
  CHECK(eight.seconds[1] == Approx(10e-6 + 8.0 / 2 * (14e-6 - 10e-6)));
}

TEST_CASE("a ring collective of two measured numbers of ranks is a line in ranks, between and beyond them") {
  const MeasuredKernels kernels = kernels_of({nccl_table("reduce_scatter", {1e6, 2e6}, {10e-6, 14e-6}),
                                              nccl_table("reduce_scatter 4 ranks", {1e6, 2e6}, {22e-6, 30e-6})});
  const auto at = [&](int ranks) { return ring_collective_over(ranks, kernels, "nvlink4", "reduce_scatter")->seconds; };
  CHECK(at(4) == std::vector<double>{22e-6, 30e-6});
  CHECK(at(3)[0] == Approx(10e-6 + (22e-6 - 10e-6) / 2));
  CHECK(at(8)[0] == Approx(22e-6 + 4 * (22e-6 - 10e-6) / 2));
  CHECK(at(8)[1] == Approx(30e-6 + 4 * (30e-6 - 14e-6) / 2));
}

TEST_CASE("over more ranks than were measured a longer message of a ring collective is never faster") {
  // The line through 2 and 4 ranks is steeper for the shorter message: 20 and 15 us for 8 ranks.
  const MeasuredKernels kernels = kernels_of({nccl_table("all_gather", {1e6, 2e6}, {4e-6, 9e-6}),
                                              nccl_table("all_gather 4 ranks", {1e6, 2e6}, {9.33333e-6, 11e-6})});
  const LinkTable eight = *ring_collective_over(8, kernels, "nvlink4", "all_gather");
  CHECK(eight.seconds[0] == Approx(20e-6));
  CHECK(eight.seconds[1] == eight.seconds[0]);
}

TEST_CASE("an all_to_all takes the time of the same bytes sent, over the most ranks measured up to its own") {
  const MeasuredKernels kernels = kernels_of({nccl_table("all_to_all", {1e6, 2e6}, {10e-6, 14e-6}),
                                              nccl_table("all_to_all 4 ranks", {1e6, 2e6}, {12e-6, 19e-6})});
  // Of 1e6 B one of two ranks sends 1/2, one of three 2/3: 0.75e6 B of the latter are as many.
  CHECK(all_to_all_over(3, kernels, "nvlink4")->time(Bytes::from_si(0.75e6)).si() == Approx(10e-6));
  CHECK(all_to_all_over(4, kernels, "nvlink4")->time(Bytes::from_si(2e6)).si() == Approx(19e-6));
  // 7/8 of a share instead of 3/4.
  CHECK(all_to_all_over(8, kernels, "nvlink4")->time(Bytes::from_si(2e6 * (3.0 / 4) / (7.0 / 8))).si() ==
        Approx(19e-6));
}

TEST_CASE("collectives that nobody measured, on this link or of less than two ranks, have no table") {
  const MeasuredKernels kernels =
      kernels_of({nccl_table("all_to_all 4 ranks", {1e6}, {12e-6}), nccl_table("all_gather", {1e6}, {10e-6})});
  CHECK_FALSE(ring_collective_over(4, kernels, "nvlink4", "reduce_scatter"));
  CHECK_FALSE(ring_collective_over(4, kernels, "pcie4", "all_gather"));
  CHECK_FALSE(ring_collective_over(1, kernels, "nvlink4", "all_gather"));
  CHECK_FALSE(all_to_all_over(2, kernels, "nvlink4"));
  CHECK_FALSE(collective_named("send_recv 8 ranks", kernels, "nvlink4"));
  LinkTable by_copies = nccl_table("all_gather", {1e6}, {10e-6});
  by_copies.mechanism = "copy_engine";
  CHECK_FALSE(ring_collective_over(4, kernels_of({by_copies}), "nvlink4", "all_gather"));
  CHECK_FALSE(collective_named("all_gather 2 channels 4 ranks", kernels, "nvlink4"));
}

TEST_CASE("a collective goes by its name to its form and its number of ranks") {
  const MeasuredKernels kernels = kernels_of({nccl_table("all_to_all", {1e6, 2e6}, {10e-6, 14e-6}),
                                              nccl_table("all_gather", {1e6, 2e6}, {10e-6, 14e-6}),
                                              nccl_table("reduce_scatter", {1e6, 2e6}, {10e-6, 15e-6})});
  CHECK(collective_named("all_gather 4 ranks", kernels, "nvlink4")->seconds[1] == Approx(10e-6 + 2 * 4e-6));
  CHECK(collective_named("reduce_scatter 4 ranks", kernels, "nvlink4")->seconds[1] == Approx(10e-6 + 2 * 5e-6));
  CHECK(collective_named("all_to_all 4 ranks", kernels, "nvlink4")->bytes[0] == Approx(1e6 * (1.0 / 2) / (3.0 / 4)));
}
