// The rings against the CPU reference at small sizes, before anything is timed.
#pragma once
#include "kernels/pi_halo.hpp"
#include "kernels/reference.hpp"
#include "kernels/ring.hpp"

namespace orrery {

// Runs a small ring (128 tokens a rank, 2 query heads on 1 key head) with this shape's mask, layout and transport and
// compares O, LSE and the gradients of all ranks with attention over the whole sequence.
Difference check_ring(RingShape shape, bool backward);
Difference check_pi(PiShape shape);
// The small shapes these use, so that their plans can be compiled beforehand.
RingShape small(RingShape shape);
PiShape small(PiShape shape);

}  // namespace orrery
