// Whole steps against closed forms.
#include <algorithm>
#include <cmath>
#include <string>

#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/report.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/topologies.hpp"
#include "tests/catch.hpp"

using namespace orrery;

namespace {

/// Peaks and nothing else, on one switch whose links are as fast as given.
Scenario step(double bandwidth = 1e18, double latency = 0) {
  Scenario s = load_scenario(std::filesystem::path(ORRERY_SOURCE_DIR) / "scenarios/steps/llama3_8b_8k_fsdp_64.toml");
  s.profile = load_profile("peak", s.gpu.name);
  s.degrees = {};
  s.layers = 8;
  s.tokens = 4096;
  s.batch = 1;
  s.recompute = Recompute::none;
  s.gpu.hbm_bandwidth = BytesPerSecond::from_si(1e18);
  const LinkSpec link{BytesPerSecond::from_si(bandwidth), Seconds::from_si(latency)};
  s.cluster = nvswitch({132, s.gpu.hbm_bandwidth}, {64, link});
  s.node_size = 64;
  return s;
}

void spread(Scenario& s, Degrees degrees, int microbatches = 1) {
  s.degrees = degrees;
  s.groups = degrees.context;
  s.microbatches = microbatches;
  s.batch = static_cast<Index>(degrees.data) * microbatches;
  s.cluster =
      nvswitch(s.cluster.gpu(), {degrees.ranks(), {s.cluster.links()[0].bandwidth, s.cluster.links()[0].latency}});
  s.node_size = degrees.ranks();
}

SimulationResult run(const Scenario& s, Engine engine = Engine::automatic) {
  return simulate(build_step(s), s.cluster, {.engine = engine});
}

double layer_parameters(const ModelShape& m) {
  return m.attention_parameters() + m.ffn_parameters() + 2.0 * static_cast<double>(m.hidden);
}

double table(const ModelShape& m) {
  return static_cast<double>(m.hidden * m.vocabulary);
}

}  // namespace

TEST_CASE("a step of one rank takes 6 N D FLOPs and those of attention at the peak") {
  Scenario s = step();
  s.causal = false;
  const SimulationResult result = run(s);
  const ModelShape& m = s.model;
  const double tokens = 4096;
  const double weights = s.layers * (m.attention_parameters() + m.ffn_parameters()) + table(m);
  const double attention = 3.5 * 4 * tokens * tokens * static_cast<double>(m.heads * m.head_dim) * s.layers;
  const double flops = 6 * weights * tokens + attention;
  CHECK_THAT(to_seconds(result.end).si(), WithinRel(flops / s.gpu.peak("bf16").si(), 1e-3));
  const Report report = summarize(s, build_step(s), {result, std::nullopt}, 0);
  CHECK_THAT(report.useful.si(), WithinRel(flops, 1e-12));
  // Recomputation runs forward twice: 8 instead of 6, and 4.5 instead of 3.5 of attention.
  s.recompute = Recompute::full;
  const double head = 6 * table(m) * tokens;
  const double again = (6 * weights * tokens - head) * 8 / 6 + head + attention * 4.5 / 3.5;
  const SimulationResult longer = run(s);
  CHECK_THAT(to_seconds(longer.end).si(), WithinRel(again / s.gpu.peak("bf16").si(), 1e-3));
  CHECK_THAT(summarize(s, build_step(s), {longer, std::nullopt}, 0).executed.si(), WithinRel(again, 1e-12));
}

TEST_CASE("what ranks compute beside each other is executed by each of them and useful once") {
  const double tokens = 4096, ranks = 16;
  Scenario s = step();
  s.causal = false;
  const ModelShape& m = s.model;
  const auto executed_beyond_useful = [&] {
    const Report report = summarize(s, build_step(s), {run(s), std::nullopt}, 0);
    return (report.executed - report.useful).si();
  };
  // K and V of 8 heads, one on each of 16 tensor ranks.
  spread(s, {.tensor = 16});
  const double keys = 2 * static_cast<double>(m.hidden * m.kv_heads * m.head_dim) * s.layers;
  CHECK_THAT(executed_beyond_useful(), WithinRel(6 * keys * (ranks / 8 - 1) * tokens, 1e-9));
  // Context ranks share the tokens before the one of a decode step, but not that one.
  s.backward = false;
  s.decode = true;
  spread(s, {.context = 16});
  const double weights = s.layers * (m.attention_parameters() + m.ffn_parameters()) + table(m);
  CHECK_THAT(executed_beyond_useful(), WithinRel(2 * weights * (ranks - 1), 1e-9));
}

