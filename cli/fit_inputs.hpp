// What orrery fit reads: measured files that belong together, of one GPU.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cost_models/fit_kernels.hpp"
#include "scenarios/hardware.hpp"

namespace orrery {

/// Of files of orrery bench.
struct BenchInputs {
  std::vector<MeasuredKernel> rows;
  std::optional<NcclBeside> nccl_beside;
  RowDigests rows_of_nccl_beside;
  FitFacts facts;
  std::string gpu;
  std::string backend;
  std::string conditions;
  std::string files;
};

/// Of published rates, without clocks and power.
struct PublishedInputs {
  std::vector<MeasuredKernel> rows;
  std::string gpu;
  std::string backend;
  std::string sources;
};

GpuPeaks peaks_of(const Gpu& gpu);

// All throw FitError, or MeasuredFileError for what one file says.

/// Files of orrery bench say at which clock and power limit they were measured; published tables do not.
bool are_published(const std::vector<std::string>& files);
BenchInputs read_bench_inputs(const std::vector<std::string>& files);
PublishedInputs read_published_inputs(const std::vector<std::string>& files);

/// The rows of --other-chip by machine, none of which is fitted on.
MachineRows read_other_machines(const std::vector<std::string>& files, const std::string& gpu,
                                std::span<const MeasuredKernel> fitted);
/// Rows of full blocks whose keys end inside a tile, and no others.
void add_guarded(const std::string& file, const std::string& gpu, std::vector<MeasuredKernel>& rows);
/// Files of runs of several GPUs.
std::vector<MeasuredTable> read_runs(const std::vector<std::string>& files, const std::string& gpu);

}  // namespace orrery
