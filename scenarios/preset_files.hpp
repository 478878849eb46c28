// Profiles and implementations as files: scenarios/profiles/*.toml, scenarios/implementations/*.toml.
#pragma once

#include <filesystem>
#include <string_view>

#include "cost_models/profile.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/implementation.hpp"

namespace orrery {

/// `gpu` is the GPU it is to be used for; a profile of another one is an error, unless it is made for any. Throws
/// InputError.
Profile load_profile(std::string_view name, std::string_view gpu);

/// Throws InputError if load_profile would refuse this text, as of that file.
void check_profile(std::string_view text, const std::filesystem::path& file);

/// Drops the messages on links that the GPU has not: the lender of the profile has more.
void keep_links_of(const Gpu& gpu, Profile& profile);

/// As this GPU uses it: its own or one for any GPU, or else, at the same fractions of the peaks, one of the GPU that it
/// is like or, if `of_any_gpu`, of whatever GPU. Throws InputError.
Profile profile_for(const Gpu& gpu, std::string_view name, const std::filesystem::path& mentioned_in = {},
                    bool of_any_gpu = false);

Implementation load_implementation(std::string_view name, const std::filesystem::path& mentioned_in = {});

}  // namespace orrery