TEST_CASE("in fp8 the layers' matrices run at its rate, attention and the head at that of bf16") {
  Scenario s = step();
  s.causal = false;
  s.fp8_matrices = true;
  const ModelShape& m = s.model;
  const double tokens = 4096;
  const double layers = 6 * s.layers * (m.attention_parameters() + m.ffn_parameters()) * tokens;
  const double rest =
      6 * table(m) * tokens + 3.5 * 4 * tokens * tokens * static_cast<double>(m.heads * m.head_dim) * s.layers;
  const double seconds = layers / s.gpu.peak("fp8").si() + rest / s.gpu.peak("bf16").si();
  CHECK_THAT(to_seconds(run(s).end).si(), WithinRel(seconds, 1e-3));
}

TEST_CASE("ZeRO sends what it shares, once each way") {
  for (const int ranks : {2, 8}) {
    for (int zero = 0; zero <= 3; ++zero) {
      for (const int microbatches : {1, 3}) {
        Scenario s = step(50e9);
        spread(s, {.data = ranks, .zero = zero}, microbatches);
        const double share = 2.0 * (ranks - 1) / ranks;  // two bytes each; all but one's own part
        const double layers = s.layers * layer_parameters(s.model), tables = 2 * table(s.model);
        const double gradients = (layers + tables) * (zero == 0 ? 2 : 1) * (zero >= 2 ? microbatches : 1);
        const double parameters = zero == 3 ? (2 * layers + tables) * microbatches : zero == 0 ? 0 : layers + tables;
        INFO(ranks << " ranks, ZeRO-" << zero << ", " << microbatches << " microbatches");
        for (const RankTotals& rank : run(s).ranks) {
          CHECK_THAT(rank.sent.si(), WithinRel(share * (gradients + parameters), 1e-9));
          CHECK(rank.sent == rank.received);
        }
      }
    }
  }
}

TEST_CASE("tensor parallelism sends four activations forward and four to six backward") {
  for (const bool sequence_parallel : {false, true}) {
    Scenario s = step(50e9);
    s.model.vocabulary = 8;
    spread(s, {.tensor = 8, .sequence_parallel = sequence_parallel});
    const double activation = 4096.0 * static_cast<double>(s.model.hidden) * 2 * 7 / 8;
    // Forward: two all-reduces, or two gathers and two scatters. Backward the same; with split inputs these are
    // gathered once more. The head: a gather forward, a scatter and once more a gather backward, or an all-reduce. The
    // embedding, of which each rank has a share of the vocabulary: a scatter of sums forward, a gather backward, or an
    // all-reduce.
    const double times = sequence_parallel ? s.layers * (4 + 6) + 3 + 2 : s.layers * (4 + 4) + 2 + 2;
    for (const RankTotals& rank : run(s).ranks) CHECK_THAT(rank.sent.si(), WithinRel(times * activation, 1e-9));
  }
}

TEST_CASE("a table at both ends of a pipeline is said to lack the sum of its gradients") {
  for (const bool tied : {false, true}) {
    for (const int stages : {1, 2}) {
      Scenario s = step();
      s.model.tied_embeddings = tied;
      spread(s, {.pipeline = stages});
      const std::vector<std::string> left_out = summarize(s, build_step(s), {run(s), std::nullopt}, 0).left_out;
      const bool said = std::any_of(left_out.begin(), left_out.end(),
                                    [](const std::string& what) { return what.find("shared table") != what.npos; });
      CHECK(said == (tied && stages == 2));
    }
  }
}

TEST_CASE("the bubble of a pipeline is (p - 1) / (v m + p - 1)") {
  for (const int stages : {2, 4, 8}) {
    for (const int microbatches : {8, 16}) {
      for (const int chunks : {1, 2}) {
        Scenario s = step();
        s.model.vocabulary = 1;
        s.layers = 16;
        spread(s, {.pipeline = stages, .virtual_stages = chunks}, microbatches);
        const SimulationResult result = run(s);
        const double bubble = (stages - 1.0) / (chunks * microbatches + stages - 1.0);
        INFO(stages << " stages of " << chunks << ", " << microbatches << " microbatches");
        for (const RankTotals& rank : result.ranks) {
          const double idle = 1 - static_cast<double>(rank.compute) / static_cast<double>(result.end);
          CHECK_THAT(idle, WithinAbs(bubble, 0.002));
        }
      }
    }
  }
}

