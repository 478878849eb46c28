// All-gather context parallelism (Llama 3, arXiv 2407.21783): a rank gathers the keys and values of the whole sequence,
// then attends with its own queries: one kernel, or with a causal zigzag one for each of its two chunks. Backward
// gathers again, and the gradients of keys and values are reduce-scattered in bf16, as TransformerEngine's all-gather
// does. Nothing overlaps: all of it is on the compute stream.
//
// Gathered rows are in the order of the sequence, with no kernel that puts them there: the early chunks of a zigzag are
// gathered in the order of the ranks, the late ones in the reverse of it. A single group gathers nothing.
#include <algorithm>

#include "kernels/context_schedule.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/merge.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {
namespace {

enum Exchange { kGatherForward, kGatherBackward, kScatter, kExchanges };

class AllGather : public ContextSchedule {
 public:
  AllGather(RankRun& run, const ContextShape& shape, bool backward)
      : ContextSchedule(shape),
        run_(run),
        shard_(shape.attended()),
        alone_(shape.groups() == 1),
        ranks_(static_cast<size_t>(run.size())) {
    require_even(shape);
    if (!alone_ && shape.members > 1) throw BenchError("an all-gather takes all ranks");
    if (!alone_) parts_ = gather_parts(shape);
#if ORRERY_HAVE_NCCL
    if (shape.transport == Transport::nccl) {
      for (const GatherPart& p : parts_) NcclWorld::with_channels(shape.channels, 0, p.reversed);
    }
#endif
    run.on_all([&](int r) { make_rank(r, backward); });
  }

  ShardTensors tensors(int r) const override {
    const Rank& k = rank(r);
    return {k.q.get(),   k.own.get(), k.o.get(),  k.forward.size() == 1 ? k.lse.as<float>() : nullptr,
            k.d_o.get(), k.dq.get(),  k.dkv.get()};
  }

  void begin() override {
    for (auto& k : ranks_) k->sent_count.reset();
  }

  void queue_forward(int r) override {
    Rank& k = rank(r);
    gather(r, kGatherForward);
    for (size_t i = 0; i < k.forward.size(); ++i) {
      k.on.stamped(k.compute, static_cast<int>(i), "attention", [&] { k.forward[i]->run(k.compute); });
    }
  }

  void queue_backward(int r, bool) override {
    Rank& k = rank(r);
    gather(r, kGatherBackward);
    for (size_t i = 0; i < k.backward.size(); ++i) {
      const Gradient& g = k.backward[i];
      k.on.stamped(k.compute, static_cast<int>(i), "attention", [&] { g.attention->run(k.compute); });
      if (!g.is_second) continue;
      k.on.stamped(k.compute, static_cast<int>(i), "accumulate", [&] {
        auto* dq = at<Bf16Bits>(k.dq, g.q_at);
        add(dq, dq, k.dq_part.get(), g.q_count, k.compute);
      });
    }
    if (k.early_keys > 0) {  // both chunks saw these
      k.on.stamped(k.compute, 0, "accumulate", [&] {
        const int64_t count = k.early_keys * shard_.kv_row(), values = whole_count();
        add(k.dkv_whole.get(), k.dkv_whole.get(), k.dkv_early.get(), count, k.compute);
        add(at<Bf16Bits>(k.dkv_whole, values), at<Bf16Bits>(k.dkv_whole, values), at<Bf16Bits>(k.dkv_early, count),
            count, k.compute);
      });
    }
    if (!alone_) scatter(r);
  }

 private:
  // Of the queries q_at .. q_at + q_count (in numbers) and some of their keys; is_second: dQ of others is there
  // already.
  struct Gradient {
    std::unique_ptr<AttentionBackward> attention;
    int64_t q_at, q_count;
    bool is_second;
  };
  struct Rank {
    explicit Rank(RankStreams& streams) : on(streams), compute(streams.compute()) {}
    RankStreams& on;
    const cudaStream_t compute;
    // Keys and values of the whole sequence, [2][groups * n][kv_heads][head_dim]: gathered forward and backward, since
    // a neighbour may be ahead. Their gradients likewise; dkv_early those of the early chunk of a zigzag.
    DeviceBuffer q, own, gathered[2], o, lse;
    DeviceBuffer d_o, dq, dq_part, dkv, dkv_whole, dkv_early, arrived, sum;
    int64_t early_keys = 0;
    std::vector<std::unique_ptr<AttentionForward>> forward;
    std::vector<Gradient> backward;
    std::vector<Event> sent;  // by exchange
    Recorded sent_count;
  };

