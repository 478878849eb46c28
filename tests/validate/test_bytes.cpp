// Bytes a rank sends per layer, for the libraries whose code was read (repositories and commits at each test), from the
// program's own account and from what the simulator delivered.
#include <fmt/format.h>

#include <algorithm>

#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/validate/ideal_runs.hpp"
#include "validate/closed_form.hpp"

using namespace orrery;

namespace {

struct Sent {
  double forward, backward;
};

/// What every rank sends in a forward and in a backward pass of one layer; checks that both accounts agree and that all
/// ranks send the same.
Sent sent_by_each_rank(IdealCase c) {
  const auto of_program = [&](bool backward) {
    c.backward = backward;
    const AttentionProgram program = program_of(c);
    const SimulationResult result = simulate(program, one_node(c));
    const double bytes = program.work_of(0).sent.si();
    for (Rank r = 0; r < c.ranks(); ++r) {
      CHECK(program.work_of(r).sent.si() == bytes);
      CHECK(result.ranks[r].sent.si() == bytes);
      CHECK(result.ranks[r].received.si() == bytes);
    }
    return bytes / c.layers;
  };
  const double forward = of_program(false);
  return {forward, of_program(true) - forward};
}

IdealCase library_case(int ranks) {
  IdealCase c = ideal_case();
  c.groups = ranks;
  c.tokens = 32 * ranks;
  c.heads = 16;
  c.kv_heads = 8;
  c.head_dim = 128;
  c.causal = true;
  c.layers = 2;
  return c;
}

/// As the preset that comes with the program says, with its first schedule and layout.
IdealCase preset_case(const std::string& name, int ranks) {
  IdealCase c = library_case(ranks);
  c.implementation = load_implementation(name);
  c.schedule = c.implementation.schedules.front();
  c.layout = c.implementation.layouts.front();
  return c;
}

/// 4 c g: one block of K and V in bf16.
double block_bytes(const IdealCase& c) {
  return 4.0 * static_cast<double>(c.block()) * c.kv_heads * c.head_dim;
}

constexpr int sizes[] = {2, 3, 4, 8, 16};

}  // namespace

TEST_CASE("JAX ringattention sends P blocks forward and P blocks with fp32 gradients backward") {
  // haoliuhl/ringattention: ppermute in a scan over axis_size, dk and dv in float32.
  for (const int ranks : sizes) {
    const IdealCase c = preset_case("jax_ringattention", ranks);
    const Sent sent = sent_by_each_rank(c);
    CHECK(sent.forward == ranks * block_bytes(c));
    CHECK(sent.backward == ranks * (block_bytes(c) + 2 * block_bytes(c)));
  }
}

TEST_CASE("ring-flash-attention sends P - 1 blocks, and fp32 gradients one hop further") {
  // zhuzilin/ring-flash-attention@8996282, ring, zigzag and stripe; K and V as two messages.
  for (const std::string variant : {"ring", "zigzag", "stripe"}) {
    for (const int ranks : sizes) {
      const IdealCase c = preset_case("ring_flash_attention_" + variant, ranks);
      CHECK(c.implementation.kv_messages == 2);
      const Sent sent = sent_by_each_rank(c);
      CHECK(sent.forward == (ranks - 1) * block_bytes(c));
      CHECK(sent.backward == (ranks - 1) * block_bytes(c) + ranks * 2 * block_bytes(c));
    }
  }
}

TEST_CASE("TransformerEngine p2p sends P - 1 blocks and P - 1 gradients in the dtype of KV") {
  // NVIDIA/TransformerEngine@d0067d0, context_parallel.py, cp_comm_type "p2p".
  for (const int ranks : sizes) {
    const IdealCase c = preset_case("transformer_engine_p2p", ranks);
    CHECK(c.layout == "zigzag");
    const Sent sent = sent_by_each_rank(c);
    CHECK(sent.forward == (ranks - 1) * block_bytes(c));
    CHECK(sent.backward == (ranks - 1) * block_bytes(c) + (ranks - 1) * block_bytes(c));
  }
}

