// What no row can say that was measured: rates beyond the hardware, powers beyond the board, messages of one kind that
// contradict each other. A constant fitted to such rows would look like any other. All throw FitError.
#pragma once

#include <span>

#include "cost_models/fit_kernels.hpp"

namespace orrery {

/// Powers below that of an idle GPU or far beyond the limit, clocks beyond the maximum: one is in another unit.
void check_conditions(const MeasuredTable& table, const FitFacts& facts);

/// A row that the tensor cores, HBM or its link cannot run so fast, and a family whose largest row takes a hundred
/// times as long as they need, over the start that its smallest one shows.
void check_rates(std::span<const MeasuredKernel> rows, const FitFacts& facts);

/// Messages of one kind: as many bytes take as long in every file, more bytes not much less, and not much more than in
/// proportion. A file that is off by one factor is told so.
void check_messages(std::span<const MeasuredKernel> rows);

/// A kind whose rows that were left out are far from what the fitted ones say: they do not belong to one model.
void check_held_out(std::span<const HeldOutErrors> errors);

}  // namespace orrery
