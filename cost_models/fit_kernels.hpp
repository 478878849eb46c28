// From measured rows to the constants of a profile, and how well these predict the rows they were not fitted on.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "cost_models/kernel_cost.hpp"
#include "cost_models/measured_kernels.hpp"

namespace orrery {

/// Which rows are missing, or contradict each other.
struct FitError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a row is used for. The shapes of a family are put in order of work; the first of every three is fitted on, the
/// second calibrates the error bands, the third tests them. Of a family of seven shapes the last is not fitted on, so
/// that no more than 40 % are. Families of fewer than five keep what determines something: one of up to three shapes,
/// two of four. Both regimes of a shape share its use. Windows with a halo are families of their
/// own by whether they have one. Times play no part.
enum class RowUse { fitted, calibration, test };
std::vector<RowUse> split(std::span<const MeasuredKernel> rows);

/// Lets the profile know them again. Rows without a model are used for nothing.
void remember(std::span<const MeasuredKernel> rows, std::span<const RowUse> uses, const GpuPeaks& peaks,
              Profile& profile);

/// From this share of the board's power on, the limit holds.
inline constexpr double at_power_limit = 0.97;

/// Facts that no fit can find, from datasheets and file headers.
struct FitFacts {
  GpuPeaks peaks;
  Bytes cache{};  // L2; 0: unknown
  double maximum_clock_hz = 0;
  double power_limit_w = 0;
  double idle_power_w = 0;
  std::string source;                             // of these facts
  std::map<std::string, BytesPerSecond> links{};  // nominal, one direction
};

/// Tensor cores do a power of two of FLOPs a cycle and SM; the peak of the datasheet is that at a clock near this one.
double tensor_flops_per_cycle(const GpuPeaks& peaks, double clock_hz);

struct HeldOutErrors {
  std::string group;
  int fitted = 0, held_out = 0;
  double mean = 0, median = 0, p90 = 0, max = 0;  // of |predicted / measured - 1|, held-out rows
  std::optional<double> coverage = std::nullopt;  // of the test rows by the band; none if there are none
  /// The held-out row that is furthest off, if by more than `noted_factor`: it may set the band of its group.
  std::string far_off{};
};

struct KernelFit {
  Profile profile;
  std::vector<RowUse> uses;
  std::vector<HeldOutErrors> errors;
};

/// `base` holds what is not fitted. The rows of other machines, which are split likewise, only calibrate the error
/// bands. Throws FitError.
using MachineRows = std::map<std::string, std::vector<MeasuredKernel>>;
KernelFit fit_kernels(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base,
                      const MachineRows& other_machines = {});

/// The band of rows measured on another GPU of the same type: chips differ in the clock they reach at the power limit.
/// Runs of many GPUs are as uncertain as that.
inline constexpr const char* other_chip = "another chip";
ErrorBand band_of_other_chip(const MachineRows& machines, const GpuPeaks& peaks, const Profile& profile);

/// How far chips of one type differ in the clock they reach at the power limit; each entry holds the rows of one chip,
/// of which those count that `split` has for fits. `used` gets their digests. Without a source if they are fewer than
/// two.
Constant spread_of_chips(std::span<const std::vector<MeasuredKernel>> chips, const GpuPeaks& peaks,
                         const Profile& profile, RowDigests& used);

/// How far off a row is, either way: 2 if it takes twice or half of what is predicted.
double times_off(Seconds measured, Seconds predicted);
/// From there on a fit says so, and refuses to go on: the row's time is in another unit, or of something else. Of
/// published rates, small blocks that wait for a host take up to five times as long.
inline constexpr double noted_factor = 2, refused_factor = 10;

/// Throws FitError for a row that takes less than a tenth or more than ten times what the others' constants say,
/// whether they were fitted on it or not: its time is in another unit, or of something else.
void refuse_far_off(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, const Profile& profile);

/// The errors of rows by group, in the order in which groups appear.
std::vector<HeldOutErrors> errors_by_group(std::span<const MeasuredKernel> rows, std::span<const RowUse> uses,
                                           const GpuPeaks& peaks, const Profile& profile);

}  // namespace orrery
