#include "scenarios/memory.hpp"

#include <algorithm>

namespace orrery {
namespace {

constexpr double loss_chunk = 1024;  // tokens whose logits exist at a time with a fused loss
constexpr double lse_bytes = 4;      // log-sum-exp of a row, fp32
/// NCCL keeps 4 MiB (NCCL_BUFFSIZE) for each of 16 channels and two directions of a communicator.
constexpr double communicator_bytes = 16 * 2 * 4.0 * (1 << 20);

/// Elements of the tensors of one layer, per token, by how tensor parallelism treats them.
struct LayerWidths {
  double hidden;       // between the matrices
  double queries;      // Q, or O
  double keys;         // K, or V
  double ffn;          // of one matrix of the MLP
  double ffn_outputs;  // matrices and their product, of one width

  explicit LayerWidths(const ModelShape& m)
      : hidden(static_cast<double>(m.hidden)),
        queries(static_cast<double>(m.heads * m.head_dim)),
        keys(static_cast<double>(m.kv_heads * m.head_dim)),
        ffn(static_cast<double>(m.ffn_hidden)),
        ffn_outputs(m.gated_ffn ? 3 : 2) {}
};

/// Bytes per token of what the two halves of a layer keep.
struct Halves {
  double attention = 0, ffn = 0;
};

double tensor_share(const Degrees& d) {
  return 1.0 / d.tensor;
}
/// Of tensors between the matrices.
double sequence_share(const Degrees& d) {
  return d.sequence_parallel ? tensor_share(d) : 1.0;
}
/// KV heads are replicated if there are fewer than tensor ranks.
double key_share(const ModelShape& m, const Degrees& d) {
  return 1.0 / std::min<double>(d.tensor, static_cast<double>(m.kv_heads));
}

/// Inputs of the norm and of the matrices behind it; Q, K, V, O; the MLP's results. Korthikanti et al. (arXiv
/// 2205.05198, section 4) count the same: 34 bytes per token and hidden of GPT, of which two are dropout masks.
Halves kept_halves(const MemoryInput& in, bool scores) {
  const LayerWidths w(*in.model);
  const double e = in.element_bytes;
  const double whole = sequence_share(in.degrees), split = tensor_share(in.degrees);
  const double mask = in.dropout ? w.hidden * whole : 0;
  Halves kept;
  kept.attention = whole * 2 * w.hidden * e +
                   split * (2 * w.queries * e + lse_bytes * static_cast<double>(in.model->heads)) +
                   key_share(*in.model, in.degrees) * 2 * w.keys * e + mask;
  kept.ffn = whole * 2 * w.hidden * e + split * w.ffn_outputs * w.ffn * e + mask;
  if (!in.fused_attention) kept.attention -= split * lse_bytes * static_cast<double>(in.model->heads);
  if (scores) {
    // Softmax, and with dropout its result and mask.
    const double per_score = in.dropout ? 2 * e + 1 : e;
    kept.attention += split * static_cast<double>(in.model->heads) * in.tokens * per_score;
  }
  return kept;
}

double tokens_of_rank(const MemoryInput& in) {
  return in.sequences * (in.pass == StepPass::decode ? 1 : in.tokens) / in.degrees.context;
}

double layer_parameters(const ModelShape& m) {
  return m.attention_parameters() + m.ffn_parameters() + 2.0 * static_cast<double>(m.hidden);
}

double table_parameters(const ModelShape& m) {
  return static_cast<double>(m.hidden) * static_cast<double>(m.vocabulary);
}

/// Of the embedding and the output head that a stage holds; tied ones of a pipeline are held at both ends.
double tables_of_stage(const MemoryInput& in, bool first, bool last) {
  const ModelShape& m = *in.model;
  double parameters = 0;
  if (first) parameters += table_parameters(m) + static_cast<double>(m.learned_positions * m.hidden);
  if (last && (!first || !m.tied_embeddings)) parameters += table_parameters(m);
  return parameters / in.degrees.tensor;
}

/// Backward of the half of the layer with the larger working set.
double bytes_in_work(const MemoryInput& in) {
  const LayerWidths w(*in.model);
  const double tokens = tokens_of_rank(in), e = in.element_bytes;
  const double whole = sequence_share(in.degrees), split = tensor_share(in.degrees);
  const double keys = key_share(*in.model, in.degrees) * w.keys;
  const bool again = in.recompute == Recompute::blocks || in.recompute == Recompute::full;
  const Halves kept = kept_halves(in, !in.fused_attention);
  // Ring Attention's accounts: Q, O, K and V of the blocks in work; the inputs and norms belong to what is kept.
  const double blocks = split * 2 * w.queries * e + 2 * keys * e;
  const double attention_again = in.blockwise_ffn ? blocks : kept.attention;
  const double ffn_chunk = whole * w.hidden * e;  // one block of the result, the rest comes and goes in chunks
  const double ffn_again = in.blockwise_ffn ? ffn_chunk : kept.ffn;
  // dO, dQ, dK, dV; gradients of the MLP's matrices and of its input.
  const double attention_gradients = in.gradients_of_layer ? blocks : 0;
  const double ffn_gradients = !in.gradients_of_layer ? 0
                               : in.blockwise_ffn     ? ffn_chunk
                                                      : split * (w.ffn_outputs - 1) * w.ffn * e + ffn_chunk;
  if (in.pass != StepPass::training) return tokens * std::max(blocks + ffn_chunk, split * w.ffn_outputs * w.ffn * e);
  // With whole layers recomputed, the MLP's part is there while its backward runs, beside that of attention.
  const double of_attention = (again ? attention_again : 0) + attention_gradients;
  const double of_ffn =
      (again ? ffn_again : 0) + ffn_gradients + (in.recompute == Recompute::full ? attention_again : 0);
  double scores = 0;
  if (in.recompute == Recompute::selective && !in.fused_attention)
    scores = kept.attention - kept_halves(in, false).attention;
  return tokens * (std::max(of_attention, of_ffn) + scores);
}

}  // namespace

StageMemory::StageMemory(const MemoryInput& in, int stage) {
  const Degrees& d = in.degrees;
  const ModelShape& m = *in.model;
  const bool first = stage == 0, last = stage == d.pipeline - 1, training = in.pass == StepPass::training;
  const double layers = static_cast<double>(in.layers) / d.pipeline;
  const double of_layer = layer_parameters(m) / d.tensor;
  const double tables = tables_of_stage(in, first, last);
  const double parameters = layers * of_layer + tables;
  const double replicas = d.replicas();
  const double tokens = tokens_of_rank(in);
  always_.stage = stage;
  always_[MemoryPart::parameters] = parameters * in.state.parameter / (d.zero >= 3 ? replicas : 1);
  if (training) {
    always_[MemoryPart::gradients] = parameters * in.state.gradient / (d.zero >= 2 ? replicas : 1);
    always_[MemoryPart::optimizer] = parameters * in.state.optimizer / (d.zero >= 1 ? replicas : 1);
  }
  if (replicas > 1) {
    // The tables stay gathered from forward to backward, as the root of FSDP does.
    if (d.zero >= 3) {
      always_[MemoryPart::gathered] = tables * in.state.parameter;
      gathered_layer_ = of_layer * in.state.parameter;
    }
    if (d.zero >= 2 && training) layer_gradients_ = of_layer * in.state.gradient;
  }
  const double key_bytes = 2 * static_cast<double>(m.kv_heads * m.head_dim) * key_share(m, d) * in.element_bytes;
  const double own_rows = in.sequences * in.tokens / d.context;
  if (training) {
    kept_layer_ = tokens * kept_per_layer(in, in.recompute);
    if (in.gradients_of_layer) visiting_gradients_ = own_rows * key_bytes * in.visiting.gradients;
  } else {
    always_[MemoryPart::kv_cache] = layers * own_rows * key_bytes * in.cached_share;
  }
  in_work_ = bytes_in_work(in);
  visiting_keys_ = own_rows * key_bytes * in.visiting.keys;
  // What is fetched again with a layer that is computed again is not kept before.
  const bool again = in.recompute == Recompute::blocks || in.recompute == Recompute::full;
  (again ? visiting_keys_ : kept_layer_) += own_rows * key_bytes * in.visiting.kept;
  if (last) {
    // Logits, in training also their fp32 softmax and the gradient; an inference step needs the last token's.
    const double rows = training ? (in.fused_loss ? std::min(tokens, loss_chunk) : tokens) : in.sequences;
    logits_ = rows * static_cast<double>(m.vocabulary) / d.tensor * (training ? 2 * in.element_bytes + 4 : 4);
  }
  for (const int degree : {d.replicas(), d.tensor, d.pipeline}) {
    if (degree > 1) always_[MemoryPart::workspace] += communicator_bytes;
  }
  stage_layers_ = layers;
  most_kept_ = training ? chunks_in_flight(d, stage, in.microbatches) * layers / d.virtual_stages : 0;
  deepest_ = training ? MemoryMoment::Kind::backward : MemoryMoment::Kind::forward;
}

Memory StageMemory::at(const MemoryMoment& moment) const {
  using Kind = MemoryMoment::Kind;
  Memory memory = always_;
  const bool in_layer = moment.kind != Kind::between, backward = moment.kind == Kind::backward;
  const bool holds_work = backward || moment.kind == Kind::recompute || deepest_ == Kind::forward;
  memory[MemoryPart::gathered] += std::min<double>(moment.gathered_layers, stage_layers_) * gathered_layer_;
  memory[MemoryPart::activations] = moment.kept_layers * kept_layer_;
  if (in_layer && holds_work) memory[MemoryPart::layer_in_work] = in_work_;
  if (in_layer) memory[MemoryPart::visiting_kv] = visiting_keys_;
  if (backward) {
    memory[MemoryPart::gathered] += layer_gradients_;
    memory[MemoryPart::visiting_gradients] = visiting_gradients_;
  }
  if (moment.logits) memory[MemoryPart::logits] = logits_;
  return memory;
}

Memory StageMemory::most() const {
  const Memory layer = at({deepest_, most_kept_, 2, false});
  const Memory head = at({MemoryMoment::Kind::between, most_kept_, 1, true});
  return head.peak() > layer.peak() ? head : layer;
}

std::span<const std::string_view> recompute_names() {
  static constexpr std::array<std::string_view, recompute_kinds> names = {"none", "selective", "blocks", "full"};
  return names;
}

std::string_view name_of(MemoryPart part) {
  constexpr std::array<std::string_view, memory_parts> names = {
      "parameters",  "gradients",          "optimizer", "gathered", "activations", "layer_in_work",
      "visiting_kv", "visiting_gradients", "kv_cache",  "logits",   "workspace"};
  return names[static_cast<std::size_t>(part)];
}

Bytes Memory::peak() const {
  double sum = 0;
  for (const double part : bytes) sum += part;
  return Bytes::from_si(sum);
}

bool Memory::fits(Bytes capacity) const {
  return peak() <= capacity * (1 - memory_allowance);
}

double kept_per_layer(const MemoryInput& in, Recompute recompute) {
  const double input = sequence_share(in.degrees) * static_cast<double>(in.model->hidden) * in.element_bytes;
  if (recompute == Recompute::full) return input;
  if (recompute == Recompute::blocks) return 2 * input;
  const Halves kept = kept_halves(in, !in.fused_attention && recompute == Recompute::none);
  return kept.attention + kept.ffn;
}

int chunks_in_flight(const Degrees& d, int stage, int microbatches) {
  const int most = microbatches * d.virtual_stages;
  if (d.virtual_stages == 1) return std::min(most, d.pipeline - stage);
  return std::min(most, 2 * (d.pipeline - stage - 1) + (d.virtual_stages - 1) * d.pipeline + 1);
}

Memory memory_of(const MemoryInput& in) {
  const Memory most = StageMemory(in, 0).most();
  if (in.degrees.pipeline == 1) return most;
  const Memory last = StageMemory(in, in.degrees.pipeline - 1).most();
  return last.peak() > most.peak() ? last : most;
}

}  // namespace orrery
