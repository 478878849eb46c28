#include "scenarios/step_costs.hpp"

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace orrery {
namespace {

struct KernelPieces {
  const StepCostInput& in;
  const Profile& profile;
  double tokens;  // of the rank

  struct Weights {
    double inner, columns;
  };
  /// `rows` times each of some matrices of weights.
  struct Matrices {
    double rows;
    std::initializer_list<Weights> weights;
    Phase phase = Phase::forward;
  };
  DenseCost matrices(const Matrices& m) const { return matrices(m, in.peaks, in.shape.element_bytes); }
  /// Of a layer: in fp8, if that is asked for.
  DenseCost layer_matrices(const Matrices& m) const {
    if (!(in.fp8_rate > FlopsPerSecond())) return matrices(m);
    GpuPeaks peaks = in.peaks;
    peaks.matrix = in.fp8_rate;
    return matrices(m, peaks, 1);
  }
  DenseCost matrices(const Matrices& m, const GpuPeaks& peaks, double operand_bytes) const {
    DenseShape shape{
        .products = {}, .element_bytes = operand_bytes, .result_bytes = in.shape.element_bytes, .phase = m.phase};
    for (const auto& [inner, columns] : m.weights) {
      shape.row_alignment = std::min(shape.row_alignment, row_alignment({inner, columns}, operand_bytes));
      if (m.rows * inner * columns > 0) shape.products.push_back({m.rows, columns, inner});
    }
    if (shape.products.empty()) return {};
    const KernelCost cost = dense_cost(shape, peaks, profile, in.clock_cap);
    return {cost.duration, cost.hbm_traffic, cost.flops, cost.energy};
  }

  DenseCost& stream(DenseCost& cost, double elements, std::string_view kernel) const {
    return stream_bytes(cost, elements * in.shape.element_bytes, kernel);
  }
  DenseCost& stream_bytes(DenseCost& cost, double bytes, std::string_view kernel) const {
    if (bytes == 0) return cost;
    const KernelCost more = streaming_cost(Bytes::from_si(bytes), in.peaks, profile, kernel);
    cost.duration += more.duration;
    cost.hbm_traffic += more.hbm_traffic;
    cost.energy += more.energy;
    return cost;
  }
};

/// Of Q, and of K or V, on a tensor rank; KV heads are replicated if there are fewer than ranks.
double query_width(const MemoryInput& in) {
  return static_cast<double>(in.model->heads * in.model->head_dim) / in.degrees.tensor;
}
double key_width(const MemoryInput& in) {
  const auto kv_heads = static_cast<double>(in.model->kv_heads);
  return kv_heads * static_cast<double>(in.model->head_dim) / std::min<double>(in.degrees.tensor, kv_heads);
}

double rows_of(const MemoryInput& in) {
  return in.sequences * (in.pass == StepPass::decode ? 1 : in.tokens) /
         (in.pass == StepPass::decode ? 1 : in.degrees.context);
}

}  // namespace

// Elements moved: a norm reads and writes its rows; rotary reads and writes Q and K; a residual reads two and writes
// one; a gated product reads two and writes one. Under sequence parallelism rows between matrices are split.
StepCosts step_costs(const StepCostInput& input, const Profile& profile) {
  const MemoryInput& in = input.shape;
  const ModelShape& m = *in.model;
  const Degrees& d = in.degrees;
  const double rows = rows_of(in), t = d.tensor;
  const KernelPieces p{input, profile, rows};
  const auto h = static_cast<double>(m.hidden), vocabulary = static_cast<double>(m.vocabulary) / t;
  const double queries = query_width(in), keys = key_width(in);
  const double ffn = static_cast<double>(m.ffn_hidden) / t, gates = m.gated_ffn ? 2 : 1;
  const double between = rows / (d.sequence_parallel ? t : 1) * h;
  StepCosts c;
  c.qkv = p.layer_matrices({rows, {{h, queries + 2 * keys}}});
  p.stream(c.qkv, 2 * between, "rms_norm");
  p.stream(c.qkv, 2 * rows * (queries + keys), "rotary");
  c.output = p.layer_matrices({rows, {{queries, h}}});
  p.stream(c.output, 3 * between, "add");
  c.mlp = p.layer_matrices({rows, {{h, gates * ffn}, {ffn, h}}});
  p.stream(c.mlp, 2 * between, "rms_norm");
  p.stream(c.mlp, (gates + 1) * rows * ffn, "swiglu");
  p.stream(c.mlp, 3 * between, "add");
  p.stream(c.embedding, 2 * between, "embed");
  const double head_rows = in.pass == StepPass::training ? rows : std::min(rows, in.sequences);
  // Vocabularies are odd at times, so that the passes take kernels of different layouts.
  for (const auto& [head, phase] : {std::pair(&c.head, Phase::forward), std::pair(&c.head_gradient, Phase::backward)}) {
    *head = p.matrices({head_rows, {{h, vocabulary}}, phase});
    p.stream(*head, 2 * between, "rms_norm");
    // Logits are read and their gradient written; a fused loss does so in cache.
    if (in.pass == StepPass::training && !in.fused_loss) p.stream(*head, 2 * rows * vocabulary, "other");
  }

  const double of_layer = (m.attention_parameters() + m.ffn_parameters() + 2 * h) / t;
  const double of_table = h * vocabulary;
  c.sequence = Bytes::from_si(rows * h * in.element_bytes);
  c.layer_parameters = Bytes::from_si(of_layer * in.state.parameter);
  c.table_parameters = Bytes::from_si(of_table * in.state.parameter);
  c.layer_gradients = Bytes::from_si(of_layer * in.state.gradient);
  c.table_gradients = Bytes::from_si(of_table * in.state.gradient);
  if (in.pass == StepPass::training) {
    const double layers = static_cast<double>(in.layers) / d.pipeline;
    const double tables = (d.pipeline == 1 ? (m.tied_embeddings ? 1 : 2) : 1) * of_table;
    const double owned = (layers * of_layer + tables) / (d.zero >= 1 ? d.replicas() : 1);
    // Reads the gradient, reads and writes the state and the weights.
    p.stream_bytes(c.optimizer, owned * (in.state.gradient + 2 * (in.state.optimizer + in.state.parameter)), "other");
  }
  if (in.pass == StepPass::decode) {
    c.partial_output = Bytes::from_si(in.sequences * (queries + static_cast<double>(m.heads) / t) * 4);
  }
  return c;
}

DenseCost decode_attention_cost(const StepCostInput& input, const Profile& profile, double keys_read) {
  const MemoryInput& in = input.shape;
  const double read = in.sequences * keys_read;
  DenseCost cost;
  KernelPieces{input, profile, rows_of(in)}.stream_bytes(cost, read * 2 * key_width(in) * in.element_bytes, "other");
  cost.flops = Flops::from_si(4 * read * query_width(in));
  return cost;
}

namespace {

/// Of all ranks: weights times the tokens that pass through them.
struct WeightUses {
  double layers, head, flops_each;
};

WeightUses uses_of(const MemoryInput& in) {
  const ModelShape& m = *in.model;
  const bool training = in.pass == StepPass::training;
  const double sequences = in.sequences * in.microbatches * in.degrees.data;
  const double tokens = sequences * (in.pass == StepPass::decode ? 1 : in.tokens);
  const double layers = in.layers * (m.attention_parameters() + m.ffn_parameters());
  const double head = static_cast<double>(m.hidden * m.vocabulary);
  return {tokens * layers, (training ? tokens : sequences) * head, training ? 6.0 : 2.0};
}

}  // namespace

Flops dense_flops(const MemoryInput& in) {
  const WeightUses uses = uses_of(in);
  return Flops::from_si(uses.flops_each * (uses.layers + uses.head));
}

Flops layer_flops(const MemoryInput& in) {
  const WeightUses uses = uses_of(in);
  return Flops::from_si(uses.flops_each * uses.layers);
}

FlopsPerSecond mean_peak(Flops useful, FlopsPerSecond peak, Flops in_fp8, FlopsPerSecond fp8_peak) {
  return useful / ((useful - in_fp8) / peak + in_fp8 / fp8_peak);
}

}  // namespace orrery
