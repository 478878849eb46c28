// Exact ring attention over ranks: every rank keeps its queries, key/value blocks travel around the ring while blocks
// are computed and merged. Backward: the blocks travel again, and with each of them the sum of its gradients.
//
// One host thread a rank. Transport by the copy engines (cudaMemcpyPeerAsync, pushed by the sender) or NCCL send/recv.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention_op.hpp"
#include "kernels/cluster.hpp"
#include "kernels/merge.hpp"
#include "kernels/rank_pool.hpp"

namespace orrery {

enum class Layout { contiguous, zigzag, striped };
enum class Transport { copy_engine, nccl };

struct RingShape {
  int ranks = 2;
  int64_t n = 1024;  // tokens of one rank
  int64_t heads = 32, kv_heads = 32, head_dim = 128;
  bool causal = false;
  Layout layout = Layout::contiguous;
  Transport transport = Transport::copy_engine;
  int channels = 0;  // of NCCL; 0 leaves it to NCCL

  int64_t q_count() const { return n * heads * head_dim; }
  int64_t kv_count() const { return n * kv_heads * head_dim; }
};

// Which part of a (query, key) block pair has work. Offsets and lengths in tokens of the rank's own order.
struct BlockWork {
  bool any = false;
  Mask mask = Mask::full;
  int64_t q_from = 0, q_count = 0, k_from = 0, k_count = 0;
};
// Rank's queries against the block that `owner` owns. With zigzag, rank r owns the chunks r and 2P-1-r of 2P; striped,
// the tokens r, r + P, r + 2P, ...
BlockWork block_work(const RingShape& shape, int rank, int owner);
// The queries of blocks that not all queries of a rank see (zigzag, striped); the same ones for all such blocks.
BlockWork partial_queries(const RingShape& shape);
// Global position of token i of a rank.
int64_t global_token(const RingShape& shape, int rank, int64_t i);
// All plans a ring needs, so that they can be compiled beforehand.
std::vector<AttentionPlanKey> ring_plans(const RingShape& shape, bool backward);

struct RingSpan {
  int rank = 0, step = 0;
  std::string op;  // attention, merge, accumulate, kv_transfer, gradient_transfer
  double start_us = 0, end_us = 0;
};

class Ring {
 public:
  Ring(const RingShape& shape, bool backward);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  const RingShape& shape() const { return shape_; }
  void fill_random(uint64_t seed);
  // Host data in bf16 bits, token-major, in the rank's own token order.
  void upload(int rank, const std::vector<uint16_t>& q, const std::vector<uint16_t>& k, const std::vector<uint16_t>& v,
              const std::vector<uint16_t>& d_o);
  struct Result {
    std::vector<double> o, lse, dq, dk, dv;
  };
  Result download(int rank, bool backward);

  // Time of the slowest rank in microseconds from the common start. With `spans`, stamps every operation (which costs a
  // microsecond or two a step).
  double run(bool forward, bool backward, std::vector<RingSpan>* spans = nullptr);
  // The same without a common start: connects and loads what is connected and loaded lazily.
  void warm_up(bool forward, bool backward);

 private:
  struct Rank;
  struct Span {
    Event start, end;
    int step;
    const char* op;
  };
  void queue(int rank, bool forward, bool backward, bool hold, bool stamp);
  void queue_forward(int rank, bool stamp);
  void queue_backward(int rank, bool after_forward, bool stamp);
  double execute(bool forward, bool backward, bool hold, std::vector<RingSpan>* spans);
  void make_rank(int rank, bool backward);
  // Sends this rank's block of step `step` on, into the neighbour's buffer for the step after.
  void send_block(int rank, int step, bool after_forward, bool stamp);
  void send_gradient(int rank, int step, bool stamp);
  cudaEvent_t block_arrival(int rank, int step);
  cudaEvent_t gradient_arrival(int rank, int step);
  int next(int rank) const { return (rank + 1) % shape_.ranks; }
  int previous(int rank) const { return (rank + shape_.ranks - 1) % shape_.ranks; }

  RingShape shape_;
  Ranks devices_;
  StartGate gate_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  RankPool pool_;
};

}  // namespace orrery
