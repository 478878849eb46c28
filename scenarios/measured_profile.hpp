// The measured part of a profile file: [kernels] and what is below it. `orrery fit` writes it.
#pragma once

#include <string>
#include <string_view>

#include "cost_models/profile.hpp"
#include "scenarios/reader.hpp"

namespace orrery {

Provenance provenance_named(std::string_view name);

MeasuredKernels read_measured_kernels(const Table& table);

/// The whole file, for read_measured_kernels and load_profile to read. `conditions`: what was measured, where and when.
std::string write_profile(const Profile& profile, std::string_view gpu, std::string_view description,
                          std::string_view conditions);

}  // namespace orrery
