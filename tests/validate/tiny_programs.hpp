// Programs small enough to execute on real tensors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "scenarios/attention_program.hpp"

namespace orrery {

inline Constant constant(double value) {
  return {"", value, "1", Provenance::assumed, "test"};
}

/// Efficiencies of one, no overheads, tiles of one pair: closed forms hold exactly.
inline Profile ideal_profile() {
  return {"ideal",     constant(1), constant(1), constant(1), constant(1),
          constant(1), constant(0), constant(1), constant(1)};
}

inline Implementation ideal_implementation() {
  Implementation i;
  i.name = "ideal";
  i.sms = i.message_startup = i.launch = i.dependency = constant(0);
  return i;
}

struct TinyCase {
  std::string schedule = "ring";
  std::string layout = "contiguous";
  Index tokens = 16;
  Index residue_period = 1;
  int groups = 1, members = 1, inner_ring = 1;
  int heads = 4, kv_heads = 2, head_dim = 3;
  bool causal = true;
  std::vector<Primitive> pattern = {{}};
  std::vector<Index> documents = {};
  int layers = 2;
  bool backward = true;
  Implementation implementation = ideal_implementation();
};

template <class Row>
const Row& row_named(std::span<const Row> table, const std::string& name) {
  for (const Row& row : table) {
    if (row.name == name) return row;
  }
  throw std::out_of_range(name);
}

inline AttentionProgram tiny_program(const TinyCase& c) {
  AttentionProgramInput input;
  input.geometry = make_geometry(row_named(layouts(), c.layout), c.tokens, c.residue_period, c.groups, c.members,
                                 c.heads, c.kv_heads, c.head_dim, 1);
  input.implementation = c.implementation;
  input.profile = ideal_profile();
  input.peaks = {FlopsPerSecond::from_si(1e12), BytesPerSecond::from_si(1e15)};
  const Pattern pattern(c.pattern, c.layers);
  set_masks(input, pattern, c.tokens, c.causal, c.documents);
  for (int layer = 0; layer < c.layers; ++layer) input.class_of_layer.push_back(pattern.class_of_layer(layer));
  input.schedule = &row_named(schedules(), c.schedule);
  input.inner_ring = c.inner_ring;
  input.backward = c.backward;
  return AttentionProgram(std::move(input));
}

}  // namespace orrery
