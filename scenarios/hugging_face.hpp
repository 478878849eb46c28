// Reads the config.json that Hugging Face models come with.
#pragma once

#include <filesystem>

#include "scenarios/model.hpp"

namespace orrery {

/// Throws InputError: all missing fields at once, and what kind of model is not handled. Fields about anything but the
/// shape are not looked at.
ModelShape load_hugging_face_config(const std::filesystem::path& file);

}  // namespace orrery
