#include "validate/functional.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "validate/tensor_machine.hpp"

namespace orrery {
namespace {

/// Interleaves the streams, as far as the waits allow. With an even seed the next one is drawn anew for every step.
/// With an odd seed the one of the highest priority goes on, and priorities change seldom, so that one stream starves
/// while the others run as far ahead as they can: a wait that is missing shows (probabilistic concurrency testing,
/// Burckhardt et al., ASPLOS 2010).
class Executor {
 public:
  Executor(const AttentionProgram& program, std::uint64_t seed)
      : program_(program),
        geometry_(program.input().geometry),
        random_(seed),
        by_priority_(seed % 2 == 1),
        machine_(program, references_) {
    const AttentionProgramInput& input = program.input();
    for (const int pattern_class : input.class_of_layer) {
      const auto c = static_cast<std::size_t>(pattern_class);
      const Mask& values = input.value_masks.empty() ? input.masks[c] : input.value_masks[c];
      references_.push_back(make_reference(geometry_, input.masks[c], values, random_));
    }
    load_program();
  }

  FunctionalErrors run() {
    while (true) {
      std::vector<std::size_t> enabled;
      for (std::size_t s = 0; s < streams_.size(); ++s) {
        if (can_advance(streams_[s])) enabled.push_back(s);
      }
      if (enabled.empty()) break;
      advance(streams_[by_priority_ ? highest(enabled) : enabled[random_() % enabled.size()]]);
    }
    for (const StreamState& stream : streams_) {
      if (!stream.ops.empty()) {
        throw FunctionalError(fmt::format("deadlock: {} of rank {} never starts or ends", name(stream), stream.rank));
      }
    }
    return compare();
  }

 private:
  struct PendingOp {
    Op op;
    Action action;
    std::vector<Message> messages;
  };
  enum class Stage { waiting, started, moving, delivered };
  struct StreamState {
    Rank rank = 0;
    std::int64_t priority = 0;
    std::int64_t done = 0;  // ops
    std::deque<PendingOp> ops;
    Stage stage = Stage::waiting;
    std::size_t delivered = 0;
    Access access;
    std::vector<Access> message_access;
  };

  void load_program() {
    signals_.assign(static_cast<std::size_t>(program_.ranks()) * program_.signals().size(), 0);
    OpBuffer buffer;
    for (Rank rank = 0; rank < program_.ranks(); ++rank) {
      const std::size_t first = streams_.size();
      for (int s = 0; s < streams_per_rank; ++s) {
        streams_.emplace_back().rank = rank;
        streams_.back().priority = static_cast<std::int64_t>(random_() >> 1);
      }
      for (std::int64_t block = 0; block < program_.blocks(); ++block) {
        std::vector<Action> actions = program_.actions(rank, block, buffer);
        for (std::size_t i = 0; i < actions.size(); ++i) {
          const Op& op = buffer.ops()[i];
          const auto messages = buffer.messages_of(op);
          streams_[first + static_cast<std::size_t>(op.stream)].ops.push_back(
              {op, std::move(actions[i]), {messages.begin(), messages.end()}});
        }
      }
    }
  }

  std::size_t highest(const std::vector<std::size_t>& enabled) {
    const std::size_t chosen = *std::max_element(enabled.begin(), enabled.end(), [&](std::size_t a, std::size_t b) {
      return streams_[a].priority < streams_[b].priority;
    });
    constexpr std::uint64_t steps_between_changes = 256;
    if (random_() % steps_between_changes == 0) streams_[chosen].priority = --lowest_;
    return chosen;
  }

  /// The n-th NCCL kernels of a stream run together on all ranks: what one sends, the other's kernel receives.
  void check_rendezvous(const StreamState& stream, const MessageAction& message) const {
    const Stream kind = stream.ops.front().op.stream;
    if (program_.input().implementation.transport != Transport::nccl) return;
    const StreamState& receiver =
        streams_[static_cast<std::size_t>(message.destination * streams_per_rank) + static_cast<std::size_t>(kind)];
    if (receiver.done == stream.done && receiver.stage != Stage::waiting) return;
    throw FunctionalError(
        fmt::format("{} sends to rank {}, whose kernel does not run", name(stream), message.destination));
  }

  std::string name(const StreamState& stream) const {
    const Op& op = stream.ops.front().op;
    return program_.describe(stream.rank, op.block, op.index);
  }

