// Exact ring attention over ranks: every rank keeps its queries, key/value blocks travel around the ring while blocks
// are computed and merged. Backward: the blocks travel again, and with each of them the sum of its gradients. With
// groups of several members as many rings lie side by side, each with its heads.
//
// Transport by the copy engines (cudaMemcpyPeerAsync, pushed by the sender) or NCCL send/recv.
#pragma once
#include "kernels/context_schedule.hpp"
#include "kernels/merge.hpp"

namespace orrery {

class Ring : public ContextSchedule {
 public:
  Ring(RankRun& run, const ContextShape& shape, bool backward);
  ~Ring() override;
  ShardTensors tensors(int rank) const override;
  void begin() override;
  void queue_forward(int rank) override;
  void queue_backward(int rank, bool after_forward) override;

 private:
  struct Rank;
  Rank& rank(int r) const { return *ranks_[static_cast<size_t>(r)]; }
  void make_rank(int rank, bool backward);
  void make_step(int rank, int step, bool backward);
  // Sends this rank's block of step `step` on, into the neighbour's buffer for the step after.
  void send_block(int rank, int step, bool after_forward);
  void send_gradient(int rank, int step);
  // Waits on the host until the event that announces the block of this step is in its stream, and returns the event.
  cudaEvent_t block_arrival(int rank, int step);
  cudaEvent_t gradient_arrival(int rank, int step);
  BlockWork work(int rank, int step) const;
  int steps() const { return shape_.groups(); }
  int next(int rank) const { return shape_.neighbour(rank, 1); }
  int previous(int rank) const { return shape_.neighbour(rank, -1); }

  RankRun& run_;
  const Shard shard_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace orrery
