// On which line and curve the headline numbers of pi-Attention are true.
#include "validate/pi_attention_claims.hpp"

#include "scenarios/data_files.hpp"
#include "scenarios/size_bound.hpp"
#include "tests/catch.hpp"

using namespace orrery;
using namespace orrery::pi_attention_claims;

namespace {

Table claim_file(const std::string& name) {
  return Table::parse_file(std::string(ORRERY_SOURCE_DIR) + "/scenarios/claims/" + name + ".toml");
}

/// Projections of 4 H^2 and an MLP of 8 H^2 weights, as the formula has it, and next to no output head.
ModelShape plain_model(std::int64_t hidden) {
  ModelShape m;
  m.layers = 24;
  m.hidden = hidden;
  m.heads = m.kv_heads = hidden / 64;
  m.head_dim = 64;
  m.ffn_hidden = 4 * hidden;
  m.vocabulary = 1;
  return m;
}

}  // namespace

TEST_CASE("24.1 % fewer FLOPs: the line is where the formula gives 24.1 %") {
  const FlopsClaim claim = read_flops_claim(claim_file("pi_fewer_flops"));
  for (const double hidden : claim.hidden) {
    for (const double keys : claim.keys) {
      const double n = tokens_that_save(claim.fewer, hidden, keys, false);
      CHECK_THAT(flops_saved(n, hidden, keys), WithinRel(claim.fewer, 1e-12));
      CHECK(tokens_that_save(claim.fewer, hidden, keys, true) == 2 * n);
      // More of either needs more tokens, and beyond the line more is saved.
      CHECK(flops_saved(2 * n, hidden, keys) > claim.fewer);
      CHECK(flops_saved(n, 2 * hidden, keys) < claim.fewer);
      CHECK(flops_saved(n, hidden, 2 * keys) < claim.fewer);
    }
  }
  // 74 keys at H = 1024: 2048 tokens. 259 keys at 32K: 83.5 %.
  CHECK_THAT(tokens_that_save(0.241, 1024, 74, false), WithinAbs(2048, 1));
  CHECK_THAT(flops_saved(32768, 1024, 259), WithinAbs(0.835, 0.0005));
}

TEST_CASE("24.1 % fewer FLOPs: counted pair by pair a plain model saves what the formula says") {
  for (const Index n : {2048, 32768}) {
    for (const Index w : {74, 1026}) {
      const auto tokens = static_cast<double>(n), keys = static_cast<double>(w);
      // Causal: query i sees i keys, i = 1 .. n, or min(i, w).
      const double dense = (tokens + 1) / 2, sparse = keys - keys * (keys - 1) / (2 * tokens);
      CHECK_THAT(flops_saved(plain_model(1024), n, w), WithinRel((dense - sparse) / (6 * 1024 + dense), 1e-5));
    }
  }
  const ModelShape model = plain_model(1024);
  const std::optional<Index> n = tokens_that_save(0.241, model, 74);
  REQUIRE(n.has_value());
  CHECK(flops_saved(model, *n, 74) >= 0.241);
  CHECK(flops_saved(model, *n - 1, 74) < 0.241);
  // Twice the bidirectional 2048, but for the first queries, which see fewer keys than 74.
  CHECK_THAT(static_cast<double>(*n), WithinRel(2 * 2048.0, 0.01));
}

TEST_CASE("50 % fewer GPUs: counts are the least that do") {
  GpusClaim claim = read_gpus_claim(claim_file("pi_half_the_gpus"));
  claim.problem.max_gpus = 16;
  claim.problem.model.layers = 8;
  const double slow = 1, fast = 1e7;
  claim.tokens_per_s = {slow, fast};
  const GpusRow row = needed_gpus(claim, 65536);
  REQUIRE(row.holds.exact.has_value());
  REQUIRE(row.holds_ring.exact.has_value());
  // A plan that holds it on fewer does not exist.
  SizeProblem problem = claim.problem;
  problem.tokens = 65536;
  problem.primitives = {{}};
  problem.prepare();
  for (const Candidate& c : candidates_of(problem)) {
    if (bound_of(problem, c).fits) CHECK(c.degrees.ranks() >= *row.holds.exact);
  }
  // Any speed: what holds it is enough. No speed is reached by what does not exist.
  CHECK(row.keeps_up[0].exact == row.holds.exact);
  CHECK(row.keeps_up[0].pi == row.holds.pi);
  CHECK(!row.keeps_up[1].exact.has_value());
  CHECK(!row.keeps_up[1].fewer().has_value());
  const GpusRow longer = needed_gpus(claim, 2 * 65536);
  CHECK(*longer.holds_ring.exact >= *row.holds_ring.exact);
  CHECK(*longer.holds.pi >= *row.holds.pi);
  CHECK(Needed{8, 4}.fewer() == 0.5);
}