TEST_CASE("all-gather libraries send P - 1 blocks, and P - 1 gradients of a reduce-scatter") {
  // zhuzilin/ring-flash-attention@8996282 llama3 (heads_k_stride heads at a time); TransformerEngine "all_gather".
  for (const std::string name : {"ring_flash_attention_llama3", "transformer_engine_all_gather"}) {
    for (const int ranks : sizes) {
      IdealCase c = preset_case(name, ranks);
      CHECK(c.implementation.gather_kv_heads == (name == "ring_flash_attention_llama3" ? 4 : 0));
      for (const int places : {1, 2, ranks / 2}) {  // of a node: the way through nodes changes no sum
        if (places == 0 || ranks % places != 0) continue;
        c.inner_ring = places;
        const Sent sent = sent_by_each_rank(c);
        CHECK(sent.forward == (ranks - 1) * block_bytes(c));
        CHECK(sent.backward == (ranks - 1) * block_bytes(c) + (ranks - 1) * block_bytes(c));
      }
    }
  }
}

TEST_CASE("PyTorch context_parallel sends gradients round a ring in fp32, with both ways to rotate KV") {
  // torch/distributed/tensor/experimental/_attention.py: _AllGatherRotater, _AllToAllRotater, convert_to_f32.
  for (const std::string rotation : {"allgather", "alltoall"}) {
    for (const int ranks : sizes) {
      const IdealCase c = preset_case("pytorch_context_parallel_" + rotation, ranks);
      CHECK(c.schedule == (rotation == "allgather" ? "all_gather" : "ring"));
      const Sent sent = sent_by_each_rank(c);
      CHECK(sent.forward == (ranks - 1) * block_bytes(c));
      CHECK(sent.backward == (ranks - 1) * block_bytes(c) + ranks * 2 * block_bytes(c));
    }
  }
}

TEST_CASE("Ulysses sends its share of Q and O, and KV heads as often as they are replicated") {
  // DeepSpeed-Ulysses, arXiv 2309.14509.
  for (const int ranks : {2, 4, 8, 16}) {
    for (const int kv_heads : {16, 8, 2, 1}) {
      IdealCase c = preset_case("deepspeed_ulysses", ranks);
      c.groups = 1;
      c.members = ranks;
      c.kv_heads = kv_heads;
      const double rows = static_cast<double>(c.block());
      const double query = 2 * rows * c.heads * c.head_dim * (ranks - 1) / ranks;
      const double kv = (ranks - 1) * 4 * rows * std::max(1, kv_heads / ranks) * c.head_dim;
      INFO(fmt::format("P = {}, {} KV heads", ranks, kv_heads));
      const Sent sent = sent_by_each_rank(c);
      CHECK(sent.forward == query + kv + query);
      CHECK(sent.backward == query + (query + kv));
      CHECK(sent.forward == (head_exchange_bytes(c.block(), ranks, c.heads, kv_heads, c.head_dim, 2, true) +
                             head_exchange_bytes(c.block(), ranks, c.heads, kv_heads, c.head_dim, 2, false))
                                .si());
      // Multi-head attention: 4 N h / P elements but for the share that stays, as the paper counts.
      if (kv_heads == c.heads) {
        const double elements = 4.0 * static_cast<double>(c.tokens) * c.heads * c.head_dim / ranks;
        CHECK(sent.forward == 2 * elements * (ranks - 1) / ranks);
      }
    }
  }
}

TEST_CASE("USP sends a head exchange and a ring of its group's blocks") {
  // feifeibear/long-context-attention; arXiv 2405.07719.
  for (const auto& [groups, members] : {std::pair{2, 2}, {2, 4}, {4, 2}, {8, 2}, {2, 8}, {2, 16}}) {
    IdealCase c = preset_case("long_context_attention", groups);
    c.members = members;
    c.tokens = 32 * groups * members;
    const double exchange_in = head_exchange_bytes(c.block(), members, c.heads, c.kv_heads, c.head_dim, 2, true).si();
    const double exchange_out = head_exchange_bytes(c.block(), members, c.heads, c.kv_heads, c.head_dim, 2, false).si();
    const double block = kv_bytes(c.tokens / groups, kv_heads_per_member(c.kv_heads, members), c.head_dim, 2).si();
    INFO(fmt::format("{} groups of {}", groups, members));
    const Sent sent = sent_by_each_rank(c);
    CHECK(sent.forward == exchange_in + (groups - 1) * block + exchange_out);
    CHECK(sent.backward == exchange_out + (groups - 1) * block + groups * 2 * block + exchange_in);
  }
}

