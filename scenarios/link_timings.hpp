// What of a scenario's messages the tables of its profile time.
#pragma once

#include "scenarios/block_writer.hpp"
#include "scenarios/scenario.hpp"

namespace orrery {

/// Where the profile has tables for messages of this kind on the links that join the GPUs of a node.
LinkTimings link_timings(const Scenario& scenario);

}  // namespace orrery
