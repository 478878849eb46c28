// Schedules over ranks against the CPU reference at small sizes, before anything is timed.
#pragma once
#include "kernels/context_schedule.hpp"
#include "kernels/pi_halo.hpp"
#include "kernels/reference.hpp"

namespace orrery {

// Runs the schedule at a small size with this shape's ranks, mask, layout and transport and compares O, LSE and the
// gradients of all ranks with attention over the whole sequence.
Difference check_schedule(const ContextScheduleKind& kind, const ContextShape& shape);
Difference check_pi(PiShape shape);
// The small shapes these use, so that their plans can be compiled beforehand.
ContextShape small(ContextShape shape);
PiShape small(PiShape shape);

}  // namespace orrery
