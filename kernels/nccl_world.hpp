// One NCCL communicator per GPU of this machine, all of one process. Compiled only where NCCL was found.
#pragma once
#include <nccl.h>

#include <memory>
#include <vector>

#include "kernels/cluster.hpp"

namespace orrery {

inline void check_nccl(ncclResult_t status, const char* call, const char* file, int line) {
  if (status == ncclSuccess) return;
  throw BenchError(std::string(call) + ": " + ncclGetErrorString(status) + " (" + file + ":" + std::to_string(line) +
                   ")");
}
#define ORRERY_NCCL(call) ::orrery::check_nccl((call), #call, __FILE__, __LINE__)

// What is queued until end() is one operation. A failure in between closes the group too: one left open would swallow
// everything that the rows after it queue.
class NcclGroup {
 public:
  NcclGroup() { ORRERY_NCCL(ncclGroupStart()); }
  ~NcclGroup() {
    if (open_) ncclGroupEnd();
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  void end() {
    open_ = false;
    ORRERY_NCCL(ncclGroupEnd());
  }

 private:
  bool open_ = true;
};

class NcclWorld {
 public:
  // `channels`: how many thread blocks a collective may take; 0 leaves the choice to NCCL. `reversed`: GPU 0 is the
  // last rank of a collective.
  NcclWorld(int channels, bool reversed);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;
  NcclWorld& operator=(const NcclWorld&) = delete;

  int size() const { return static_cast<int>(comms_.size()); }
  ncclComm_t comm(int gpu) const { return comms_[static_cast<size_t>(gpu)]; }

  // Worlds are expensive to make, so they live until the program ends. Operations of one world run in order, so what
  // shall run at the same time takes worlds of different `lane`.
  static NcclWorld& with_channels(int channels, int lane = 0, bool reversed = false);

 private:
  std::vector<ncclComm_t> comms_;
};

}  // namespace orrery
