// Times of NCCL's collectives over any number of ranks, from those over the numbers that were measured.
#pragma once

#include <optional>
#include <string_view>

#include "cost_models/kernel_models.hpp"

namespace orrery {

/// An all_gather or reduce_scatter of NCCL's ring over `ranks`, as its tables count bytes. A rank sends its own part,
/// passes on ranks - 2 others and takes the last (NCCL 2.28, src/device/all_gather.h and reduce_scatter.h), so that the
/// time is a line in `ranks`: through the two measured numbers next to it or, where one alone was measured, in what the
/// message takes beyond the shortest one. Nothing where none was measured. What the link carries at most is left to
/// the caller.
std::optional<LinkTable> ring_collective_over(int ranks, const MeasuredKernels& kernels, std::string_view link,
                                              std::string_view op);

/// An all_to_all over `ranks`, as its tables count bytes: a rank's whole share, of which it keeps 1/ranks. The same
/// bytes sent take the same time as over the most ranks measured up to `ranks`: NCCL shares its channels among the
/// peers.
std::optional<LinkTable> all_to_all_over(int ranks, const MeasuredKernels& kernels, std::string_view link);

/// Either of them, as tables are named: "all_gather", "all_to_all 4 ranks". Nothing for other operations.
std::optional<LinkTable> collective_named(std::string_view name, const MeasuredKernels& kernels, std::string_view link);

}  // namespace orrery