TEST_CASE(
    "gradients of USP take as many hops as blocks if backward starts where forward ended, of LoongTrain one more") {
  // SandAI-org/MagiAttention at 2c64135: FA3RingAttnFunc saves the block it received last, FA3DoubleRingAttnFunc its
  // own.
  const auto sent_backward = [](const char* preset, int groups) {
    IdealCase c = preset_case(preset, groups);
    c.members = 2;
    c.tokens = 128 * groups;
    c.layout = "zigzag";
    return std::pair(sent_by_each_rank(c).backward,
                     kv_bytes(c.tokens / groups, kv_heads_per_member(c.kv_heads, 2), c.head_dim, 2).si());
  };
  for (const int groups : {2, 4}) {
    const auto [usp, block] = sent_backward("magi_benchmark_usp", groups);
    CHECK(sent_backward("magi_benchmark_loongtrain", groups).first == usp + block);
  }
}

TEST_CASE("a double ring sends P - 1 blocks, and a gradient hop home more for every ring") {
  // LoongTrain, arXiv 2406.18485.
  for (const int ranks : {2, 4, 8, 16}) {
    for (int inner = 1; inner <= ranks; inner *= 2) {
      IdealCase c = preset_case("loongtrain", ranks);
      c.inner_ring = inner;
      const int outer = ranks / inner;
      const int inner_hops = inner > 1 ? ranks : 0;  // each of `outer` rings goes full circle
      const int outer_hops = outer > 1 ? outer : 0;  // the sums of the rings too
      INFO(fmt::format("{} rings of {}", outer, inner));
      const Sent sent = sent_by_each_rank(c);
      CHECK(sent.forward == (ranks - 1) * block_bytes(c));
      CHECK(sent.backward == (ranks - 1) * block_bytes(c) + (inner_hops + outer_hops) * 2 * block_bytes(c));
    }
  }
}

TEST_CASE("a block of 8192 tokens and 8 KV heads of 128 is 32 MiB in bf16, its fp32 gradient 64 MiB") {
  CHECK(kv_bytes(8192, 8, 128, 2).si() == 33554432);
  CHECK(kv_bytes(8192, 8, 128, 4).si() == 67108864);
}

namespace {

/// n = 32768 on 8 ranks, 8 KV heads of 128.
IdealCase halo_case(Index left, Index period) {
  IdealCase c = library_case(8);
  c.schedule = "halo";
  c.tokens = 32768;
  c.layers = 1;
  c.pattern = {{.kind = Primitive::Kind::window, .left = left}};
  if (period > 0) c.pattern.push_back({.kind = Primitive::Kind::stride, .period = period, .count = 1});
  return c;
}

/// Rows rank r needs of earlier ranks, at the start of the sequence too: the window's and the skip's, both counted
/// once.
Index rows_before(const IdealCase& c, Rank rank, Index left, Index period) {
  const Index begin = rank * c.block();
  const Index window_from = std::max<Index>(0, begin - left);
  const Index skip_from = std::max<Index>(0, begin - period);
  const Index skip_past = std::max(skip_from, std::min(begin, begin + c.block() - period));
  if (period == 0) return begin - window_from;
  const Index both = std::max<Index>(0, skip_past - std::max(skip_from, window_from));
  return (begin - window_from) + (skip_past - skip_from) - both;
}

double row_bytes(const IdealCase& c) {
  return 4.0 * c.kv_heads * c.head_dim;
}

struct HaloCase {
  Index left, period;
};

}  // namespace

TEST_CASE("a halo of window 256 and period 1024 is 4 MiB a rank, 3.57 % of the exact ring") {
  const IdealCase c = halo_case(256, 1024);
  const AttentionProgram program = program_of(c);
  const SimulationResult result = simulate(program, one_node(c));
  const double halo = 4.0 * 1024 * 1024;
  for (Rank r = 0; r < 8; ++r) {
    CHECK(program.work_of(r).sent.si() == (r < 7 ? halo : 0));  // nobody comes after the last rank
    CHECK(result.ranks[r].sent.si() == (r < 7 ? halo : 0));
    CHECK(result.ranks[r].received.si() == (r > 0 ? halo : 0));
  }
  IdealCase exact = c;
  exact.schedule = "ring";
  exact.pattern = {{}};
  const double ring = program_of(exact).work_of(0).sent.si();
  CHECK(ring == 7.0 * 4 * 4096 * 1024);
  CHECK(fmt::format("{:.2f} %", 100 * halo / ring) == "3.57 %");
  CHECK(halo / ring == 1024.0 / (7 * 4096));
}

