// Every published or derived figure of pi-Attention's reach, without tolerance. The tables were computed by an
// independent program (set propagation over lags, offset 0 always allowed).
#include <fmt/format.h>

#include "scenarios/reach_closed_form.hpp"
#include "tests/catch.hpp"
#include "tests/reach/reach_runs.hpp"

using namespace orrery;

TEST_CASE("64 points (k, pi, L) by 11 rules: largest lag and bound") {
  const auto rows = read_csv("max_reach.csv");
  REQUIRE(rows.size() == 64);
  for (const auto& row : rows) {
    const Index k = row.at("k"), pi = row.at("pi");
    const int layers = static_cast<int>(row.at("L"));
    CHECK(pi_bound({k, pi}, layers) == row.at("bound"));
    for (const char* rule : {"I", "A", "A2", "B", "D", "E1", "E2", "E3", "F", "G", "H"}) {
      INFO(fmt::format("rule {}, k = {}, pi = {}, L = {}", rule, k, pi, layers));
      const ReachPattern pattern = causal_pi(rule, k, pi);
      CHECK(unbounded_max_lags(pattern, layers).back() == row.at(rule));
      CHECK(reach_of(pattern, endless, layers).layers.back().earlier.max_lag == row.at(rule));
    }
  }
}

TEST_CASE("count and contiguous reach of five rules, by two engines") {
  const auto rows = read_csv("count_contiguous.csv");
  REQUIRE(rows.size() == 32);
  for (const auto& row : rows) {
    const int layers = static_cast<int>(row.at("L"));
    for (const std::string rule : {"I", "A", "B", "E2", "G", "H"}) {
      INFO(fmt::format("rule {}, k = {}, pi = {}, L = {}", rule, row.at("k"), row.at("pi"), layers));
      const ReachPattern pattern = causal_pi(rule, row.at("k"), row.at("pi"));
      for (const ReachEngine engine : {ReachEngine::intervals, ReachEngine::bitset}) {
        const SideReach reach = reach_of(pattern, 16384, layers, engine).layers.back().earlier;
        CHECK(reach.count == row.at(rule + "_count"));
        CHECK(reach.contiguous == row.at(rule + "_contig"));
      }
    }
  }
}

TEST_CASE("layers until the last token sees all earlier ones") {
  for (const auto& row : read_csv("coverage.csv")) {
    INFO(fmt::format("n = {}, k = {}, pi = {}", row.at("n"), row.at("k"), row.at("pi")));
    const auto layers_of = [&](const char* rule, Index enough) {
      return reach_of(causal_pi(rule, row.at("k"), row.at("pi")), row.at("n"), static_cast<int>(enough))
          .layers_to_cover.value_or(-1);
    };
    CHECK(layers_of("I", row.at("layers_local_only") + 1) == row.at("layers_local_only"));
    CHECK(layers_of("A", row.at("layers_rule_A") + 1) == row.at("layers_rule_A"));
    Index implied = 1;
    while (pi_bound({row.at("k"), row.at("pi")}, static_cast<int>(implied)) < row.at("n") - 1) ++implied;
    CHECK(implied == row.at("layers_implied_by_bound"));
  }
}

TEST_CASE("layers until every token of a ring sees every other") {
  for (const auto& row : read_csv("ring.csv")) {
    INFO(fmt::format("n = {}, k = {}, pi = {}", row.at("n"), row.at("k"), row.at("pi")));
    for (const ReachEngine engine : {ReachEngine::intervals, ReachEngine::bitset}) {
      const auto layers_of = [&](const char* rule, Index enough) {
        const ReachPattern pattern = pi_pattern(rule, {row.at("k"), row.at("pi")}, false, true);
        return reach_of(pattern, row.at("n"), static_cast<int>(enough), engine).layers_to_cover.value_or(-1);
      };
      CHECK(layers_of("I", row.at("layers_local_only") + 1) == row.at("layers_local_only"));
      CHECK(layers_of("A", row.at("layers_with_skip") + 1) == row.at("layers_with_skip"));
    }
  }
}

TEST_CASE("verdicts at k = 4, pi = 16") {
  const auto report = [](const char* rule) {
    return report_reach(causal_pi(rule, 4, 16), {4096, 4095, 24, {}}, ReachEngine::automatic);
  };
  const ReachReport a = report("A"), g = report("G"), e2 = report("E2");
  const std::vector<Index> bounds = {4, 24, 48, 80, 112, 176};
  std::size_t i = 0;
  for (const std::size_t layers : {1, 2, 4, 8, 12, 24}) {
    const Index bound = bounds[i++];
    CHECK(a.bounds[layers - 1] == bound);
    CHECK(a.max_lag_verdict(layers - 1).text() ==
          fmt::format("violated (by {})", 16 * static_cast<Index>(layers) - bound));
    CHECK(g.max_lag_verdict(layers - 1).text() == "tight");
    CHECK(e2.max_lag_verdict(layers - 1).kind == (layers == 1 ? Verdict::Kind::tight : Verdict::Kind::holds));
  }
  CHECK(e2.max_lag_verdict(1).text() == "holds (slack 4)");
  for (std::size_t layer = 0; layer < 24; ++layer) CHECK(g.max_lag_verdict(layer).kind == Verdict::Kind::tight);
}

TEST_CASE("where rule A exceeds the bound") {
  const auto violated = [](Index k, Index pi, int layers) { return !rule_a_bound_holds({k, pi}, layers); };
  for (int l = 1; l <= 64; ++l) {
    CHECK(!violated(4, 4, l));
    CHECK(violated(4, 6, l) == (l == 1 || l >= 13));
    CHECK(violated(4, 8, l) == (l == 1 || l >= 7));
    CHECK(violated(4, 12, l) == (l == 1 || l == 2 || l >= 4));
    CHECK(violated(4, 16, l));
    for (const Index pi : {4, 6, 8, 12, 16}) CHECK(violated(4, pi, l) == (pi * (l - ceil_log2(l)) > 4 * l));
  }
}

TEST_CASE("exact ring attention sees everything after one layer") {
  ReachPattern full;
  full.primitives = {{}};
  const ReachRun run = reach_of(full, 32768, 2);
  CHECK(run.layers_to_cover == 1);
  CHECK(run.layers[0].earlier.max_lag == 32767);
}
