#include "validate/functional.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <tuple>

#include "validate/tensors.hpp"

namespace orrery {

ReferenceLayer::ReferenceLayer(Index tokens, int heads, int kv_heads, int head_dim)
    : query(tokens, heads, head_dim, 1),
      key_value(tokens, kv_heads, head_dim, 2),
      d_output(tokens, heads, head_dim, 1),
      output(tokens, heads, head_dim, 1),
      d_query(tokens, heads, head_dim, 1),
      d_key_value(tokens, kv_heads, head_dim, 2),
      log_sum_exp(static_cast<std::size_t>(tokens * heads)) {}

namespace {

bool is_query_like(BufferKind kind) {
  switch (kind) {
    case BufferKind::own_query:
    case BufferKind::own_output:
    case BufferKind::own_d_output:
    case BufferKind::own_d_query:
    case BufferKind::query:
    case BufferKind::output:
    case BufferKind::d_output:
    case BufferKind::d_query:
      return true;
    default:
      return false;
  }
}

bool is_reused_by_layers(BufferKind kind) {
  return kind >= BufferKind::kv_slot;
}

/// Rows and heads of one buffer on one rank.
struct Region {
  CheckedTensor* tensor = nullptr;
  std::vector<Index> tokens;
  HeadRange heads;
  std::string name;

  template <class Visit>
  void for_each(Visit visit) const {
    for (const Index token : tokens) {
      for (int head = heads.first; head < heads.first + heads.count; ++head) visit(token, head);
    }
  }
};

/// What a running action reads, with the versions it saw, and what it overwrites.
struct Access {
  std::vector<Region> reads, writes;
  std::vector<std::uint32_t> versions;

  void begin(const std::string& who) {
    for (const Region& region : reads) {
      region.for_each([&](Index token, int head) {
        if (region.tensor->writing(token, head) != 0) {
          throw FunctionalError(fmt::format("{} reads {} token {} while it is being written", who, region.name, token));
        }
        versions.push_back(region.tensor->version(token, head));
      });
    }
    for (const Region& region : writes) {
      region.for_each([&](Index token, int head) {
        if (region.tensor->writing(token, head) != 0) {
          throw FunctionalError(
              fmt::format("{} overwrites {} token {} while another op writes it", who, region.name, token));
        }
        region.tensor->writing(token, head) = 1;
        ++region.tensor->version(token, head);
      });
    }
  }

  void end(const std::string& who) {
    std::size_t i = 0;
    for (const Region& region : writes)
      region.for_each([&](Index token, int head) { region.tensor->writing(token, head) = 0; });
    for (const Region& region : reads) {
      region.for_each([&](Index token, int head) {
        const bool rewritten =
            std::any_of(writes.begin(), writes.end(), [&](const Region& w) { return w.tensor == region.tensor; });
        if (!rewritten && region.tensor->version(token, head) != versions[i]) {
          throw FunctionalError(
              fmt::format("{} read {} token {}, which was overwritten meanwhile", who, region.name, token));
        }
        ++i;
      });
    }
  }
};

class Executor {
 public:
  Executor(const AttentionProgram& program, std::uint64_t seed)
      : program_(program), geometry_(program.input().geometry), random_(seed) {
    make_references();
    load_program();
  }

  FunctionalErrors run() {
    while (true) {
      std::vector<std::size_t> enabled;
      for (std::size_t s = 0; s < streams_.size(); ++s) {
        if (can_advance(streams_[s])) enabled.push_back(s);
      }
      if (enabled.empty()) break;
      advance(streams_[enabled[random_() % enabled.size()]]);
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
    std::deque<PendingOp> ops;
    Stage stage = Stage::waiting;
    std::size_t delivered = 0;
    Access access;
    std::vector<Access> message_access;
  };

  const AttentionProgram& program_;
  const Geometry& geometry_;
  std::mt19937_64 random_;
  std::vector<ReferenceLayer> references_;
  std::vector<StreamState> streams_;
  std::vector<std::int64_t> signals_;
  std::map<std::tuple<Rank, BufferKind, int, int>, CheckedTensor> buffers_;
  // Running and latest log-sum-exp, and the latest partial output, by rank and layer.
  struct Running {
    std::vector<double> log_sum_exp;
    CheckedTensor partial;
    std::vector<double> partial_log_sum_exp;
  };
  std::map<std::pair<Rank, int>, Running> running_;

  Index tokens() const { return program_.input().masks.front().tokens(); }
  const Mask& mask(int layer) const {
    const AttentionProgramInput& input = program_.input();
    return input.masks[static_cast<std::size_t>(input.class_of_layer[static_cast<std::size_t>(layer)])];
  }
  int group_size() const { return geometry_.heads / geometry_.kv_heads; }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(geometry_.head_dim)); }

