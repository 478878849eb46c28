#include "kernels/nccl_world.hpp"

#include <map>
#include <mutex>

namespace orrery {

NcclWorld::NcclWorld(int channels) {
  const int gpus = gpu_count();
  comms_.resize(static_cast<size_t>(gpus));
  ncclUniqueId id;
  ORRERY_NCCL(ncclGetUniqueId(&id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  if (channels > 0) config.minCTAs = config.maxCTAs = channels;
  ORRERY_NCCL(ncclGroupStart());
  for (int r = 0; r < gpus; ++r) {
    OnDevice on(r);
    ORRERY_NCCL(ncclCommInitRankConfig(&comms_[static_cast<size_t>(r)], gpus, id, r, &config));
  }
  ORRERY_NCCL(ncclGroupEnd());
}

NcclWorld::~NcclWorld() {
  for (ncclComm_t comm : comms_) ncclCommDestroy(comm);
}

NcclWorld& NcclWorld::with_channels(int channels, int lane) {
  static std::mutex mutex;
  static auto* worlds =
      new std::map<std::pair<int, int>, std::unique_ptr<NcclWorld>>;  // left to the end of the process on purpose:
  std::lock_guard<std::mutex> lock(mutex);                            // NCCL must not be torn down after CUDA
  std::unique_ptr<NcclWorld>& world = (*worlds)[{channels, lane}];
  if (!world) world.reset(new NcclWorld(channels));
  return *world;
}

}  // namespace orrery
