// Runs what a schedule queues on all ranks, from a common start, and times it: one host thread and one GPU a rank (see
// cluster.hpp), everything queued before anything runs.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cluster.hpp"
#include "kernels/context_shape.hpp"
#include "kernels/rank_pool.hpp"

namespace orrery {

inline void wait(cudaStream_t stream, cudaEvent_t event) {
  ORRERY_CUDA(cudaStreamWaitEvent(stream, event, 0));
}

// Time stamps of one operation, from the rank's start.
struct OpSpan {
  int rank = 0, step = 0;
  std::string op;  // attention, merge, accumulate, kv_transfer, gradient_transfer, all_to_all, ...
  double start_us = 0, end_us = 0;
};

// The GPU and the streams of a rank.
class RankStreams {
 public:
  explicit RankStreams(int device) : device_(device) {}
  int device() const { return device_; }
  cudaStream_t compute() const { return compute_; }
  // A stream for transfers that go on beside the compute stream.
  cudaStream_t add_side() {
    sides_.emplace_back(true);
    return sides_.back();
  }
  // The side streams go on when the compute stream gets here.
  void sides_follow() const;

  // What `launch` queues, between two time stamps if this run has any (which cost some microseconds a step).
  template <class F>
  void stamped(cudaStream_t stream, int step, const char* op, F&& launch) {
    if (!stamps_) return launch();
    Stamps stamps{Event(), Event(), step, op};
    stamps.start.record(stream);
    launch();
    stamps.end.record(stream);
    spans_.push_back(std::move(stamps));
  }

 private:
  friend class RankRun;
  struct Stamps {
    Event start, end;
    int step;
    const char* op;
  };
  int device_;
  Stream compute_;
  std::vector<Stream> sides_;
  Event start_, end_, here_{false};
  bool stamps_ = false;
  std::vector<Stamps> spans_;
};

// What the ranks queue. The functions of a rank are called by its own thread, its GPU current.
class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual void begin() = 0;  // before a run: forgets what the last one recorded
  virtual void queue_forward(int rank) = 0;
  virtual void queue_backward(int rank, bool after_forward) = 0;
};

class RankRun {
 public:
  RankRun(int ranks, Transport transport);
  int size() const { return pool_.size(); }
  RankStreams& operator[](int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  const RankPool& pool() const { return pool_; }
  void on_all(const std::function<void(int rank)>& task);

  // Time of the slowest rank in microseconds from the common start. With `spans`, stamps every operation.
  double run(Schedule& schedule, bool forward, bool backward, std::vector<OpSpan>* spans = nullptr) {
    return execute(schedule, forward, backward, true, spans);
  }
  // The same without a common start: connects and loads what is connected and loaded lazily.
  void warm_up(Schedule& schedule, bool forward, bool backward) {
    execute(schedule, forward, backward, false, nullptr);
  }

 private:
  double execute(Schedule& schedule, bool forward, bool backward, bool hold, std::vector<OpSpan>* spans);

  StartGate gate_;
  std::vector<std::unique_ptr<RankStreams>> ranks_;
  RankPool pool_;
};

}  // namespace orrery
