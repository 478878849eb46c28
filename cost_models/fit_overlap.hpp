// How much slower NCCL's transfers are beside kernels, from overlap.csv of orrery bench.
#pragma once

#include <optional>
#include <span>

#include "cost_models/kernel_models.hpp"
#include "cost_models/measured_table.hpp"

namespace orrery {

/// From the tables that have transfers beside kernels between GPUs; nothing if none has. `used` gets the rows that the
/// constants come from.
std::optional<NcclBeside> fit_nccl_beside(std::span<const MeasuredTable> tables, RowDigests& used);

}  // namespace orrery