  Rank& rank(int r) const {
    return *ranks_[static_cast<size_t>(r)];
  }
  int64_t whole_count() const {
    return shape_.groups() * shard_.kv_count();
  }

  void make_rank(int r, bool with_backward) {
    ranks_[static_cast<size_t>(r)].reset(new Rank(run_[r]));
    Rank& k = rank(r);
    const int64_t q = shard_.q_count() * 2, kv = shard_.kv_count() * 4;
    for (int i = 0; i < kExchanges; ++i) k.sent.emplace_back(false);
    for (DeviceBuffer* b : {&k.q, &k.o}) *b = poisoned(q);
    k.own = poisoned(kv);
    k.lse = poisoned(shard_.n * shard_.heads * 4);
    if (!alone_) k.gathered[0] = poisoned(whole_count() * 4);
    if (with_backward) {
      for (DeviceBuffer* b : {&k.d_o, &k.dq, &k.dq_part}) *b = poisoned(q);
      k.dkv = poisoned(kv);
      if (!alone_) {
        k.gathered[1] = poisoned(whole_count() * 4);
        k.dkv_whole = DeviceBuffer(static_cast<size_t>(whole_count() * 4));
        // Keys after all of this rank's queries get no gradient from it, and no kernel writes there.
        ORRERY_CUDA(cudaMemset(k.dkv_whole.get(), 0, k.dkv_whole.bytes()));
        if (shape_.transport == Transport::copy_engine) {
          k.arrived = poisoned(whole_count() * 4);
          k.sum = poisoned(kv * 2);
        }
      }
    }
    const std::vector<BlockWork> blocks = whole_sequence_work(shape_, shape_.group_of(r));
    if (blocks.size() > 1) k.early_keys = blocks.front().k_count;
    if (with_backward) k.dkv_early = poisoned(k.early_keys * shard_.kv_row() * 4);
    for (const BlockWork& w : blocks) make_block(k, w, &w == &blocks.back(), with_backward);
    ORRERY_CUDA(cudaDeviceSynchronize());
  }

  void make_block(Rank& k, const BlockWork& w, bool is_last, bool with_backward) const {
    const AttentionShape a = attention_shape(shape_, w);
    const int device = k.on.device();
    const int64_t q_at = w.q_from * shard_.row(), values = whole_count();
    void* const lse = at<float>(k.lse, w.q_from * shard_.heads);
    void* const keys = alone_ ? k.own.get() : k.gathered[0].get();
    k.forward.emplace_back(new AttentionForward(a, device, at<Bf16Bits>(k.q, q_at), keys, bf16_at(keys, values), lse,
                                                at<Bf16Bits>(k.o, q_at)));
    if (!with_backward) return;
    void* const again = alone_ ? k.own.get() : k.gathered[1].get();
    void* const dk = alone_ ? k.dkv.get() : is_last ? k.dkv_whole.get() : k.dkv_early.get();
    void* const dv = bf16_at(dk, is_last ? values : k.early_keys * shard_.kv_row());
    const std::vector<BlockWork> parts = before_and_diagonal(w);
    for (const BlockWork& part : parts) {
      const bool is_second = &part != &parts.front();
      const int64_t k_at = part.k_from * shard_.kv_row();
      k.backward.push_back(
          {std::make_unique<AttentionBackward>(
               attention_shape(shape_, part), device, at<Bf16Bits>(k.q, q_at), bf16_at(again, k_at),
               bf16_at(again, values + k_at), at<Bf16Bits>(k.o, q_at), at<Bf16Bits>(k.d_o, q_at), lse,
               is_second ? k.dq_part.get() : at<Bf16Bits>(k.dq, q_at), bf16_at(dk, k_at), bf16_at(dv, k_at)),
           q_at, w.q_count * shard_.row(), is_second});
    }
  }

  // Keys, then values: where a part of them lies in a rank's own tensor and in that of the whole sequence.
  template <class F>
  void for_keys_and_values(const GatherPart& p, F&& f) const {
    for (int values = 0; values < 2; ++values) {
      f(values * shard_.kv_count() + p.own_from * shard_.kv_row(),
        values * whole_count() + p.gathered_from * shard_.kv_row(), p.count * shard_.kv_row());
    }
  }
  // Of rank r's rows among those gathered with them.
  int64_t place_of(const GatherPart& p, int r) const {
    return p.place(r, run_.size()) * p.count * shard_.kv_row();
  }

