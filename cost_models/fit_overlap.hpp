// How much slower NCCL's transfers are beside kernels, from overlap.csv of orrery bench.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "cost_models/kernel_models.hpp"
#include "cost_models/measured_kernels.hpp"

namespace orrery {

/// From the tables that have transfers beside kernels between GPUs; nothing if none has. `used` gets the rows that the
/// constants come from.
std::optional<NcclBeside> fit_nccl_beside(std::span<const MeasuredTable> tables, RowDigests& used);

/// What NCCL's transfers of such a table take without a kernel beside: messages like any others.
std::vector<MeasuredKernel> transfers_alone(const MeasuredTable& table);

}  // namespace orrery
