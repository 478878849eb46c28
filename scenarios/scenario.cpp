#include "scenarios/scenario.hpp"

#include <algorithm>

#include "scenarios/link_timings.hpp"
#include "sim/contains.hpp"

namespace orrery {

bool Scenario::full_pattern() const {
  return std::all_of(primitives.begin(), primitives.end(),
                     [](const Primitive& p) { return p.kind == Primitive::Kind::full; });
}

Index Scenario::longest_document() const {
  return documents.empty() ? tokens : *std::max_element(documents.begin(), documents.end());
}

std::vector<bool> Scenario::gates() const {
  const Pattern all = pattern();
  std::vector<bool> gates;
  for (int c = 0; c < all.classes(); ++c) gates.push_back(all.is_gated(c, longest_document()));
  return gates;
}

bool Scenario::has_gates() const {
  const std::vector<bool> all = gates();
  return contains(all, true);
}

GpuPeaks peaks_of(const Scenario& s) {
  return {s.gpu.peak(s.dtype), s.gpu.hbm_bandwidth, static_cast<int>(s.gpu.sms)};
}

double bytes_per_element(std::string_view dtype) {
  return dtype == "fp32" ? 4.0 : 2.0;
}

const Layout& layout_of(const Scenario& s) {
  return *std::find_if(layouts().begin(), layouts().end(), [&](const Layout& l) { return l.name == s.layout; });
}

/// A tensor rank has its share of the heads; a replica its share of the batch, one microbatch at a time.
Geometry geometry_of(const Scenario& s) {
  const int tensor = s.degrees.tensor;
  return make_geometry(layout_of(s), s.tokens, s.residue_period, s.groups, s.members,
                       static_cast<int>(s.model.heads) / tensor,
                       std::max(1, static_cast<int>(s.model.kv_heads) / tensor), static_cast<int>(s.model.head_dim),
                       s.batch / (s.degrees.data * s.microbatches));
}

AttentionProgram build_program(const Scenario& s) {
  return AttentionProgram(attention_input(s));
}

AttentionProgramInput attention_input(const Scenario& s) {
  AttentionProgramInput input;
  input.geometry = geometry_of(s);
  input.implementation = s.implementation;
  input.profile = s.profile;
  input.peaks = peaks_of(s);
  input.clock_cap = s.regime;
  const auto scored = [](const Primitive& p) { return p.kind != Primitive::Kind::gated_skip; };
  const auto first_scored = std::find_if(s.primitives.begin(), s.primitives.end(), scored);
  input.plain_window = std::count_if(s.primitives.begin(), s.primitives.end(), scored) == 1 &&
                       first_scored->kind == Primitive::Kind::window;
  input.links = link_timings(s);
  input.element_bytes = bytes_per_element(s.dtype);
  if (s.whole_layers) {
    const ModelShape& m = s.model;
    const double rows = static_cast<double>(s.tokens) / s.ranks() * static_cast<double>(s.batch);
    const auto hidden = static_cast<double>(m.hidden), ffn = static_cast<double>(m.ffn_hidden);
    const auto queries = static_cast<double>(m.heads * m.head_dim), keys = static_cast<double>(m.kv_heads * m.head_dim);
    input.dense = {.products = {{rows, queries + 2 * keys, hidden},
                                {rows, hidden, queries},
                                {rows, (m.gated_ffn ? 2 : 1) * ffn, hidden},
                                {rows, hidden, ffn}},
                   .element_bytes = input.element_bytes,
                   .result_bytes = input.element_bytes,
                   .row_alignment = row_alignment({hidden, ffn, queries, keys}, input.element_bytes)};
  }
  const Pattern pattern = s.pattern();
  set_masks(input, pattern, s.tokens, s.causal, s.documents);
  input.gates = s.gates();
  for (int layer = 0; layer < s.layers; ++layer) input.class_of_layer.push_back(pattern.class_of_layer(layer));
  input.schedule = s.schedule;
  input.inner_ring = s.inner_ring;
  // A gather goes over nodes first if the ranks fill them evenly.
  const bool fills_nodes = s.node_size > 1 && s.members == 1 && s.groups % s.node_size == 0 && s.groups > s.node_size;
  if (fills_nodes && !s.schedule->needs_inner_ring) input.inner_ring = s.node_size;
  input.backward = s.backward;
  return input;
}

}  // namespace orrery