TEST_CASE("FSDP hides its gathers under compute as long as a layer computes longer than the next one travels") {
  for (const bool fast : {true, false}) {
    Scenario s = step();
    s.model.vocabulary = 1;
    spread(s, {.data = 8, .zero = 3});
    // Forward of a layer: 2 FLOPs per weight and token, 2 bytes per weight: the break-even rate.
    const double seconds = 2 * layer_parameters(s.model) * 4096 / s.gpu.peak("bf16").si();
    const double rate = layer_parameters(s.model) * 2 * 7 / 8 / seconds;
    s.cluster = nvswitch(s.cluster.gpu(), {8, {BytesPerSecond::from_si(rate * (fast ? 1.2 : 0.5)), Seconds()}});
    const SimulationResult result = run(s);
    const double exposed = to_seconds(result.ranks[0].exposed_comm).si();
    // At least the first gather and the last reduction show.
    if (fast) CHECK(exposed < 2.5 * seconds);
    // Half the rate: each of 8 gathers forward shows for about as long as it hides.
    if (!fast) CHECK(exposed > 8 * 0.8 * seconds);
  }
}

TEST_CASE("a decode step reads weights and KV cache once") {
  Scenario s = step();
  s.backward = false;
  s.decode = true;
  s.gpu.hbm_bandwidth = BytesPerSecond::from_si(1e12);
  for (const int tensor : {1, 8}) {
    spread(s, {.tensor = tensor, .sequence_parallel = false});
    const ModelShape& m = s.model;
    const double weights = s.layers * (m.attention_parameters() + m.ffn_parameters()) + table(m);
    const double cache = 2.0 * static_cast<double>(m.kv_heads * m.head_dim) * 4096 * s.layers;
    const double bytes = 2 * (weights + cache) / tensor;
    CHECK_THAT(to_seconds(run(s).end).si(), WithinRel(bytes / 1e12, 0.01));
  }
}

TEST_CASE("a decode step reads the keys that the last token scores, where they lie, and keeps what later ones read") {
  using Kind = Primitive::Kind;
  const double tokens = 4096;
  struct Case {
    std::vector<Primitive> primitives;
    double read, kept;  // of a sequence
  };
  const std::vector<Case> cases = {
      {{{}}, tokens, tokens},
      {{{.kind = Kind::window, .left = 1000}}, 1001, 1001},
      {{{.kind = Kind::window, .left = 100000}}, tokens, tokens},
      {{{.kind = Kind::window, .left = 99}, {.kind = Kind::stride, .period = 512, .count = 3}}, 100 + 3, 3 * 512 + 1},
      {{{.kind = Kind::window, .left = 99}, {.kind = Kind::stride, .period = 512, .count = 0}}, 100 + 7, tokens},
      {{{.kind = Kind::window, .left = 99}, {.kind = Kind::sink, .first = 4}}, 100 + 4, 100 + 4},
      // Half of the layers.
      {{{.kind = Kind::window, .left = 999, .layers = {1, 3, 5, 7}}, {.layers = {2, 4, 6, 8}}},
       (1000 + tokens) / 2,
       (1000 + tokens) / 2},
  };
  for (const Case& c : cases) {
    for (const char* layout : {"contiguous", "striped"}) {
      for (const int ranks : {1, 4}) {
        Scenario s = step();
        s.backward = false;
        s.decode = true;
        s.layout = layout;
        s.primitives = c.primitives;
        s.gpu.hbm_bandwidth = BytesPerSecond::from_si(1e12);
        spread(s, {.context = ranks, .sequence_parallel = false});
        const Pattern pattern = s.pattern();
        INFO(pattern.describe() << ", " << layout << " on " << ranks);
        // The rank of the last tokens has all of a window that fits it; striped, all have as many.
        const double own = tokens / ranks;
        double busiest = 0;
        for (int k = 0; k < pattern.classes(); ++k) {
          const Mask mask = pattern.mask(k, s.tokens, true, {});
          double most = 0;
          for (int rank = 0; rank < ranks; ++rank) {
            double read = 0;
            for (Index key = 0; key < s.tokens; ++key) {
              const bool mine = s.layout == "striped" ? key % ranks == rank : key / static_cast<Index>(own) == rank;
              read += mine && mask.allows(s.tokens - 1, key) ? 1 : 0;
            }
            most = std::max(most, read);
          }
          busiest += most * pattern.layers_of(k);
        }
        const ModelShape& m = s.model;
        const double row = 2.0 * static_cast<double>(m.kv_heads * m.head_dim) * 2;
        const double weights = s.layers * (m.attention_parameters() + m.ffn_parameters()) + table(m);
        const StepProgram program = build_step(s);
        const SimulationResult result = simulate(program, s.cluster);
        CHECK_THAT(to_seconds(result.end).si(), WithinRel((2 * weights + row * busiest) / 1e12, 0.01));
        const double attention = 4 * static_cast<double>(m.heads * m.head_dim) * c.read * s.layers;
        CHECK_THAT(summarize(s, program, {result, std::nullopt}, 0).useful.si(),
                   WithinRel(2 * weights + attention, 1e-9));
        const double cache = memory_of(memory_input(s))[MemoryPart::kv_cache];
        if (ranks == 1) CHECK_THAT(cache, WithinRel(row * c.kept * s.layers, 1e-9));
        CHECK(cache <= row * own * s.layers);
        CHECK(cache >= row * c.kept / ranks * s.layers);
      }
    }
  }
}

