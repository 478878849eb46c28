#include "kernels/nccl_world.hpp"

#include <map>
#include <mutex>
#include <tuple>

namespace orrery {

NcclWorld::NcclWorld(int channels, bool reversed) {
  const int gpus = gpu_count();
  comms_.resize(static_cast<size_t>(gpus));
  ncclUniqueId id;
  ORRERY_NCCL(ncclGetUniqueId(&id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  if (channels > 0) config.minCTAs = config.maxCTAs = channels;
  NcclGroup group;
  for (int r = 0; r < gpus; ++r) {
    OnDevice on(r);
    const int rank = reversed ? gpus - 1 - r : r;
    ORRERY_NCCL(ncclCommInitRankConfig(&comms_[static_cast<size_t>(r)], gpus, id, rank, &config));
  }
  group.end();
}

NcclWorld::~NcclWorld() {
  for (ncclComm_t comm : comms_) ncclCommDestroy(comm);
}

NcclWorld& NcclWorld::with_channels(int channels, int lane, bool reversed) {
  static std::mutex mutex;
  // Left to the end of the process on purpose: NCCL must not be torn down after CUDA.
  static auto* worlds = new std::map<std::tuple<int, int, bool>, std::unique_ptr<NcclWorld>>;
  std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<NcclWorld>& world = (*worlds)[{channels, lane, reversed}];
  if (!world) world.reset(new NcclWorld(channels, reversed));
  return *world;
}

}  // namespace orrery
