// What a block of a step is made of: its signals and categories, and the ops that raise them.
#pragma once

#include <array>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "scenarios/step_program.hpp"

namespace orrery {

/// Signals of a rank, after those of its attention.
enum StepSignal : std::int32_t {
  advanced,  // a compute op outside attention is done
  tensor_local,
  tensor_node,
  tensor_done,
  shard_local,
  shard_node,
  gathered,  // parameters of a layer
  tables_gathered,
  layer_used,  // the parameters of a layer may go
  reduced,
  activations_arrived,
  gradients_arrived,
  context_local,
  context_node,
  context_done,
  step_signals
};

inline constexpr std::array<const char*, step_signals> step_signal_names = {
    "advanced",      "tensor_local",    "tensor_node", "tensor_done", "shard_local",         "shard_node",
    "gathered",      "tables_gathered", "layer_used",  "reduced",     "activations_arrived", "gradients_arrived",
    "context_local", "context_node",    "context_done"};

enum StepCategory : std::uint8_t {
  tables = category_count,  // embedding, head and loss
  optimizer,
  parameter_gather,
  gradient_reduction,
  tensor_collective,
  context_collective,
  pipeline_transfer,
  step_categories
};

enum StepPhase : std::uint8_t { forward_phase, backward_phase, optimizer_phase };

/// The rings of one kind of group, and what tells of arrivals on them.
struct StepChannel {
  const std::vector<RingPart>* parts;
  Stream stream;
  StepSignal local, node;
};

/// Writes the ops of one block and counts the raises of their signals. Since ranks of a group do the same, what a rank
/// raises at a neighbour is what it receives.
class StepProgram::Writer {
 public:
  Writer(const StepProgram& program, Rank rank, std::uint8_t phase, Counts& counts, OpBuffer& buffer, KernelWork* work)
      : program_(program),
        implementation_(program.input_.attention.implementation),
        rank_(rank),
        phase_(phase),
        first_(program.attention_.signals().size()),
        counts_(counts),
        buffer_(buffer),
        work_(work) {}

  void set_phase(std::uint8_t phase) { phase_ = phase; }
  std::int64_t& count(StepSignal signal) { return counts_[first_ + signal]; }
  SignalRef at(Rank rank, StepSignal signal) const { return {rank, static_cast<std::int32_t>(first_) + signal}; }

  /// The next compute op waits until all raises so far of a signal, or so many, have come.
  void wait(StepSignal signal) { wait(signal, count(signal)); }
  void wait(StepSignal signal, std::int64_t count) { waits_.emplace_back(signal, count); }

  void compute(const DenseCost& cost, std::uint8_t category, StepSignal also = step_signals);

  /// An all-gather or reduce-scatter (passes = 1) or all-reduce (2) of `size` bytes in all, after the signals in
  /// `after` have come as often as they were raised so far, or so often.
  using After = std::initializer_list<std::pair<StepSignal, std::int64_t>>;
  void collective(const StepChannel& channel, Bytes size, int passes, std::uint8_t category, After after,
                  StepSignal done);

  void send(Rank to, Bytes size, StepSignal arrived);

  /// Ops of the attention program, on the ranks of this one.
  void attention(Rank rank, const Visit& visit, int block);

 private:
  SignalRef raise(StepSignal signal) { return raise(rank_, signal); }
  SignalRef raise(Rank rank, StepSignal signal) {
    ++count(signal);
    return at(rank, signal);
  }
  Op transfer(Stream stream, std::uint8_t category) const;
  void draw_for_messages();
  /// Makes an op of a ring's step, and its messages, as much as several; heads are exchanged once a layer.
  void repeat(Op& op);
  void add(Op op, std::span<const Message> messages = {}) {
    op.phase = phase_;
    buffer_.add(op, messages);
  }

  const StepProgram& program_;
  const Implementation& implementation_;
  Rank rank_;
  std::uint8_t phase_;
  std::size_t first_;
  Counts& counts_;
  OpBuffer& buffer_;
  KernelWork* work_;  // null: not asked for
  OpBuffer scratch_;
  std::vector<std::pair<StepSignal, std::int64_t>> waits_;
  std::vector<Message> messages_;
};

}  // namespace orrery
