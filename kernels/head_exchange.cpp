// DeepSpeed-Ulysses (arXiv 2309.14509) and USP (arXiv 2405.07719): the members of a group trade tokens for heads,
// attend all tokens of the group, or with the other groups in rings, and trade back. An all-to-all each for Q, K and V,
// for O, for dO, and for dQ, dK and dV. Token-major rows lie in pieces where a rank holds all heads, so these are
// packed before an all-to-all and unpacked behind it; where it holds the heads of its share they lie as the kernels
// read them.
#include <algorithm>

#include "kernels/context_schedule.hpp"
#include "kernels/elementwise.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {
namespace {

// The exchanges of a run in their order.
enum Trip { kInputs, kOutput, kOutputGradient, kGradients, kTrips };
bool is_to_heads(Trip trip) {
  return trip == kInputs || trip == kOutputGradient;
}

class HeadExchange : public ContextSchedule {
 public:
  HeadExchange(RankRun& run, const ContextShape& shape, bool backward)
      : ContextSchedule(shape), run_(run), ranks_(static_cast<size_t>(run.size())) {
    require_even(shape);
    inside_ = shape.groups() == 1 ? make_all_gather(run, shape, backward) : make_ring(run, shape, backward);
#if ORRERY_HAVE_NCCL
    if (shape.transport == Transport::nccl) NcclWorld::with_channels(shape.channels);
#endif
    run.on_all([&](int r) { make_rank(r, backward); });
  }

  ShardTensors tensors(int r) const override {
    const Rank& k = rank(r);
    return {k.q.get(), k.kv.get(), k.o.get(), nullptr, k.d_o.get(), k.dq.get(), k.dkv.get()};
  }

  void begin() override {
    for (auto& k : ranks_) k->sent_count.reset();
    inside_->begin();
  }

  void queue_forward(int r) override {
    Rank& k = rank(r);
    k.on.stamped(k.compute, 0, "pack", [&] {
      pack(k, k.packed_q, k.q, false);
      pack(k, k.packed_kv, k.kv, true);
    });
    exchange(r, kInputs);
    k.on.sides_follow();
    inside_->queue_forward(r);
    exchange(r, kOutput);
    k.on.stamped(k.compute, 0, "unpack", [&] { unpack(k, k.o, k.arrived_q, false); });
  }

  void queue_backward(int r, bool after_forward) override {
    Rank& k = rank(r);
    k.on.stamped(k.compute, 0, "pack", [&] { pack(k, k.packed_q, k.d_o, false); });
    exchange(r, kOutputGradient);
    k.on.sides_follow();
    inside_->queue_backward(r, after_forward);
    exchange(r, kGradients);
    k.on.stamped(k.compute, 0, "unpack", [&] {
      unpack(k, k.dq, k.arrived_q, false);
      unpack(k, k.dkv, k.arrived_kv, true);
    });
  }

 private:
  struct Rank {
    explicit Rank(RankStreams& streams) : on(streams), compute(streams.compute()) {}
    RankStreams& on;
    const cudaStream_t compute;
    DeviceBuffer q, kv, o, d_o, dq, dkv;
    // Each exchange has buffers of its own at the receiver but for dQ, which lands where O did: a rank sends it only
    // after all dO have reached it, which their ranks sent after they had unpacked O.
    DeviceBuffer packed_q, packed_kv, arrived_q, arrived_kv;
    std::vector<Event> sent;  // by trip
    Recorded sent_count;
  };
  struct Message {
    const void* from;
    void* to;
    int64_t count;
  };

  Rank& rank(int r) const {
    return *ranks_[static_cast<size_t>(r)];
  }
  int member(int r, int distance) const {  // of the same group
    const int u = shape_.members;
    return shape_.group_of(r) * u + (shape_.member_of(r) + distance + u) % u;
  }

  void make_rank(int r, bool with_backward) {
    ranks_[static_cast<size_t>(r)].reset(new Rank(run_[r]));
    Rank& k = rank(r);
    const int64_t q = shape_.own().q_count() * 2, kv = shape_.own().kv_count() * 4;
    for (DeviceBuffer* b : {&k.q, &k.o, &k.packed_q, &k.arrived_q}) *b = poisoned(q);
    for (DeviceBuffer* b : {&k.kv, &k.packed_kv}) *b = poisoned(kv);
    for (int trip = 0; trip < kTrips; ++trip) k.sent.emplace_back(false);
    if (with_backward) {
      for (DeviceBuffer* b : {&k.d_o, &k.dq}) *b = poisoned(q);
      for (DeviceBuffer* b : {&k.dkv, &k.arrived_kv}) *b = poisoned(kv);
    }
    ORRERY_CUDA(cudaDeviceSynchronize());
  }