TEST_CASE("every schedule runs whole steps: the same work, forward and backward, in all engines") {
  for (const ScheduleKind& schedule : schedules()) {
    for (const bool backward : {false, true}) {
      Scenario s = step(100e9, 1e-6);
      s.backward = backward;
      s.layers = 2;
      s.schedule = &schedule;
      s.layout = "zigzag";
      spread(s, {.tensor = 2, .context = 8});
      using HeadExchange = ScheduleKind::HeadExchange;
      s.members = schedule.head_exchange == HeadExchange::none        ? 1
                  : schedule.head_exchange == HeadExchange::all_ranks ? 8
                                                                      : 2;
      // With 4 KV heads on a tensor rank all_ranks replicates them.
      s.groups = 8 / s.members;
      s.inner_ring = schedule.needs_inner_ring ? 4 : 1;
      const SimulationResult event = run(s, Engine::event), cheap = run(s);
      INFO(schedule.name << (backward ? " training" : " prefill"));
      CHECK(event.end == cheap.end);
      const ModelShape& m = s.model;
      const double tokens = 4096, times = backward ? 6 : 2;
      const double weights = s.layers * (m.attention_parameters() + m.ffn_parameters());
      const double head = backward ? 6 * table(m) * tokens : 2 * table(m);
      const double attention =
          (backward ? 3.5 : 1) * 4 * tokens * (tokens + 1) / 2 * static_cast<double>(m.heads * m.head_dim) * s.layers;
      const Report report = summarize(s, build_step(s), {cheap, std::nullopt}, 0);
      CHECK_THAT(report.useful.si(), WithinRel(times * weights * tokens + head + attention, 1e-9));
    }
  }
}

TEST_CASE("engines agree on whole steps and accounts add up") {
  const std::vector<std::pair<Degrees, int>> degrees = {
      {{.data = 8, .zero = 3}, 2},
      {{.data = 2, .tensor = 2, .context = 2, .zero = 3}, 1},
      {{.data = 2, .tensor = 2, .pipeline = 2, .zero = 1}, 4},
      {{.tensor = 2, .pipeline = 2, .context = 2, .virtual_stages = 2, .zero = 2}, 4},
      {{.context = 8, .zero = 3}, 1},
  };
  for (const auto& [degree, microbatches] : degrees) {
    for (const Recompute recompute : {Recompute::none, Recompute::full}) {
      Scenario s = step(100e9, 1e-6);
      s.layers = 4;
      s.recompute = recompute;
      spread(s, degree, microbatches);
      const SimulationResult event = run(s, Engine::event), cheap = run(s);
      INFO("data " << degree.data << " tensor " << degree.tensor << " pipeline " << degree.pipeline << " context "
                   << degree.context << ", engine " << name_of(cheap.engine) << " " << cheap.engine_reason);
      CHECK(event.end == cheap.end);
      double sent = 0, received = 0;
      for (std::size_t r = 0; r < event.ranks.size(); ++r) {
        const RankTotals& rank = event.ranks[r];
        CHECK(rank.compute == cheap.ranks[r].compute);
        CHECK(rank.exposed_comm == cheap.ranks[r].exposed_comm);
        CHECK(rank.compute + rank.exposed_comm + rank.idle == event.end);
        sent += rank.sent.si();
        received += rank.received.si();
      }
      CHECK_THAT(sent, WithinRel(received, 1e-12));
    }
  }
}
