// What a cache keeps of keys and values: what the last token and later ones read.
#include <fmt/format.h>

#include <string>

#include "scenarios/step_scenario.hpp"
#include "tests/catch.hpp"
#include "tests/scenario_text.hpp"
#include "tests/scenarios/primitives.hpp"

using namespace orrery;

namespace {

constexpr Index tokens = 16384, left = 1000, period = 3000;

/// A step of two layers of Llama 3 8B.
Scenario scenario(std::vector<Primitive> primitives, const std::string& pass, int ranks = 1,
                  const std::string& layout = "contiguous", const std::string& documents = "") {
  Scenario s = ScenarioText{.tokens = tokens,
                            .pass = pass,
                            .scope = "step",
                            .workload = "layers = 2\n",
                            .attention = documents,
                            .ranks = ranks,
                            .schedule = "all_gather",
                            .layout = layout}
                   .scenario();
  s.primitives = std::move(primitives);
  return s;
}

Primitive gated_skip(Index of) {
  return {.kind = Primitive::Kind::gated_skip, .period = of};
}

/// Tokens whose keys and values the fullest rank's cache keeps, in the mean of the layers.
double cached(const Scenario& s) {
  return memory_input(s).cached_share * static_cast<double>(s.tokens) / s.degrees.context;
}

}  // namespace

TEST_CASE("a cache keeps the keys of a window and sink, and of a gated skip the values alone") {
  for (const char* pass : {"forward", "decode"}) {
    CHECK(cached(scenario({window(left)}, pass)) == left + 1);
    CHECK(cached(scenario({window(left), gated_skip(period)}, pass)) == ((left + 1) + (period + 1)) / 2.0);
    CHECK(cached(scenario({window(left), gated_skip(left)}, pass)) == left + 1);
    const Primitive sink{.kind = Primitive::Kind::sink, .first = 4};
    CHECK(cached(scenario({window(left), gated_skip(period), sink}, pass)) == ((left + 5) + (period + 5)) / 2.0);
    Primitive deeper = gated_skip(period);
    deeper.layers = {2};
    CHECK(cached(scenario({window(left), deeper}, pass)) == left + 1 + (period - left) / 4.0);
  }
}

TEST_CASE("of a skip as long as the sequence, which reads nothing yet, the cache keeps all values for later tokens") {
  for (const Index beyond : {tokens - 1, tokens, 2 * tokens}) {
    CHECK(cached(scenario({window(left), gated_skip(beyond)}, "decode")) == ((left + 1) + tokens) / 2.0);
  }
}

TEST_CASE("on ranks in the order of the tokens the last has most of a gated skip's values") {
  // The window's keys and values lie on the last of four ranks, which are full from there on.
  const Index own = tokens / 4;
  CHECK(cached(scenario({window(left), gated_skip(period)}, "decode", 4)) == ((left + 1) + (period + 1)) / 2.0);
  CHECK(cached(scenario({window(left), gated_skip(2 * own)}, "decode", 4)) == ((left + 1) + own) / 2.0);
}

TEST_CASE("of packed documents a prefill keeps what each goes on with, a decode step the last") {
  const Index first = 1500, second = 5500, last = tokens - first - second;
  const std::string documents = fmt::format("documents = [{}, {}, {}]\n", first, second, last);
  const Primitive sink{.kind = Primitive::Kind::sink, .first = 4};
  const auto of = [&](std::vector<Primitive> primitives, const char* pass) {
    return cached(scenario(std::move(primitives), pass, 1, "contiguous", documents));
  };
  CHECK(of({{}}, "forward") == tokens);
  CHECK(of({{}}, "decode") == last);
  CHECK(of({window(left)}, "forward") == 3 * (left + 1));
  CHECK(of({window(left)}, "decode") == left + 1);
  CHECK(of({window(2000)}, "forward") == first + 2 * 2001);
  CHECK(of({window(left), sink}, "forward") == 3 * (left + 5));
  CHECK(of({window(left), sink}, "decode") == left + 5);
  // Of the first document, shorter than the period, all values.
  CHECK(of({window(left), gated_skip(period)}, "forward") == (3 * (left + 1) + first + 2 * (period + 1)) / 2.0);
  CHECK(of({window(left), gated_skip(period)}, "decode") == ((left + 1) + (period + 1)) / 2.0);
}

TEST_CASE(
    "of the last packed document striped ranks keep as much each, and of contiguous ones the last is full of it") {
  const std::string documents = fmt::format("documents = [{}, {}]\n", tokens / 2, tokens / 2);
  CHECK(cached(scenario({{}}, "decode", 4, "striped", documents)) == tokens / 8);
  CHECK(cached(scenario({{}}, "decode", 4, "contiguous", documents)) == tokens / 4);
}