  // [tokens][members][share of the heads] -> [members][tokens][share], and back.
  void pack(const Rank& k, const DeviceBuffer& out, const DeviceBuffer& in, bool keys) const {
    swap_rows(out.get(), in.get(), tokens(keys), shape_.members, share(keys), k.compute);
  }
  void unpack(const Rank& k, const DeviceBuffer& out, const DeviceBuffer& in, bool keys) const {
    swap_rows(out.get(), in.get(), shape_.members, tokens(keys), share(keys), k.compute);
  }
  int64_t tokens(bool keys) const {
    return keys ? 2 * shape_.n : shape_.n;
  }
  int64_t share(bool keys) const {
    return keys ? shape_.attended().kv_row() : shape_.attended().row();
  }

  // What rank `from` sends rank `to`, in the same order on both.
  std::vector<Message> messages(int from, int to, Trip trip) const {
    const bool to_heads = is_to_heads(trip), with_keys = trip == kInputs || trip == kGradients;
    const int of_tokens = to_heads ? from : to, of_heads = to_heads ? to : from;
    const Rank& k = rank(of_tokens);
    const ShardTensors t = inside_->tensors(of_heads);
    void* const query_like[] = {t.q, t.o, t.d_o, t.dq};
    void* const attended_kv = trip == kInputs ? t.kv : t.dkv;
    std::vector<Message> all;
    for (const ExchangePiece& p : exchange_pieces(shape_, shape_.member_of(of_tokens), shape_.member_of(of_heads))) {
      if (p.is_keys && !with_keys) continue;
      const DeviceBuffer& packed =
          p.is_keys ? (to_heads ? k.packed_kv : k.arrived_kv) : (to_heads ? k.packed_q : k.arrived_q);
      void* const at_tokens = bf16_at(packed.get(), p.packed_at);
      void* const at_heads = bf16_at(p.is_keys ? attended_kv : query_like[trip], p.attended_at);
      all.push_back({to_heads ? at_tokens : at_heads, to_heads ? at_heads : at_tokens, p.count});
    }
    return all;
  }

  void exchange(int r, Trip trip) {
    Rank& k = rank(r);
    k.on.stamped(k.compute, 0, "all_to_all", [&] {
      if (shape_.transport == Transport::nccl) return exchange_by_nccl(r, trip);
      for (int distance = 0; distance < shape_.members; ++distance) {
        const int to = member(r, distance);
        for (const Message& m : messages(r, to, trip)) {
          copy_between(m.to, rank(to).on.device(), m.from, k.on.device(), m.count * 2, k.compute);
        }
      }
      k.sent[trip].record(k.compute);
      k.sent_count.advance_to(trip + 1);
      for (int distance = 1; distance < shape_.members; ++distance) {
        const Rank& from = rank(member(r, distance));
        from.sent_count.await(trip + 1, run_.pool());
        wait(k.compute, from.sent[trip]);
      }
    });
  }

  void exchange_by_nccl(int r, Trip trip) {
#if ORRERY_HAVE_NCCL
    const cudaStream_t stream = rank(r).compute;
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    NcclGroup group;
    for (int distance = 0; distance < shape_.members; ++distance) {
      const int to = member(r, distance), from = member(r, -distance);
      for (const Message& m : messages(r, to, trip)) {
        ORRERY_NCCL(ncclSend(m.from, static_cast<size_t>(m.count), ncclBfloat16, to, comm, stream));
      }
      for (const Message& m : messages(from, r, trip)) {
        ORRERY_NCCL(ncclRecv(m.to, static_cast<size_t>(m.count), ncclBfloat16, from, comm, stream));
      }
    }
    group.end();
#else
    (void)r, (void)trip;
#endif
  }

  RankRun& run_;
  std::unique_ptr<ContextSchedule> inside_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace

std::unique_ptr<ContextSchedule> make_head_exchange(RankRun& run, const ContextShape& shape, bool backward) {
  return std::make_unique<HeadExchange>(run, shape, backward);
}

}  // namespace orrery
