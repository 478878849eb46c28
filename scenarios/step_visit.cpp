// The ops of a visit: matrices around the attention, and the collectives of tensor parallelism, ZeRO and pipeline
// between them.
#include "scenarios/step_writer.hpp"

namespace orrery {
namespace {

constexpr auto dense_category = static_cast<std::uint8_t>(Category::dense);

DenseCost operator+(DenseCost a, const DenseCost& b) {
  a.duration += b.duration;
  a.hbm_traffic += b.hbm_traffic;
  a.flops += b.flops;
  a.energy += b.energy;
  return a;
}

}  // namespace

class StepProgram::VisitWriter {
 public:
  VisitWriter(const StepProgram& program, Rank rank, const Slot& slot, const VisitPlan& visit, Counts& counts,
              OpBuffer& buffer, KernelWork* work)
      : program_(program),
        rank_(rank),
        slot_(slot),
        plan_(*slot.plan),
        visit_(visit),
        degrees_(program.degrees_),
        costs_(program.costs_),
        counts_(counts),
        w_(program, rank, plan_.forward ? forward_phase : backward_phase, counts, buffer, work),
        chunks_(degrees_.pipeline * degrees_.virtual_stages),
        first_chunk_(plan_.chunk == 0),
        last_chunk_(plan_.chunk == chunks_ - 1) {}

  void write(int block) {
    if (visit_.kind == VisitKind::begin) {
      begin();
    } else if (visit_.kind == VisitKind::end) {
      end();
    } else {
      layer(block);
    }
  }

 private:
  bool first_slot() const { return plan_.first && plan_.chunk < degrees_.pipeline; }
  bool final_slot() const {
    return plan_.last &&
           (program_.training() ? plan_.chunk < degrees_.pipeline : plan_.chunk + degrees_.pipeline >= chunks_);
  }
  /// One table serves both ends of the model.
  bool ties_tables() const { return first_chunk_ && last_chunk_ && program_.input_.shape.model->tied_embeddings; }
  StepChannel shards() const { return {&program_.replicas_, Stream::copy_in, shard_local, shard_node}; }

  // --- Tensor parallelism. With sequence parallelism rows are gathered before the first matrix of a half and sums are
  // scattered after its last; without, sums are reduced to all. Backward mirrors it; the inputs of the first matrix,
  // kept split, are gathered again for the gradients of the weights. ---

  void tensor_step(int passes) {
    if (degrees_.tensor == 1) return;
    const StepChannel tensor{&program_.tensor_, Stream::collective, tensor_local, tensor_node};
    w_.collective(tensor, costs_.sequence, passes, tensor_collective, {{advanced, w_.count(advanced)}}, tensor_done);
  }
  void gather_rows() {
    if (degrees_.sequence_parallel) tensor_step(1);
    w_.wait(tensor_done);
  }
  void scatter_sums() { tensor_step(degrees_.sequence_parallel ? 1 : 2); }
  /// Gradients of the inputs, whose sums travel under those of the weights.
  void first_matrices_backward(const DenseCost& cost, std::uint8_t category, StepSignal also) {
    if (degrees_.tensor == 1) {
      w_.compute(cost + cost, category, also);
      return;
    }
    const std::int64_t inputs_gathered = w_.count(tensor_done) + (degrees_.sequence_parallel ? 1 : 0);
    if (degrees_.sequence_parallel) tensor_step(1);
    w_.compute(cost, category);
    scatter_sums();
    w_.wait(tensor_done, inputs_gathered);
    w_.compute(cost, category, also);
  }

  // --- ZeRO-3: a layer's parameters are there while it is in use, those of the next are gathered meanwhile. ---

  bool gathers() const { return degrees_.zero >= 3 && degrees_.replicas() > 1; }
  void gather_layer() {
    const std::int64_t number = w_.count(gathered);
    w_.collective(shards(), costs_.layer_parameters, 1, parameter_gather, {{layer_used, number - 1}}, gathered);
  }
  void start_use() {
    if (!gathers() || !visit_.use_starts) return;
    const bool first_use = first_slot() && &visit_ == &plan_.visits[1];
    const bool last_use = final_slot() && visit_.layer == plan_.visits[plan_.visits.size() - 2].layer;
    if (first_use) gather_layer();
    w_.wait(gathered, w_.count(layer_used) + 1);
    if (!last_use) gather_layer();
  }
  void reduce(Bytes gradients) {
    const bool reduces = !plan_.forward && (degrees_.zero >= 2 || plan_.last);
    if (!reduces) return;
    w_.collective(shards(), gradients, degrees_.zero == 0 ? 2 : 1, gradient_reduction, {{advanced, w_.count(advanced)}},
                  reduced);
  }

  // --- Before and after the layers ---

