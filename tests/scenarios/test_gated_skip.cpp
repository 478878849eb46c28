// What a gated skip costs: kernels that gate it, where there is one, and values that travel.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "scenarios/report.hpp"
#include "scenarios/step_scenario.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/scenario_text.hpp"
#include "tests/scenarios/primitives.hpp"

using namespace orrery;

namespace {

constexpr Index all_tokens = 32768, window_left = 1024;
constexpr int ranks = 4;

const std::string window_alone = fmt::format("{{kind = \"window\", left = {}}}", window_left);

std::string with_skip(Index period, const std::string& layers = "[1, 2]") {
  return fmt::format("{}, {{kind = \"gated_skip\", period = {}, layers = {}}}", window_alone, period, layers);
}

/// Attention of two layers of Llama 3 8B on four H200.
Scenario scenario(const std::string& pattern, const std::string& implementation = "orrery_pi",
                  const std::string& pass = "forward", const std::string& documents = "") {
  return ScenarioText{.tokens = all_tokens,
                      .pass = pass,
                      .scope = pass == "decode" ? "step" : "attention",
                      .workload = "layers = 2\n",
                      .pattern = pattern,
                      .attention = documents,
                      .ranks = ranks,
                      .schedule = "halo",
                      .implementation = implementation,
                      .profile = "h200_sxm"}
      .scenario();
}

double kernel_seconds(const Scenario& s) {
  return build_program(s).kernel_work(1).time.si();
}

std::string left_out(const Scenario& s) {
  return fmt::format("{}", fmt::join(predict(s).left_out, "; "));
}

}  // namespace

TEST_CASE("without a gated skip no gate runs, and orrery_pi takes as long as orrery_window") {
  for (const char* transport : {"", "_nccl"}) {
    for (const char* pass : {"forward", "training_step"}) {
      const auto time = [&](const std::string& library) {
        return predict(scenario(window_alone, library + transport, pass)).step_time;
      };
      CHECK(time("orrery_pi") == time("orrery_window"));
    }
  }
}

TEST_CASE("a gate runs in the layers that have a gated skip") {
  const Scenario s = scenario(window_alone);
  // O and the shifted V read, O written, of the rank's rows.
  const auto rows = static_cast<double>(all_tokens / ranks * s.model.heads * s.model.head_dim);
  const double gate = streaming_cost(Bytes::from_si(rows * 6), peaks_of(s), s.profile, "gate").duration.si() +
                      s.implementation.kernel_gap.value;
  const double none = kernel_seconds(s);
  CHECK(kernel_seconds(scenario(with_skip(2048, "[2]"))) - none == Approx(gate).epsilon(1e-9));
  CHECK(kernel_seconds(scenario(with_skip(2048))) - none == Approx(2 * gate).epsilon(1e-9));
}

TEST_CASE("a gated skip as long as the longest document reads nothing and has no gate") {
  const auto time = [](const std::string& pattern, const std::string& documents) {
    return predict(scenario(pattern, "orrery_pi", "training_step", documents)).step_time;
  };
  const std::string documents = "documents = [12288, 20480]\n";
  CHECK(time(with_skip(all_tokens), "") == time(window_alone, ""));
  CHECK(time(with_skip(20480), documents) == time(window_alone, documents));
  CHECK(time(with_skip(all_tokens - 1), "") > time(window_alone, ""));
  CHECK(time(with_skip(20479), documents) > time(window_alone, documents));
}

TEST_CASE("gates are left out where a pattern has a gated skip and nothing that is simulated gates it") {
  const std::string skip = with_skip(2048), gates = "gates of pi-attention";
  CHECK_THAT(left_out(scenario(skip, "ideal")), ContainsSubstring(gates));
  CHECK_THAT(left_out(scenario(skip, "orrery_pi", "decode")), ContainsSubstring(gates));
  CHECK_THAT(left_out(scenario(skip)), !ContainsSubstring(gates));
  for (const char* other : {"orrery_pi", "ideal"}) {
    CHECK_THAT(left_out(scenario(window_alone, other)), !ContainsSubstring(gates));
    CHECK_THAT(left_out(scenario(with_skip(all_tokens), other)), !ContainsSubstring(gates));
  }
}

TEST_CASE("a prediction rests on the rate of gates, which is that of other kernels, where gates run") {
  const auto gates = [](const std::string& pattern) {
    const auto constants = predict(scenario(pattern)).constants;
    return std::count_if(constants.begin(), constants.end(),
                         [](const ConstantReport& c) { return c.name.find("stream.other") != std::string::npos; });
  };
  CHECK(gates(window_alone) == 0);
  CHECK(gates(with_skip(2048)) > 0);
}

TEST_CASE("a halo fetches of a gated skip the values beyond the window's rows, none from before the sequence") {
  const double own = static_cast<double>(all_tokens) / ranks;
  const auto share = [](Index period) {
    return fetched_share({window(window_left), {.kind = Primitive::Kind::gated_skip, .period = period}},
                         static_cast<double>(all_tokens), ranks);
  };
  const double keys = window_left / own;
  CHECK(share(window_left / 2) == keys);
  CHECK(share(3000) == keys + (3000 - window_left) / own / 2);
  CHECK(share(9000) == keys + (9000 - window_left) / own / 2);  // V of two ranks, of which the window's rows have some
  CHECK(share(20000) == keys + 0.5);                            // as many rows as the rank has
  for (const Index beyond : {all_tokens, 2 * all_tokens}) {
    CHECK(share(beyond) == keys);
    CHECK(fetched_share({window(window_left), stride(beyond, 1)}, static_cast<double>(all_tokens), ranks) == keys);
  }
  // It is what the program sends to a rank that lies far enough from the beginning.
  for (const Index period : {window_left / 2, Index{3000}, Index{9000}}) {
    const Scenario s = scenario(with_skip(period));
    const double row = 2.0 * static_cast<double>(s.model.kv_heads * s.model.head_dim) * 2;
    const SimulationResult result = simulate(build_program(s), s);
    REQUIRE(s.implementation.halo_of_whole_windows);
    const double fetched = fetched_share(s.primitives, static_cast<double>(all_tokens), ranks, true);
    CHECK(result.ranks[2].received.si() == Approx(s.layers * fetched * own * row));
  }
}

TEST_CASE("a halo of values alone is one message, also where keys and values are two") {
  const Index period = 3000;
  Scenario s = scenario(fmt::format("{{kind = \"window\", left = 0}}, {{kind = \"gated_skip\", period = {}}}", period));
  s.implementation.halo_of_whole_windows = false;
  REQUIRE(s.implementation.kv_messages == 2);
  const Bytes values = Bytes::from_si(static_cast<double>(period * s.model.kv_heads * s.model.head_dim) * 2);
  const LinkTable& measured = *s.profile.kernels->link_of("nvlink4", "copy_engine", "peer_copy both");
  const BytesPerSecond rate = s.links.front().type.bandwidth * s.profile.link_efficiency.value;
  const Seconds startup = measured.time(values) - s.cluster.route(0, 1).latency - values / rate;
  REQUIRE(startup > Seconds());
  const AttentionProgram program = build_program(s);
  int halos = 0;
  for_each_op(program, 0, [&](const Op& op, std::span<const Message> messages) {
    if (messages.empty()) return;
    ++halos;
    CHECK(messages.front().size == values);
    CHECK(op.duration == to_ticks(startup + Seconds::from_si(s.implementation.dependency.value)));
  });
  CHECK(halos == s.layers);
}