  double dot(const double* a, const double* b) const {
    double sum = 0;
    for (int i = 0; i < geometry_.head_dim; ++i) sum += a[i] * b[i];
    return sum;
  }

  // --- Reference ---

  void make_references() {
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto fill = [&](CheckedTensor& t, int heads) {
      for (Index token = 0; token < tokens(); ++token) {
        for (int head = 0; head < heads; ++head) {
          for (int part = 0; part < t.parts(); ++part) {
            for (int i = 0; i < geometry_.head_dim; ++i) t.row(token, head, part)[i] = uniform(random_);
          }
        }
      }
    };
    for (std::size_t layer = 0; layer < program_.input().class_of_layer.size(); ++layer) {
      ReferenceLayer& r = references_.emplace_back(tokens(), geometry_.heads, geometry_.kv_heads, geometry_.head_dim);
      fill(r.query, geometry_.heads);
      fill(r.key_value, geometry_.kv_heads);
      fill(r.d_output, geometry_.heads);
      solve(r, mask(static_cast<int>(layer)));
    }
  }

  void solve(ReferenceLayer& r, const Mask& m) const {
    const int d = geometry_.head_dim;
    for (Index j = 0; j < tokens(); ++j) {
      for (int g = 0; g < geometry_.kv_heads; ++g) {
        std::fill_n(r.d_key_value.row(j, g, 0), d, 0.0);
        std::fill_n(r.d_key_value.row(j, g, 1), d, 0.0);
      }
    }
    for (int h = 0; h < geometry_.heads; ++h) {
      const int g = h / group_size();
      for (Index i = 0; i < tokens(); ++i) {
        std::vector<Index> keys;
        std::vector<double> weights;
        double highest = -std::numeric_limits<double>::infinity();
        for (Index j = 0; j < tokens(); ++j) {
          if (!m.allows(i, j)) continue;
          keys.push_back(j);
          weights.push_back(scale() * dot(r.query.row(i, h), r.key_value.row(j, g, 0)));
          highest = std::max(highest, weights.back());
        }
        double sum = 0;
        for (const double w : weights) sum += std::exp(w - highest);
        const double lse = keys.empty() ? -std::numeric_limits<double>::infinity() : highest + std::log(sum);
        r.log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)] = lse;
        double* out = r.output.row(i, h);
        std::fill_n(out, d, 0.0);
        std::fill_n(r.d_query.row(i, h), d, 0.0);
        for (std::size_t x = 0; x < keys.size(); ++x) {
          weights[x] = std::exp(weights[x] - lse);
          for (int c = 0; c < d; ++c) out[c] += weights[x] * r.key_value.row(keys[x], g, 1)[c];
        }
        const double delta = dot(r.d_output.row(i, h), out);
        for (std::size_t x = 0; x < keys.size(); ++x) {
          const double ds = weights[x] * (dot(r.d_output.row(i, h), r.key_value.row(keys[x], g, 1)) - delta) * scale();
          for (int c = 0; c < d; ++c) {
            r.d_query.row(i, h)[c] += ds * r.key_value.row(keys[x], g, 0)[c];
            r.d_key_value.row(keys[x], g, 0)[c] += ds * r.query.row(i, h)[c];
            r.d_key_value.row(keys[x], g, 1)[c] += weights[x] * r.d_output.row(i, h)[c];
          }
        }
      }
    }
  }

  // --- Program ---

  void load_program() {
    signals_.assign(static_cast<std::size_t>(program_.ranks()) * program_.signals().size(), 0);
    OpBuffer buffer;
    for (Rank rank = 0; rank < program_.ranks(); ++rank) {
      const std::size_t first = streams_.size();
      for (int s = 0; s < streams_per_rank; ++s) streams_.emplace_back().rank = rank;
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
        stream.access = access_of(stream.rank, pending.action);
        stream.access.begin(name(stream));
        raise(pending.op.started);
        stream.stage = Stage::started;
        break;
      case Stage::started:
        stream.message_access.clear();
        for (const MessageAction& m : pending.action.messages) {
          stream.message_access.push_back(access_of(m, pending.action.layer));
          stream.message_access.back().begin(name(stream));
        }
        stream.delivered = 0;
        stream.stage = pending.action.messages.empty() ? Stage::delivered : Stage::moving;
        break;
      case Stage::moving: {
        const MessageAction& m = pending.action.messages[stream.delivered];
        stream.message_access[stream.delivered].end(name(stream));
        deliver(m, pending.action.layer, name(stream));
        raise(m.delivered);
        if (++stream.delivered == pending.action.messages.size()) stream.stage = Stage::delivered;
        break;
      }
      case Stage::delivered:
        stream.access.end(name(stream));
        perform(stream.rank, pending.action);
        for (const SignalRef& ref : pending.op.finished) raise(ref);
        stream.ops.pop_front();
        stream.stage = Stage::waiting;
        break;
    }
  }

  // --- Buffers ---

  CheckedTensor& tensor(Rank rank, Buffer buffer, int layer) {
    const int key_layer = is_reused_by_layers(buffer.kind) ? -1 : layer;
    const bool query = is_query_like(buffer.kind);
    return buffers_
        .try_emplace({rank, buffer.kind, buffer.slot, key_layer}, tokens(),
                     query ? geometry_.heads : geometry_.kv_heads, geometry_.head_dim, query ? 1 : 2)
        .first->second;
  }

  Region region(Rank rank, Buffer buffer, int layer, const TokenSet& rows, HeadRange heads) {
    return {&tensor(rank, buffer, layer), rows.tokens(), heads,
            fmt::format("buffer {}.{} of rank {}", static_cast<int>(buffer.kind), buffer.slot, rank)};
  }

  /// What a compute action reads and writes. Running outputs and dQ are touched by the in-order compute stream alone.
  Access access_of(Rank rank, const Action& a) {
    Access access;
    if (a.kind == ActionKind::attend || a.kind == ActionKind::attend_backward) {
      if (mask(a.layer).pairs(*a.queries, *a.rows) > 0) {
        access.reads.push_back(region(rank, {BufferKind::query}, a.layer, *a.queries, a.query_heads));
        access.reads.push_back(region(rank, a.from, a.layer, *a.rows, a.kv_heads));
        if (a.kind == ActionKind::attend_backward) {
          access.reads.push_back(region(rank, {BufferKind::d_output}, a.layer, *a.queries, a.query_heads));
        }
      }
      if (a.kind == ActionKind::attend_backward) {
        access.writes.push_back(region(rank, a.into, a.layer, *a.rows, a.kv_heads));
        if (a.adds_in) access.reads.push_back(region(rank, a.in, a.layer, *a.rows, a.kv_heads));
      }
    } else if (a.kind == ActionKind::accumulate) {
      access.reads.push_back(region(rank, a.from, a.layer, *a.rows, a.kv_heads));
      access.writes.push_back(region(rank, a.into, a.layer, *a.rows, a.kv_heads));
    }
    return access;
  }

  Access access_of(const MessageAction& m, int layer) {
    Access access;
    access.reads.push_back(region(m.source, m.from, layer, *m.rows, m.heads));
    // Sums of several arrivals are applied one by one; who adds does not keep others out.
    if (!m.adds) access.writes.push_back(region(m.destination, m.to, layer, *m.rows, m.heads));
    return access;
  }

  void deliver(const MessageAction& m, int layer, const std::string& who) {
    CheckedTensor& from = tensor(m.source, m.from, layer);
    CheckedTensor& to = tensor(m.destination, m.to, layer);
    region(m.destination, m.to, layer, *m.rows, m.heads).for_each([&](Index token, int head) {
      if (m.adds && to.writing(token, head) != 0) {
        throw FunctionalError(fmt::format("{} adds to token {} while it is being written", who, token));
      }
      for (int part = 0; part < from.parts(); ++part) {
        for (int i = 0; i < geometry_.head_dim; ++i) {
          double& value = to.row(token, head, part)[i];
          const bool untouched = m.adds && std::isnan(value) && m.to.kind == BufferKind::own_d_kv;  // starts from zero
          value = (m.adds && !untouched ? value : 0.0) + from.row(token, head, part)[i];
        }
      }
      ++to.version(token, head);
    });
  }

  // --- Actions ---

  void perform(Rank rank, const Action& a) {
    switch (a.kind) {
      case ActionKind::marker:
      case ActionKind::transfer:
        break;
      case ActionKind::dense:
        load_inputs(rank, a.layer);
        break;
      case ActionKind::attend:
        attend(rank, a);
        break;
      case ActionKind::merge:
        merge(rank, a);
        break;
      case ActionKind::attend_backward:
        attend_backward(rank, a);
        break;
      case ActionKind::accumulate:
        accumulate(rank, a);
        break;
    }
  }

  /// The projections of a layer: forward Q, K, V appear, backward dO (loaded with them, it is not read before).
  void load_inputs(Rank rank, int layer) {
    ReferenceLayer& r = references_[static_cast<std::size_t>(layer)];
    const bool exchanged = geometry_.members > 1;
    const auto copy = [&](CheckedTensor& source, BufferKind kind, int heads) {
      CheckedTensor& to = tensor(rank, {kind}, layer);
      for (const Index token : geometry_.rank_tokens[static_cast<std::size_t>(rank)].tokens()) {
        for (int head = 0; head < heads; ++head) {
          for (int part = 0; part < source.parts(); ++part) {
            std::copy_n(source.row(token, head, part), geometry_.head_dim, to.row(token, head, part));
          }
        }
      }
    };
    copy(r.query, exchanged ? BufferKind::own_query : BufferKind::query, geometry_.heads);
    copy(r.key_value, exchanged ? BufferKind::own_kv : BufferKind::kv, geometry_.kv_heads);
    copy(r.d_output, exchanged ? BufferKind::own_d_output : BufferKind::d_output, geometry_.heads);
  }

  Running& running(Rank rank, int layer) {
    const auto cells = static_cast<std::size_t>(tokens() * geometry_.heads);
    return running_
        .try_emplace({rank, layer}, Running{std::vector<double>(cells),
                                            CheckedTensor(tokens(), geometry_.heads, geometry_.head_dim, 1),
                                            std::vector<double>(cells)})
        .first->second;
  }

  void attend(Rank rank, const Action& a) {
    Running& state = running(rank, a.layer);
    CheckedTensor& query = tensor(rank, {BufferKind::query}, a.layer);
    CheckedTensor& kv = tensor(rank, a.from, a.layer);
    const std::vector<Index> keys = a.rows->tokens();
    for (const Index i : a.queries->tokens()) {
      for (int h = a.query_heads.first; h < a.query_heads.first + a.query_heads.count; ++h) {
        const int g = h / group_size();
        double highest = -std::numeric_limits<double>::infinity(), sum = 0;
        double* out = state.partial.row(i, h);
        std::fill_n(out, geometry_.head_dim, 0.0);
        for (const Index j : keys) {
          if (!mask(a.layer).allows(i, j)) continue;
          const double score = scale() * dot(query.row(i, h), kv.row(j, g, 0));
          const double raised = std::max(highest, score);
          const double shrink = std::exp(highest - raised), weight = std::exp(score - raised);
          sum = sum * shrink + weight;
          for (int c = 0; c < geometry_.head_dim; ++c) out[c] = out[c] * shrink + weight * kv.row(j, g, 1)[c];
          highest = raised;
        }
        if (sum > 0) {
          for (int c = 0; c < geometry_.head_dim; ++c) out[c] /= sum;
        }
        state.partial_log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)] =
            sum != 0 ? highest + std::log(sum) : highest;
        if (a.first) {
          state.log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)] =
              -std::numeric_limits<double>::infinity();
          std::fill_n(tensor(rank, {BufferKind::output}, a.layer).row(i, h), geometry_.head_dim, 0.0);
        }
      }
    }
    if (a.merges) merge(rank, a);
  }

  void merge(Rank rank, const Action& a) {
    Running& state = running(rank, a.layer);
    CheckedTensor& output = tensor(rank, {BufferKind::output}, a.layer);
    for (const Index i : a.queries->tokens()) {
      for (int h = a.query_heads.first; h < a.query_heads.first + a.query_heads.count; ++h) {
        const auto cell = static_cast<std::size_t>(i * geometry_.heads + h);
        double& lse = state.log_sum_exp[cell];
        const double other = state.partial_log_sum_exp[cell];
        if (other == -std::numeric_limits<double>::infinity()) continue;
        const double highest = std::max(lse, other);
        const double sum = std::exp(lse - highest) + std::exp(other - highest);
        for (int c = 0; c < geometry_.head_dim; ++c) {
          double& value = output.row(i, h)[c];
          value = (std::exp(lse - highest) * value + std::exp(other - highest) * state.partial.row(i, h)[c]) / sum;
        }
        lse = highest + std::log(sum);
      }
    }
  }

  void attend_backward(Rank rank, const Action& a) {
    const int d = geometry_.head_dim;
    Running& state = running(rank, a.layer);
    CheckedTensor& query = tensor(rank, {BufferKind::query}, a.layer);
    CheckedTensor& output = tensor(rank, {BufferKind::output}, a.layer);
    CheckedTensor& d_output = tensor(rank, {BufferKind::d_output}, a.layer);
    CheckedTensor& d_query = tensor(rank, {BufferKind::d_query}, a.layer);
    CheckedTensor& kv = tensor(rank, a.from, a.layer);
    CheckedTensor& into = tensor(rank, a.into, a.layer);
    region(rank, a.into, a.layer, *a.rows, a.kv_heads).for_each([&](Index j, int g) {
      for (int part = 0; part < 2; ++part) {
        for (int c = 0; c < d; ++c)
          into.row(j, g, part)[c] = a.adds_in ? tensor(rank, a.in, a.layer).row(j, g, part)[c] : 0.0;
      }
    });
    const std::vector<Index> keys = a.rows->tokens();
    for (const Index i : a.queries->tokens()) {
      for (int h = a.query_heads.first; h < a.query_heads.first + a.query_heads.count; ++h) {
        if (a.first) std::fill_n(d_query.row(i, h), d, 0.0);
        const int g = h / group_size();
        const double lse = state.log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)];
        const double delta = dot(d_output.row(i, h), output.row(i, h));
        for (const Index j : keys) {
          if (!mask(a.layer).allows(i, j)) continue;
          const double weight = std::exp(scale() * dot(query.row(i, h), kv.row(j, g, 0)) - lse);
          const double ds = weight * (dot(d_output.row(i, h), kv.row(j, g, 1)) - delta) * scale();
          for (int c = 0; c < d; ++c) {
            d_query.row(i, h)[c] += ds * kv.row(j, g, 0)[c];
            into.row(j, g, 0)[c] += ds * query.row(i, h)[c];
            into.row(j, g, 1)[c] += weight * d_output.row(i, h)[c];
          }
        }
      }
    }
  }

  void accumulate(Rank rank, const Action& a) {
    CheckedTensor& from = tensor(rank, a.from, a.layer);
    CheckedTensor& into = tensor(rank, a.into, a.layer);
    region(rank, a.into, a.layer, *a.rows, a.kv_heads).for_each([&](Index j, int g) {
      for (int part = 0; part < 2; ++part) {
        for (int c = 0; c < geometry_.head_dim; ++c) {
          double& value = into.row(j, g, part)[c];
          value = (std::isnan(value) && a.into.kind == BufferKind::d_kv ? 0.0 : value) + from.row(j, g, part)[c];
        }
      }
    });
  }

  // --- Verdict ---

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
        worst(errors.output, tensor(rank, {exchanged ? BufferKind::own_output : BufferKind::output}, layer),
              want.output, rank, geometry_.heads, 0);
        if (!program_.input().backward) continue;
        worst(errors.d_query, tensor(rank, {exchanged ? BufferKind::own_d_query : BufferKind::d_query}, layer),
              want.d_query, rank, geometry_.heads, 0);
        CheckedTensor& d_kv = tensor(rank, {exchanged ? BufferKind::own_d_kv : BufferKind::d_kv}, layer);
        worst(errors.d_key, d_kv, want.d_key_value, rank, geometry_.kv_heads, 0);
        worst(errors.d_value, d_kv, want.d_key_value, rank, geometry_.kv_heads, 1);
      }
    }
    return errors;
  }
};

}  // namespace

FunctionalErrors check_function(const AttentionProgram& program, std::uint64_t seed) {
  return Executor(program, seed).run();
}

}  // namespace orrery