  void begin() {
    const int tables_here = (first_chunk_ ? 1 : 0) + (last_chunk_ && !ties_tables() ? 1 : 0);
    if (plan_.forward && gathers() && tables_here > 0)
      w_.collective(shards(), costs_.table_parameters * tables_here, 1, parameter_gather, {}, tables_gathered);
    w_.wait(tables_gathered);
    if (plan_.forward && !first_chunk_) w_.wait(activations_arrived, slot_.arrival);
    if (!plan_.forward && !last_chunk_) w_.wait(gradients_arrived, slot_.arrival);
    if (!plan_.forward && last_chunk_) {
      w_.wait(tensor_done);
      first_matrices_backward(costs_.head_gradient, tables, step_signals);
      reduce(costs_.table_gradients);
      return;
    }
    w_.compute(plan_.forward && first_chunk_ ? costs_.embedding : DenseCost(), tables);
    // Each rank has the rows of its share of the vocabulary.
    if (plan_.forward && first_chunk_) scatter_sums();
  }

  void end() {
    if (plan_.forward && last_chunk_) {
      gather_rows();
      w_.compute(costs_.head, tables);
    }
    if (plan_.forward && !last_chunk_) send_to_stage(1, activations_arrived);
    if (!plan_.forward && first_chunk_) {
      gather_rows();
      w_.compute(costs_.embedding, tables);
      if (!ties_tables()) reduce(costs_.table_gradients);
    }
    if (!plan_.forward && !first_chunk_) send_to_stage(degrees_.pipeline - 1, gradients_arrived);
    if (!plan_.forward && final_slot()) optimize();
  }

  void send_to_stage(int distance, StepSignal arrived) {
    const Bytes sent = costs_.sequence / (degrees_.sequence_parallel ? degrees_.tensor : 1);
    const int stage = program_.stage_of(rank_);
    w_.send(program_.grid_.moved(rank_, Axis::pipeline, (stage + distance) % degrees_.pipeline), sent, arrived);
  }

  void optimize() {
    w_.set_phase(optimizer_phase);
    w_.wait(reduced);
    w_.compute(costs_.optimizer, optimizer);
    if (degrees_.zero != 1 && degrees_.zero != 2) return;
    const double tables_here = (first_chunk_ ? 1.0 : 0.0) + (plan_.chunk + 1 == degrees_.pipeline ? 1.0 : 0.0);
    const Bytes all = costs_.layer_parameters * program_.layers_per_chunk_ * degrees_.virtual_stages +
                      costs_.table_parameters * tables_here;
    w_.collective(shards(), all, 1, parameter_gather, {{advanced, w_.count(advanced)}}, tables_gathered);
  }

  // --- A layer ---

  void layer(int block) {
    const bool backward = visit_.kind == VisitKind::backward;
    const bool last = block == program_.blocks_of(visit_) - 1;
    if (block == 0) {
      start_use();
      gather_rows();
      if (backward) {
        first_matrices_backward(costs_.mlp, dense_category, step_signals);
        gather_rows();
        w_.compute(costs_.output + costs_.output, dense_category);
      } else {
        w_.compute(costs_.qkv, dense_category);
      }
    }
    if (program_.decode()) {
      decode_attention();
    } else {
      attention(block, last);
    }
    if (!last) return;
    const StepSignal end_of_use = visit_.use_ends ? layer_used : step_signals;
    if (backward) {
      first_matrices_backward(costs_.qkv, dense_category, end_of_use);
      reduce(costs_.layer_gradients);
    } else {
      w_.compute(costs_.output, dense_category);
      scatter_sums();
      gather_rows();
      w_.compute(costs_.mlp, dense_category, end_of_use);
      scatter_sums();
    }
  }

  void attention(int block, bool last) {
    const Visit attention = program_.attention_visit(visit_, counts_);
    w_.attention(program_.grid_.at(rank_, Axis::context), attention, block);
    if (!last) return;
    const SignalCounts raised = program_.attention_.raises(attention);
    for (std::size_t s = 0; s < raised.counts.size(); ++s) counts_[s] += raised.counts[s];
  }

  void decode_attention() {
    const StepChannel partial{&program_.context_, Stream::collective, context_local, context_node};
    const auto pattern =
        static_cast<std::size_t>(program_.input_.attention.class_of_layer[static_cast<std::size_t>(visit_.layer)]);
    const auto context = static_cast<std::size_t>(program_.grid_.at(rank_, Axis::context));
    w_.compute(program_.decode_attention_[pattern][context], static_cast<std::uint8_t>(Category::attention));
    w_.collective(partial, costs_.partial_output, 2, context_collective, {{advanced, w_.count(advanced)}},
                  context_done);
    w_.wait(context_done);
  }

  const StepProgram& program_;
  Rank rank_;
  const Slot& slot_;
  const SlotPlan& plan_;
  const VisitPlan& visit_;
  const Degrees& degrees_;
  const StepCosts& costs_;
  Counts& counts_;
  Writer w_;
  int chunks_;
  bool first_chunk_, last_chunk_;
};

void StepProgram::write(Rank rank, const Slot& slot, const VisitPlan& visit, int block, Counts& counts,
                        OpBuffer& buffer, KernelWork* work) const {
  VisitWriter(*this, rank, slot, visit, counts, buffer, work).write(block);
}

}  // namespace orrery
