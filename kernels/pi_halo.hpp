// pi-Attention over ranks: a causal window, a gated skip of one key (i - period), and the rows of the previous rank
// that both need (the halo), exchanged before the rank computes. Backward: the gradients of the halo's rows go back to
// the rank that owns them and are added there.
#pragma once
#include <memory>
#include <vector>

#include "kernels/attention_op.hpp"
#include "kernels/gate_skip.hpp"
#include "kernels/rank_run.hpp"

namespace orrery {

struct PiShape {
  int ranks = 2;
  int64_t n = 4096;  // tokens of one rank
  int64_t heads = 32, kv_heads = 32, head_dim = 128;
  int64_t window = 1024;  // keys a query sees, itself included
  int64_t period = 2048;  // of the skip; 0: none, and no gate
  Transport transport = Transport::copy_engine;
  int channels = 0;

  bool gated() const { return period > 0; }
  // Rows of keys taken from the previous rank (one more than needed, a whole number of tiles), and of values.
  int64_t key_halo() const { return window; }
  int64_t value_halo() const { return std::max(window, period); }
  AttentionShape attention(bool first_rank) const;
  GateSkip gate(bool first_rank) const;
};

class PiHalo : public Schedule {
 public:
  PiHalo(RankRun& run, const PiShape& shape, bool backward);
  ~PiHalo() override;

  void fill_random(uint64_t seed);
  void upload(int rank, const std::vector<uint16_t>& q, const std::vector<uint16_t>& k, const std::vector<uint16_t>& v,
              const std::vector<float>& gate, const std::vector<uint16_t>& d_out);
  struct Result {
    std::vector<double> out, dq, dk, dv, d_gate;
  };
  Result download(int rank, bool backward);
  void begin() override;
  void queue_forward(int rank) override;
  void queue_backward(int rank, bool after_forward) override;

 private:
  struct Rank;
  Rank& rank(int r) const { return *ranks_[static_cast<size_t>(r)]; }
  void make_rank(int rank, bool backward);

  const PiShape shape_;
  RankRun& run_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace orrery
