#include "kernels/overlap_sides.hpp"

#include "kernels/cluster.hpp"
#include "kernels/workload.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

Side compute_side(const std::string& kernel, int ranks) {
  auto workloads = std::make_shared<std::vector<std::shared_ptr<Workload>>>();
  for (int r = 0; r < ranks; ++r) {
    OnDevice on(r);
    Stream setup;
    workloads->push_back(make_workload(kernel, r, setup));
    setup.sync();
  }
  Side side;
  side.state = workloads;
  side.flops = workloads->front()->flops;
  side.bytes = workloads->front()->bytes;
  side.queue = [workloads](const std::vector<Stream>& streams) {
    for (size_t r = 0; r < workloads->size(); ++r) {
      OnDevice on(static_cast<int>(r));
      (*workloads)[r]->launch(streams[r]);
    }
  };
  return side;
}

namespace {
struct TransferBuffers {
  std::vector<DeviceBuffer> in, out;
  void* host = nullptr;
  ~TransferBuffers() { cudaFreeHost(host); }
};

}  // namespace

Side transfer_side(const Mechanism& mechanism, int ranks) {
  auto buffers = std::make_shared<TransferBuffers>();
  const bool host = mechanism.name == "copy_to_host";
  const size_t bytes = host ? size_t{32} << 20 : size_t{128} << 20;
  for (int r = 0; r < ranks; ++r) {
    OnDevice on(r);
    buffers->in.emplace_back(bytes);
    buffers->out.emplace_back(mechanism.name == "nccl_all_gather" ? bytes * static_cast<size_t>(ranks) : bytes);
    fill_normal_bf16(buffers->in.back().get(), bytes / 2, 300 + static_cast<uint64_t>(r), nullptr);
    ORRERY_CUDA(cudaDeviceSynchronize());
  }
  Side side;
  side.state = buffers;
  side.is_transfer = true;
  side.bytes = static_cast<double>(bytes);
  if (host) ORRERY_CUDA(cudaHostAlloc(&buffers->host, bytes, cudaHostAllocPortable));
  if (host || mechanism.name == "copy_engine") {
    enable_peer_access();
    side.queue = [buffers, ranks, bytes, host](const std::vector<Stream>& streams) {
      for (int r = 0; r < ranks; ++r) {
        OnDevice on(r);
        const int next = (r + 1) % ranks;
        if (host) {
          ORRERY_CUDA(cudaMemcpyAsync(buffers->host, buffers->in[r].get(), bytes, cudaMemcpyDeviceToHost, streams[r]));
        } else if (next == r) {
          ORRERY_CUDA(cudaMemcpyAsync(buffers->out[r].get(), buffers->in[r].get(), bytes, cudaMemcpyDeviceToDevice,
                                      streams[r]));
        } else {
          ORRERY_CUDA(cudaMemcpyPeerAsync(buffers->out[next].get(), next, buffers->in[r].get(), r, bytes, streams[r]));
        }
      }
    };
    return side;
  }
#if ORRERY_HAVE_NCCL
  const int channels = mechanism.channels;
  const bool gather = mechanism.name == "nccl_all_gather";
  NcclWorld::with_channels(channels);
  side.queue = [buffers, ranks, bytes, channels, gather](const std::vector<Stream>& streams) {
    NcclWorld& world = NcclWorld::with_channels(channels);
    NcclGroup group;
    for (int r = 0; r < ranks; ++r) {
      if (gather) {
        ORRERY_NCCL(ncclAllGather(buffers->in[r].get(), buffers->out[r].get(), bytes / 2, ncclBfloat16, world.comm(r),
                                  streams[r]));
        continue;
      }
      ORRERY_NCCL(ncclSend(buffers->in[r].get(), bytes / 2, ncclBfloat16, (r + 1) % ranks, world.comm(r), streams[r]));
      ORRERY_NCCL(
          ncclRecv(buffers->out[r].get(), bytes / 2, ncclBfloat16, (r + ranks - 1) % ranks, world.comm(r), streams[r]));
    }
    group.end();
  };
#endif
  std::vector<Stream> streams;  // NCCL connects on first use, which must not happen while streams are held
  for (int r = 0; r < ranks; ++r) {
    OnDevice on(r);
    streams.emplace_back();
  }
  if (side.queue) side.queue(streams);
  for (int r = 0; r < ranks; ++r) {
    OnDevice on(r);
    streams[static_cast<size_t>(r)].sync();
  }
  return side;
}

}  // namespace orrery
