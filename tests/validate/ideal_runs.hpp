// Programs with chosen peaks on clusters with chosen links, for closed forms.
#pragma once

#include <utility>

#include "sim/simulate.hpp"
#include "sim/topologies.hpp"
#include "tests/validate/tiny_programs.hpp"

namespace orrery {

struct IdealCase : TinyCase {
  double matrix_peak = 1e15;
  double hbm = 1e18;  // of the kernel costs; the cluster's is so fast that nobody contends for it
  double element_bytes = 2;
  double bandwidth = 50e9;
  double link_latency = 0.5e-6;
  double launch = 0;

  Index block() const { return tokens / (groups * members); }
  Rank ranks() const { return groups * members; }
};

inline IdealCase ideal_case() {
  IdealCase c;
  c.layers = 1;
  c.backward = false;
  c.causal = false;
  c.head_dim = 32;
  return c;
}

inline AttentionProgram program_of(const IdealCase& c) {
  AttentionProgramInput input = tiny_program(c).input();
  input.peaks = {FlopsPerSecond::from_si(c.matrix_peak), BytesPerSecond::from_si(c.hbm)};
  input.element_bytes = c.element_bytes;
  return AttentionProgram(std::move(input));
}

/// Any two GPUs are two links apart.
inline Cluster one_node(const IdealCase& c) {
  const LinkSpec link{BytesPerSecond::from_si(c.bandwidth), Seconds::from_si(c.link_latency)};
  return nvswitch({132, BytesPerSecond::from_si(1e18)}, {c.ranks(), link});
}

inline SimulationResult run(const IdealCase& c) {
  const AttentionProgram program = program_of(c);
  return simulate(program, one_node(c));
}

inline Seconds route_latency(const IdealCase& c) {
  return Seconds::from_si(2 * c.link_latency);
}

/// Time of `pairs` scored pairs per head on `heads` heads at the matrix peak.
inline Ticks attention_ticks(const IdealCase& c, Index pairs, int heads, Phase phase = Phase::forward) {
  const double flops = (phase == Phase::forward ? 4.0 : 10.0) * static_cast<double>(pairs) * c.head_dim * heads;
  return to_ticks(Seconds::from_si(flops / c.matrix_peak));
}

}  // namespace orrery