TEST_CASE("halo bytes follow from window, period and block, whichever is the longest") {
  // Near, far within two ranks, far over three ranks, window over several blocks, window longer than a block and skip.
  const std::vector<HaloCase> cases = {
      {256, 1024}, {1024, 256}, {256, 4096}, {4096, 4096},  {256, 6000}, {256, 10000}, {300, 12288}, {256, 20001},
      {6000, 0},   {8192, 0},   {9000, 0},   {5000, 12000}, {100, 4100}, {0, 5000},    {256, 40000}, {0, 0}};
  for (const auto& [left, period] : cases) {
    const IdealCase c = halo_case(left, period);
    const AttentionProgram program = program_of(c);
    const SimulationResult result = simulate(program, one_node(c));
    INFO(fmt::format("window {}, period {}", left, period));
    double received = 0, sent = 0;
    for (Rank r = 0; r < 8; ++r) {
      const Index skip = period < c.tokens ? period : 0;
      CHECK(result.ranks[r].received.si() == row_bytes(c) * static_cast<double>(rows_before(c, r, left, skip)));
      CHECK(result.ranks[r].sent.si() == program.work_of(r).sent.si());
      received += result.ranks[r].received.si();
      sent += result.ranks[r].sent.si();
    }
    CHECK(sent == received);
    // The closed form, on the last rank, if all it may fetch exists.
    const bool meet = period > c.block() && period < c.block() + std::min(left, c.block());
    if (period + c.block() <= 7 * c.block() && !meet && (left <= c.block() || period == 0)) {
      CHECK(result.ranks[7].received.si() == row_bytes(c) * static_cast<double>(halo_rows(left, period, c.block())));
    }
  }
}

TEST_CASE("a gated skip fetches values alone: of those rows that the window does not fetch with their keys") {
  for (const auto& [left, period] : {HaloCase{256, 1024}, {1024, 256}, {256, 4096}, {256, 6000}, {6000, 6000}}) {
    INFO(fmt::format("window {}, period {}", left, period));
    const double window =
        row_bytes(halo_case(left, 0)) * static_cast<double>(rows_before(halo_case(left, 0), 7, left, 0));
    const double both =
        row_bytes(halo_case(left, 0)) * static_cast<double>(rows_before(halo_case(left, 0), 7, left, period));
    for (const GatherAttention attention : {GatherAttention::together, GatherAttention::per_rank}) {
      IdealCase c = halo_case(left, 0);
      c.implementation.halo_attention = attention;
      const AttentionProgram alone = program_of(c);
      c.pattern.push_back({.kind = Primitive::Kind::gated_skip, .period = period});
      const AttentionProgram gated = program_of(c);
      CHECK(simulate(gated, one_node(c)).ranks[7].received.si() == window + (both - window) / 2);
      CHECK(gated.work_of(7).useful == alone.work_of(7).useful);  // no key more is scored
      // Kept, the halo's gradients go home in the same rows.
      c.backward = c.implementation.halo_is_kept = true;
      const SimulationResult result = simulate(program_of(c), one_node(c));
      CHECK(result.ranks[7].sent.si() == window + (both - window) / 2);
    }
  }
}

