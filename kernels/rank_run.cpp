#include "kernels/rank_run.hpp"

#include <algorithm>

namespace orrery {

void RankStreams::sides_follow() const {
  here_.record(compute_);
  for (const Stream& side : sides_) ORRERY_CUDA(cudaStreamWaitEvent(side, here_, 0));
}

RankRun::RankRun(int ranks, Transport transport) : pool_(ranks) {
  const Ranks devices(ranks);
  enable_peer_access();
  if (transport == Transport::nccl) {
#if !ORRERY_HAVE_NCCL
    throw BenchError("built without NCCL");
#endif
    if (devices.is_virtual()) throw BenchError("NCCL refuses two ranks on one GPU");
    if (ranks != devices.gpus) throw BenchError("NCCL runs over all GPUs, one rank each");
  }
  for (int r = 0; r < ranks; ++r) {
    OnDevice on(devices.device(r));
    ranks_.emplace_back(new RankStreams(devices.device(r)));
  }
}

void RankRun::on_all(const std::function<void(int)>& task) {
  pool_.run([&](int r) {
    ORRERY_CUDA(cudaSetDevice((*this)[r].device()));
    task(r);
  });
}

double RankRun::execute(Schedule& schedule, bool forward, bool backward, bool hold, std::vector<OpSpan>* spans) {
  schedule.begin();
  gate_.reset();
  try {
    on_all([&](int r) {
      RankStreams& k = (*this)[r];
      k.spans_.clear();
      k.stamps_ = spans != nullptr;
      if (hold) {
        gate_.hold(k.compute_);
        for (const Stream& side : k.sides_) gate_.hold(side);
      }
      k.start_.record(k.compute_);
      if (forward) schedule.queue_forward(r);
      if (backward) schedule.queue_backward(r, forward);
      k.end_.record(k.compute_);
    });
  } catch (...) {
    gate_.release();
    for (auto& k : ranks_) {
      OnDevice on(k->device_);
      cudaDeviceSynchronize();
    }
    throw;
  }
  gate_.release();
  double slowest = 0;
  for (int r = 0; r < size(); ++r) {
    RankStreams& k = (*this)[r];
    OnDevice on(k.device_);
    k.compute_.sync();
    for (const Stream& side : k.sides_) side.sync();
    slowest = std::max(slowest, elapsed_us(k.start_, k.end_));
    if (!spans) continue;
    for (const RankStreams::Stamps& s : k.spans_) {
      spans->push_back({r, s.step, s.op, elapsed_us(k.start_, s.start), elapsed_us(k.start_, s.end)});
    }
  }
  return slowest;
}

}  // namespace orrery
