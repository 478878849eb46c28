// A profile from published rates of attention kernels: times of known shapes, but neither clocks nor power, and of
// other kernels nothing.
#pragma once

#include <optional>

#include "cost_models/fit_kernels.hpp"

namespace orrery {

inline constexpr double usual_clock_hz = 1.9e9;  // near enough to any of these chips to tell powers of two apart

/// A profile of the same or another GPU, which lends what the rows do not say. Its links are those that both GPUs have.
struct LentProfile {
  Profile profile;
  GpuPeaks peaks;
  bool of_same_gpu = false;  // as the rows: peaks alone do not tell an H100 from an H800
};

/// Cycles are counted at the clock of the datasheet's peak, which is taken to hold always: what a kernel really runs at
/// is part of its cycles then. Fitted by the same rule as measured rows (split()): launch, start of a list, full and
/// masked tile, for each pass. With fewer rows than these four, the rows say by which one factor the lender's cycles
/// (of the same kernel on another GPU) are longer. Kernels that only move bytes are the lender's if no row is of them,
/// at the same fraction of the HBM bandwidth. Throws FitError.
KernelFit fit_published(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, Profile base,
                        const std::optional<LentProfile>& lent);

}  // namespace orrery
