#include "validate/tensor_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "validate/functional.hpp"

namespace orrery {
namespace {

bool is_reused_by_layers(BufferKind kind) {
  return kind >= BufferKind::kv_slot;
}

}  // namespace

const Mask& TensorMachine::mask(int layer) const {
  const AttentionProgramInput& input = program_.input();
  return input.masks[static_cast<std::size_t>(input.class_of_layer[static_cast<std::size_t>(layer)])];
}

const Mask& TensorMachine::value_mask(int layer) const {
  const AttentionProgramInput& input = program_.input();
  if (input.value_masks.empty()) return mask(layer);
  return input.value_masks[static_cast<std::size_t>(input.class_of_layer[static_cast<std::size_t>(layer)])];
}

CheckedTensor& TensorMachine::tensor(Rank rank, Buffer buffer, int layer) {
  const int key_layer = is_reused_by_layers(buffer.kind) ? -1 : layer;
  const bool query = is_query_like(buffer.kind);
  return buffers_
      .try_emplace({rank, buffer.kind, buffer.slot, key_layer}, tokens(), query ? geometry_.heads : geometry_.kv_heads,
                   geometry_.head_dim, query ? 1 : 2)
      .first->second;
}

Region TensorMachine::region(Rank rank, Buffer buffer, int layer, const TokenSet& rows, HeadRange heads) {
  return {&tensor(rank, buffer, layer), rows.tokens(), heads, buffer.use,
          fmt::format("buffer {}.{} of rank {}", static_cast<int>(buffer.kind), buffer.slot, rank)};
}

/// What a compute action reads and writes. Running outputs and dQ are touched by the in-order compute stream alone.
Access TensorMachine::access_of(Rank rank, const Action& a) {
  Access access;
  if (a.kind == ActionKind::attend || a.kind == ActionKind::attend_backward) {
    if (value_mask(a.layer).pairs(*a.queries, *a.rows) > 0) {
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

Access TensorMachine::access_of(const MessageAction& m, int layer) {
  Access access;
  access.reads.push_back(region(m.source, m.from, layer, *m.rows, m.heads));
  // Sums of several arrivals are applied one by one; who adds does not keep others out.
  if (!m.adds) access.writes.push_back(region(m.destination, m.to, layer, *m.rows, m.heads));
  return access;
}

void TensorMachine::deliver(const MessageAction& m, int layer, const std::string& who) {
  CheckedTensor& from = tensor(m.source, m.from, layer);
  CheckedTensor& to = tensor(m.destination, m.to, layer);
  if (to.use() != m.to.use) throw FunctionalError(fmt::format("{} adds to a buffer that holds another block", who));
  region(m.destination, m.to, layer, *m.rows, m.heads).for_each([&](Index token, int head) {
    if (m.adds && to.writing(token, head) != 0) {
      throw FunctionalError(fmt::format("{} adds to token {} while it is being written", who, token));
    }
    for (int part = m.values_only ? 1 : 0; part < from.parts(); ++part) {
      for (int i = 0; i < geometry_.head_dim; ++i) {
        double& value = to.row(token, head, part)[i];
        const bool untouched = m.adds && std::isnan(value) && m.to.kind == BufferKind::own_d_kv;  // starts from zero
        value = (m.adds && !untouched ? value : 0.0) + from.row(token, head, part)[i];
      }
    }
    ++to.version(token, head);
  });
}

void TensorMachine::perform(Rank rank, const Action& a) {
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
void TensorMachine::load_inputs(Rank rank, int layer) {
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

TensorMachine::Running& TensorMachine::running(Rank rank, int layer) {
  const auto cells = static_cast<std::size_t>(tokens() * geometry_.heads);
  return running_
      .try_emplace({rank, layer},
                   Running{std::vector<double>(cells), CheckedTensor(tokens(), geometry_.heads, geometry_.head_dim, 1),
                           CheckedTensor(tokens(), geometry_.heads, geometry_.head_dim, 1), std::vector<double>(cells)})
      .first->second;
}

void TensorMachine::attend(Rank rank, const Action& a) {
  Running& state = running(rank, a.layer);
  CheckedTensor& query = tensor(rank, {BufferKind::query}, a.layer);
  CheckedTensor& kv = tensor(rank, a.from, a.layer);
  CheckedTensor& output = tensor(rank, {BufferKind::output}, a.layer);
  const std::vector<Index> keys = a.rows->tokens();
  for (const Index i : a.queries->tokens()) {
    for (int h = a.query_heads.first; h < a.query_heads.first + a.query_heads.count; ++h) {
      const int g = kv_head_of(h);
      double highest = -std::numeric_limits<double>::infinity(), sum = 0;
      double* out = state.partial.row(i, h);
      std::fill_n(out, geometry_.head_dim, 0.0);
      for (const Index j : keys) {
        if (!mask(a.layer).allows(i, j)) continue;
        const double score = scaled_dot(query.row(i, h), kv.row(j, g, 0));
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
        state.log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)] = -std::numeric_limits<double>::infinity();
        std::fill_n(output.row(i, h), geometry_.head_dim, 0.0);
        std::fill_n(state.gated.row(i, h), geometry_.head_dim, 0.0);
      }
      for (const Index j : keys) {
        if (!value_mask(a.layer).allows(i, j) || mask(a.layer).allows(i, j)) continue;
        for (int c = 0; c < geometry_.head_dim; ++c) {
          state.gated.row(i, h)[c] += kv.row(j, g, 1)[c];
          output.row(i, h)[c] += kv.row(j, g, 1)[c];
        }
      }
    }
  }
  if (a.merges) merge(rank, a);
}

void TensorMachine::merge(Rank rank, const Action& a) {
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
        const double gated = state.gated.row(i, h)[c];
        value =
            (std::exp(lse - highest) * (value - gated) + std::exp(other - highest) * state.partial.row(i, h)[c]) / sum +
            gated;
      }
      lse = highest + std::log(sum);
    }
  }
}

void TensorMachine::attend_backward(Rank rank, const Action& a) {
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
      const int g = kv_head_of(h);
      const double lse = state.log_sum_exp[static_cast<std::size_t>(i * geometry_.heads + h)];
      const double delta =
          dot(d_output.row(i, h), output.row(i, h), d) - dot(d_output.row(i, h), state.gated.row(i, h), d);
      for (const Index j : keys) {
        if (!value_mask(a.layer).allows(i, j)) continue;
        if (!mask(a.layer).allows(i, j)) {
          for (int c = 0; c < d; ++c) into.row(j, g, 1)[c] += d_output.row(i, h)[c];
          continue;
        }
        const double weight = std::exp(scaled_dot(query.row(i, h), kv.row(j, g, 0)) - lse);
        const double ds = weight * (dot(d_output.row(i, h), kv.row(j, g, 1), d) - delta) * attention_scale(d);
        for (int c = 0; c < d; ++c) {
          d_query.row(i, h)[c] += ds * kv.row(j, g, 0)[c];
          into.row(j, g, 0)[c] += ds * query.row(i, h)[c];
          into.row(j, g, 1)[c] += weight * d_output.row(i, h)[c];
        }
      }
    }
  }
}

void TensorMachine::accumulate(Rank rank, const Action& a) {
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

}  // namespace orrery