TEST_CASE(
    "a halo of whole windows brings as many keys as a query sees, itself included, and scores none of them more") {
  for (const Index left : {0, 1, 256, 4095, 4096, 9000}) {
    IdealCase c = halo_case(left, 0);
    const AttentionProgram scored = program_of(c);
    c.implementation.halo_of_whole_windows = true;
    const AttentionProgram whole = program_of(c);
    INFO(fmt::format("window of {} earlier keys", left));
    CHECK(simulate(whole, one_node(c)).ranks[7].received.si() == row_bytes(c) * static_cast<double>(left + 1));
    CHECK(simulate(whole, one_node(c)).ranks[0].received.si() == 0);
    CHECK(whole.work_of(7).useful == scored.work_of(7).useful);
  }
  // Of later keys, which the last query sees, it fetches those that are scored.
  IdealCase both_sides = halo_case(1023, 0);
  both_sides.causal = false;
  both_sides.pattern.front().right = 512;
  both_sides.implementation.halo_of_whole_windows = true;
  CHECK(simulate(program_of(both_sides), one_node(both_sides)).ranks[3].received.si() ==
        row_bytes(both_sides) * (1024 + 512));
  // The one kernel over own and fetched rows has them all, also the one that is scored by nobody.
  IdealCase together = halo_case(1023, 0);
  together.implementation.halo_of_whole_windows = true;
  together.implementation.halo_attention = GatherAttention::together;
  const AttentionProgramInput input = tiny_program(together).input();
  const auto schedule = input.schedule->make({input.geometry, input.implementation, input.masks, input.value_masks,
                                              input.halo_masks, input.halo_value_masks, TileShape{128, 128}});
  CHECK(schedule->work_of(7, Visit()).key_rows == together.block() + 1024);
  CHECK(schedule->work_of(0, Visit()).key_rows == together.block());
  // The values of a skip are those of the last `period` rows, or of the window's where it is longer.
  for (const Index period : {128, 4096}) {
    IdealCase c = halo_case(1023, 0);
    c.implementation.halo_of_whole_windows = true;
    c.pattern.push_back({.kind = Primitive::Kind::gated_skip, .period = period});
    CHECK(simulate(program_of(c), one_node(c)).ranks[7].received.si() ==
          row_bytes(c) / 2 * static_cast<double>(1024 + std::max<Index>(1024, period)));
  }
}

TEST_CASE("a halo comes from as many ranks as it spans") {
  const auto sources = [](Index left, Index period) {
    const IdealCase c = halo_case(left, period);
    const AttentionProgram program = program_of(c);
    std::vector<Rank> found;
    for (Rank r = 0; r < 8; ++r) {
      for_each_op(program, r, [&](const Op&, std::span<const Message> messages) {
        for (const Message& m : messages) {
          if (m.destination == 7 && m.size > Bytes()) found.push_back(m.source);
        }
      });
    }
    return found;
  };
  CHECK(sources(256, 1024) == std::vector<Rank>{6});
  // i - 6000 lies on ranks r - 2 and r - 1, i - 10000 on r - 3 and r - 2; the window always on r - 1.
  CHECK(sources(256, 6000) == std::vector<Rank>{5, 6});
  CHECK(sources(256, 10000) == std::vector<Rank>{4, 5, 6});
  CHECK(sources(256, 12288) == std::vector<Rank>{4, 6});
  for (const Index left : {1, 4096, 4097, 8192, 9000}) {
    CHECK(static_cast<Index>(sources(left, 0).size()) == window_sources(left, 4096));
  }
}

TEST_CASE("a halo's backward pass fetches again and returns gradients, 2 times forward in bf16 and 3 times in fp32") {
  for (const auto& [left, period] : {HaloCase{256, 1024}, {256, 6000}, {9000, 0}}) {
    for (const bool fp32 : {false, true}) {
      IdealCase c = halo_case(left, period);
      c.implementation.gradients_in_fp32 = fp32;
      double forward = 0, both = 0;
      const SimulationResult once = simulate(program_of(c), one_node(c));
      for (const RankTotals& rank : once.ranks) forward += rank.sent.si();
      c.backward = true;
      const AttentionProgram program = program_of(c);
      const SimulationResult result = simulate(program, one_node(c));
      for (Rank r = 0; r < 8; ++r) {
        const double in = once.ranks[r].received.si(), out = once.ranks[r].sent.si();
        CHECK(result.ranks[r].sent.si() == 2 * out + (fp32 ? 2 : 1) * in);
        CHECK(program.work_of(r).sent.si() == result.ranks[r].sent.si());
        both += result.ranks[r].sent.si();
      }
      CHECK(both - forward == (fp32 ? 3 : 2) * forward);
      c.implementation.halo_is_kept = true;  // then it returns the gradients alone
      const SimulationResult kept = simulate(program_of(c), one_node(c));
      for (Rank r = 0; r < 8; ++r) {
        const double in = once.ranks[r].received.si(), out = once.ranks[r].sent.si();
        CHECK(kept.ranks[r].sent.si() == out + (fp32 ? 2 : 1) * in);
      }
    }
  }
}