  std::int64_t& signal(SignalRef ref) {
    return signals_[static_cast<std::size_t>(ref.rank) * program_.signals().size() +
                    static_cast<std::size_t>(ref.signal)];
  }
  void raise(SignalRef ref) {
    if (ref.rank >= 0) ++signal(ref);
  }
  bool satisfied(const Op& op, WaitStage stage) {
    for (int w = 0; w < op.wait_count; ++w) {
      const Wait& wait = op.waits[static_cast<std::size_t>(w)];
      if (wait.stage == stage && signal(wait.signal) < wait.count) return false;
    }
    return true;
  }

  bool can_advance(const StreamState& stream) {
    if (stream.ops.empty()) return false;
    const Op& op = stream.ops.front().op;
    switch (stream.stage) {
      case Stage::waiting:
        return satisfied(op, WaitStage::start);
      case Stage::started:
        return satisfied(op, WaitStage::transfer);
      case Stage::moving:
        return true;
      case Stage::delivered:
        return satisfied(op, WaitStage::finish);
    }
    return false;
  }

  void advance(StreamState& stream) {
    PendingOp& pending = stream.ops.front();
    switch (stream.stage) {
      case Stage::waiting:
        stream.access = machine_.access_of(stream.rank, pending.action);
        stream.access.begin(name(stream));
        raise(pending.op.started);
        stream.stage = Stage::started;
        break;
      case Stage::started:
        stream.message_access.clear();
        for (const MessageAction& m : pending.action.messages) {
          check_rendezvous(stream, m);
          stream.message_access.push_back(machine_.access_of(m, pending.action.layer));
          stream.message_access.back().begin(name(stream));
        }
        stream.delivered = 0;
        stream.stage = pending.action.messages.empty() ? Stage::delivered : Stage::moving;
        break;
      case Stage::moving: {
        const MessageAction& m = pending.action.messages[stream.delivered];
        stream.message_access[stream.delivered].end(name(stream));
        machine_.deliver(m, pending.action.layer, name(stream));
        raise(m.delivered);
        if (++stream.delivered == pending.action.messages.size()) stream.stage = Stage::delivered;
        break;
      }
      case Stage::delivered:
        stream.access.end(name(stream));
        machine_.perform(stream.rank, pending.action);
        for (const SignalRef& ref : pending.op.finished) raise(ref);
        stream.ops.pop_front();
        ++stream.done;
        stream.stage = Stage::waiting;
        break;
    }
  }

  FunctionalErrors compare() {
    FunctionalErrors errors;
    const bool exchanged = geometry_.members > 1;
    const auto worst = [&](double& worst_so_far, CheckedTensor& got, CheckedTensor& want, Rank rank, int heads,
                           int part) {
      for (const Index token : geometry_.rank_tokens[static_cast<std::size_t>(rank)].tokens()) {
        for (int head = 0; head < heads; ++head) {
          for (int c = 0; c < geometry_.head_dim; ++c) {
            const double deviation = std::abs(got.row(token, head, part)[c] - want.row(token, head, part)[c]);
            if (!(deviation <= worst_so_far)) worst_so_far = deviation;  // NaN sticks
            if (std::isnan(deviation)) return;
          }
        }
      }
    };
    for (int layer = 0; layer < static_cast<int>(references_.size()); ++layer) {
      ReferenceLayer& want = references_[static_cast<std::size_t>(layer)];
      for (Rank rank = 0; rank < program_.ranks(); ++rank) {
        worst(errors.output, machine_.tensor(rank, {exchanged ? BufferKind::own_output : BufferKind::output}, layer),
              want.output, rank, geometry_.heads, 0);
        if (!program_.input().backward) continue;
        worst(errors.d_query, machine_.tensor(rank, {exchanged ? BufferKind::own_d_query : BufferKind::d_query}, layer),
              want.d_query, rank, geometry_.heads, 0);
        CheckedTensor& d_kv = machine_.tensor(rank, {exchanged ? BufferKind::own_d_kv : BufferKind::d_kv}, layer);
        worst(errors.d_key, d_kv, want.d_key_value, rank, geometry_.kv_heads, 0);
        worst(errors.d_value, d_kv, want.d_key_value, rank, geometry_.kv_heads, 1);
      }
    }
    return errors;
  }

  const AttentionProgram& program_;
  const Geometry& geometry_;
  std::mt19937_64 random_;
  bool by_priority_;
  std::int64_t lowest_ = 0;  // priority given so far
  std::vector<ReferenceLayer> references_;
  TensorMachine machine_;
  std::vector<StreamState> streams_;
  std::vector<std::int64_t> signals_;
};

}  // namespace

FunctionalErrors check_function(const AttentionProgram& program, std::uint64_t seed) {
  return Executor(program, seed).run();
}

}  // namespace orrery
