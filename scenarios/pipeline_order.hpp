// The order in which a pipeline stage works off its microbatches: 1F1B, plain and interleaved (Narayanan et al.,
// arXiv 2104.04473).
#pragma once

#include <vector>

namespace orrery {

struct PipelineSlot {
  bool forward = true;
  int microbatch = 0;
  int chunk = 0;  // of the stage; its layers are those of chunk x stages + stage
};

/// All slots of `stage` in order. `backward`: false for inference. With chunks > 1 microbatches must be a multiple of
/// stages; throws std::invalid_argument otherwise.
std::vector<PipelineSlot> pipeline_order(int stages, int stage, int chunks, int microbatches, bool backward);

}  // namespace orrery