  void gather(int r, Exchange which) {
    if (alone_) return;
    Rank& k = rank(r);
    k.on.stamped(k.compute, 0, "all_gather", [&] {
      if (shape_.transport == Transport::nccl) return gather_by_nccl(k, r, which);
      for (int distance = 0; distance < run_.size(); ++distance) {
        Rank& to = rank(shape_.neighbour(r, distance));
        for (const GatherPart& p : parts_) {
          for_keys_and_values(p, [&](int64_t own_at, int64_t whole_at, int64_t count) {
            copy_between(at<Bf16Bits>(to.gathered[which], whole_at + place_of(p, r)), to.on.device(),
                         at<Bf16Bits>(k.own, own_at), k.on.device(), count * 2, k.compute);
          });
        }
      }
      wait_for_all(r, which);
    });
  }

  void scatter(int r) {
    Rank& k = rank(r);
    k.on.stamped(k.compute, 0, "reduce_scatter", [&] {
      if (shape_.transport == Transport::nccl) return scatter_by_nccl(k, r);
      for (int distance = 0; distance < run_.size(); ++distance) {
        const int owner = shape_.neighbour(r, distance);
        Rank& to = rank(owner);
        for (const GatherPart& p : parts_) {
          for_keys_and_values(p, [&](int64_t own_at, int64_t whole_at, int64_t count) {
            copy_between(at<Bf16Bits>(to.arrived, r * 2 * shard_.kv_count() + own_at), to.on.device(),
                         at<Bf16Bits>(k.dkv_whole, whole_at + place_of(p, owner)), k.on.device(), count * 2, k.compute);
          });
        }
      }
      wait_for_all(r, kScatter);
      const int64_t count = 2 * shard_.kv_count();
      for (int from = 0; from < run_.size(); ++from) {
        accumulate(k.sum.as<float>(), at<Bf16Bits>(k.arrived, from * count), count, from == 0, k.compute);
      }
      to_bf16(k.dkv.get(), k.sum.as<float>(), count, k.compute);
    });
  }

  void wait_for_all(int r, Exchange which) {
    Rank& k = rank(r);
    k.sent[which].record(k.compute);
    k.sent_count.advance_to(which + 1);
    for (int distance = 1; distance < run_.size(); ++distance) {
      const Rank& from = rank(shape_.neighbour(r, distance));
      from.sent_count.await(which + 1, run_.pool());
      wait(k.compute, from.sent[which]);
    }
  }

#if ORRERY_HAVE_NCCL
  ncclComm_t comm(const GatherPart& p, int r) const {
    return NcclWorld::with_channels(shape_.channels, 0, p.reversed).comm(r);
  }
#endif

  // Keys and values of a part are one NCCL kernel; the two parts of a zigzag, of different communicators, are two.
  void gather_by_nccl([[maybe_unused]] Rank& k, [[maybe_unused]] int r, [[maybe_unused]] Exchange which) const {
#if ORRERY_HAVE_NCCL
    for (const GatherPart& p : parts_) {
      NcclGroup group;
      for_keys_and_values(p, [&](int64_t own_at, int64_t whole_at, int64_t count) {
        ORRERY_NCCL(ncclAllGather(at<Bf16Bits>(k.own, own_at), at<Bf16Bits>(k.gathered[which], whole_at),
                                  static_cast<size_t>(count), ncclBfloat16, comm(p, r), k.compute));
      });
      group.end();
    }
#endif
  }

  void scatter_by_nccl([[maybe_unused]] Rank& k, [[maybe_unused]] int r) const {
#if ORRERY_HAVE_NCCL
    for (const GatherPart& p : parts_) {
      NcclGroup group;
      for_keys_and_values(p, [&](int64_t own_at, int64_t whole_at, int64_t count) {
        ORRERY_NCCL(ncclReduceScatter(at<Bf16Bits>(k.dkv_whole, whole_at), at<Bf16Bits>(k.dkv, own_at),
                                      static_cast<size_t>(count), ncclBfloat16, ncclSum, comm(p, r), k.compute));
      });
      group.end();
    }
#endif
  }

  RankRun& run_;
  const Shard shard_;
  const bool alone_;  // a single group
  std::vector<GatherPart> parts_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace

std::unique_ptr<ContextSchedule> make_all_gather(RankRun& run, const ContextShape& shape, bool backward) {
  return std::make_unique<AllGather>(run, shape, backward);
}

std::vector<AttentionPlanKey> whole_sequence_plans(const ContextShape& s, bool backward) {
  std::vector<AttentionPlanKey> keys;
  for (int group = 0; group < s.groups(); ++group) {
    for (const BlockWork& w : whole_sequence_work(s, group)) {
      keys.push_back({attention_shape(s, w), Pass::forward});
      if (!backward) continue;
      for (const BlockWork& part : before_and_diagonal(w)) keys.push_back({attention_shape(s, part), Pass::backward});
    }
  }
  return keys;
}

}  // namespace orrery
