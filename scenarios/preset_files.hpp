// Profiles and implementations as files: scenarios/profiles/*.toml, scenarios/implementations/*.toml.
#pragma once

#include <filesystem>
#include <string_view>

#include "cost_models/profile.hpp"
#include "scenarios/implementation.hpp"

namespace orrery {

/// `gpu` is the GPU it is to be used for; a profile of another one is an error, unless it is made for any. Throws
/// InputError.
Profile load_profile(std::string_view name, std::string_view gpu, const std::filesystem::path& mentioned_in = {});

Implementation load_implementation(std::string_view name, const std::filesystem::path& mentioned_in = {});

}  // namespace orrery
