#include "scenarios/block_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "cost_models/nccl_channels.hpp"

namespace orrery {
namespace {

/// Gradients that travel round a ring or back from a halo, which libraries often keep in fp32.
bool is_travelling_gradient(BufferKind kind) {
  return kind == BufferKind::d_kv_work || kind == BufferKind::outer_d_kv_work;
}

}  // namespace

Seconds LinkTiming::startup(Bytes size, int channels) const {
  const auto found = by_channels.find(channels);
  const LinkTable& measured = found == by_channels.end() ? table : found->second;
  return std::max(Seconds(), measured.time(size) - latency - size / rate);
}

Seconds CollectiveTiming::startup_of_hop(Bytes size, Bytes sent) const {
  return std::max(Seconds(), link.table.time(size) / hops - link.latency - sent / link.rate);
}

Seconds CollectiveTiming::startup_of_group(std::span<const Bytes> tensors, int launches, Bytes sent) const {
  const Seconds launch = link.table.time(Bytes());
  Seconds all = launch * launches;
  for (const Bytes tensor : tensors) all += link.table.time(tensor) - launch;
  return std::max(Seconds(), all - link.latency - sent / link.rate);
}

std::span<const std::string> category_names() {
  static const std::array<std::string, category_count> names = {
      "attention", "merge", "dense", "kv_transfer", "gradient_transfer", "head_exchange", "marker"};
  return names;
}

void BlockWriter::record(std::vector<Action>* actions, WorkTotals* totals) {
  actions_ = actions;
  totals_ = totals;
}

void BlockWriter::add(const Action& action, Category category, Op op, std::span<const Message> messages) {
  op.category = static_cast<std::uint8_t>(category);
  op.phase = static_cast<std::uint8_t>(phase_);
  ops_.add(op, messages);
  if (actions_ != nullptr) actions_->push_back(action);
}

Ticks BlockWriter::ticks_of(Seconds duration, const Action& action, Category category) const {
  try {
    return to_ticks(duration);
  } catch (const std::overflow_error&) {
    throw std::overflow_error(
        fmt::format("{} of layer {}, {} step {}, would take {:.3g} s (simulated time ends at 2^63 ps, 106 days), check "
                    "the numbers of the GPU, the profile and the implementation",
                    category_names()[static_cast<std::size_t>(category)], action.layer + 1,
                    phase_ == Phase::forward ? "forward" : "backward", action.step, duration.si()));
  }
}

Seconds BlockWriter::host_of(const Constant& cost) const {
  return Seconds::from_si(context_.implementation->launch.value + cost.value);
}

KernelCost BlockWriter::in_stream(KernelCost cost) const {
  cost.duration += Seconds::from_si(context_.implementation->kernel_gap.value);
  return cost;
}

void BlockWriter::compute(const Action& action, Category category, const KernelCost& cost, Op op) {
  compute(action, category, in_stream(cost), op, Seconds::from_si(context_.implementation->launch.value));
}

void BlockWriter::compute(const Action& action, Category category, const KernelCost& cost, Op op, Seconds host) {
  op.stream = Stream::compute;
  op.duration = ticks_of(cost.duration, action, category);
  op.hbm_traffic = cost.hbm_traffic;
  op.slows_transfers = cost.slows_nccl;
  op.launch += to_ticks(host);
  add(action, category, op);
  if (totals_ != nullptr) totals_->kernels += {cost.duration, cost.energy};
}

/// Two ops of one kernel: until the tail, and the tail. The first is nothing to the functional check.
void BlockWriter::attention_and_tail(const Action& action, const KernelCost& cost, Op op, SignalRef sms_free) {
  Op tail;
  tail.started = sms_free;
  tail.sms = op.sms;
  tail.finished = op.finished;
  op.finished = {};
  const double share = cost.tail / cost.duration;
  const auto part = [&](double of) {
    return KernelCost{cost.duration * of, cost.hbm_traffic * of, cost.flops * of, cost.energy * of, Seconds(), 1,
                      cost.slows_nccl};
  };
  compute({.kind = ActionKind::marker, .layer = action.layer, .step = action.step}, Category::attention,
          in_stream(part(1 - share)), op, host_of(context_.implementation->host_attention));
  Action rest = action;
  rest.is_tail = true;
  compute(rest, Category::attention, part(share), tail, Seconds());
}

void BlockWriter::attention(const Action& action, const TileWork& work, Op op, const StepSignals& signals,
                            std::span<const AttentionPart> apart) {
  const StepKernel::When when = action.first ? StepKernel::When::first_step : StepKernel::When::later_steps;
  std::vector<StepKernel::When> behind = {when};
  if (!action.first && !action.last) behind.push_back(StepKernel::When::middle_steps);
  if (!action.first && work.query_rows < action.queries->size()) behind.push_back(StepKernel::When::part_queries);
  if (!action.first && work.key_rows < action.rows->size()) behind.push_back(StepKernel::When::part_keys);
  const bool more = work.useful > 0 && (apart.size() > 1 || std::any_of(behind.begin(), behind.end(),
                                                                        [&](auto w) { return has_step_kernels(w); }));
  if (!more && signals.done.rank >= 0) op.finished[1] = signals.done;
  if (work.useful == 0) {
    op.started = signals.sms_free;
    add(action, Category::attention, op);
    return;
  }
  // The last kernel is the action; those before it, on the same stream, are nothing to the functional check.
  const AttentionPart whole{work};
  const std::span<const AttentionPart> parts = apart.empty() ? std::span(&whole, 1) : apart;
  for (const AttentionPart& part : parts) {
    const bool is_last = &part == &parts.back();
    Op one = &part == &parts.front() ? op : Op();
    one.finished = is_last ? op.finished : decltype(op.finished){};
    attention_kernel(is_last ? action : Action{.kind = ActionKind::marker, .layer = action.layer, .step = action.step},
                     action, part.work, one, signals.sms_free);
    sums(action, part);
  }
  for (const StepKernel::When each : behind) step_kernels(action, each, work.query_rows, work.key_rows);
  if (more && signals.done.rank >= 0) {
    Op done;
    done.finished[0] = signals.done;
    marker({.kind = ActionKind::marker, .layer = action.layer, .step = action.step}, done);
  }
}

void BlockWriter::attention_kernel(const Action& shown, const Action& action, const TileWork& work, Op op,
                                   SignalRef sms_free) {
  const Geometry& g = *context_.geometry;
  AttentionShape shape{.pairs = static_cast<double>(work.executed),
                       .query_rows = static_cast<double>(work.query_rows),
                       .key_rows = static_cast<double>(work.key_rows),
                       .heads = static_cast<double>(action.query_heads.count),
                       .kv_heads = static_cast<double>(action.kv_heads.count),
                       .head_dim = static_cast<double>(g.head_dim),
                       .batch = static_cast<double>(g.batch),
                       .element_bytes = context_.element_bytes,
                       .masked_pairs = static_cast<double>(work.executed - work.beyond - work.useful),
                       .pairs_beyond = static_cast<double>(work.beyond),
                       .window = context_.plain_window};
  const KernelCost cost =
      context_.attention->of(shape, phase_, context_.peaks, *context_.profile, context_.clock_cap, sms_beside(action));
  // A compute op's SMs: what it loses beside a transfer, in whole waves.
  if (cost.slowed > 1) op.sms = context_.peaks.sms * (1 - 1 / cost.slowed);
  if (sms_free.rank >= 0) {
    attention_and_tail(shown, cost, op, sms_free);
  } else {
    compute(shown, Category::attention, in_stream(cost), op, host_of(context_.implementation->host_attention));
  }
  if (totals_ == nullptr) return;
  totals_->executed += cost.flops;
  totals_->attention_executed += cost.flops;
  shape.pairs = static_cast<double>(work.useful);
  totals_->useful += attention_flops(shape, phase_);
}

/// Of HBM, per element: two reads and one write.
double BlockWriter::gradient_sum_bytes() const {
  const Implementation& i = *context_.implementation;
  return i.gradient_sum_bytes > 0 ? i.gradient_sum_bytes : 3 * (i.gradients_in_fp32 ? 4.0 : context_.element_bytes);
}

/// Of dQ in one kernel, of dK and of dV in one each.
void BlockWriter::sums(const Action& action, const AttentionPart& part) {
  const Geometry& g = *context_.geometry;
  const double row = gradient_sum_bytes() * g.head_dim * static_cast<double>(g.batch);
  const std::string& kernel = context_.implementation->gradient_sum_kernel;
  const auto sum = [&](Index rows, int heads, int kernels) {
    if (rows == 0) return;
    const KernelCost cost = streaming_cost(Bytes::from_si(row * static_cast<double>(rows) * heads), context_.peaks,
                                           *context_.profile, kernel);
    for (int i = 0; i < kernels; ++i) {
      compute({.kind = ActionKind::marker, .layer = action.layer, .step = action.step, .kernel = kernel},
              Category::merge, cost, Op());
    }
  };
  sum(part.sum_queries, action.query_heads.count, 1);
  sum(part.sum_keys, action.kv_heads.count, 2);
}

BlockWriter::Communicator BlockWriter::communicator_of(Rank rank, Category category) const {
  const Geometry& g = *context_.geometry;
  if (category != Category::head_exchange) return {0, g.ranks() - 1, g.ranks()};
  const Rank first = g.group_of(rank) * g.members;
  return {first, first + g.members - 1, g.members};
}

bool BlockWriter::in_domain(const Communicator& ranks) const {
  return context_.links->join(places_[ranks.first], places_[ranks.last]);
}

/// Each of them holds an SM.
int BlockWriter::channels_of(Bytes message, const Communicator& ranks) const {
  const Implementation& i = *context_.implementation;
  const auto most = static_cast<int>(i.sms.value);
  if (!i.nccl_send_recv) return most;
  return in_domain(ranks) ? nccl_send_recv_channels(most, ranks.members, message)
                          : std::min(most, nccl_channels_over_nodes);
}

/// Beside a hop of a rank's keys and values.
SmsBeside BlockWriter::sms_beside(const Action& action) const {
  const Geometry& g = *context_.geometry;
  const double rows = static_cast<double>(g.all_tokens.size()) / g.ranks() * static_cast<double>(g.batch);
  const int held = channels_of(Bytes::from_si(2 * rows * action.kv_heads.count * g.head_dim * context_.element_bytes),
                               communicator_of(0, Category::kv_transfer));
  return {held, context_.implementation->nccl_send_recv ? idle_sms_for_nccl(held) : held};
}

bool BlockWriter::has_step_kernels(StepKernel::When when) const {
  const auto& all = context_.implementation->step_kernels;
  return std::any_of(all.begin(), all.end(),
                     [&](const StepKernel& kernel) { return kernel.runs(phase_, gated_) && kernel.when == when; });
}

void BlockWriter::step_kernels(const Action& attention, StepKernel::When when, Index query_rows, Index key_rows) {
  const Geometry& g = *context_.geometry;
  const double batch = static_cast<double>(g.batch) * g.head_dim;
  const double queries = static_cast<double>(query_rows) * attention.query_heads.count * batch;
  const double keys = 2.0 * static_cast<double>(key_rows) * attention.kv_heads.count * batch;
  for (const StepKernel& kernel : context_.implementation->step_kernels) {
    if (!kernel.runs(phase_, gated_) || kernel.when != when) continue;
    const Action action{
        .kind = ActionKind::marker, .layer = attention.layer, .step = attention.step, .kernel = kernel.kernel};
    const Bytes bytes = Bytes::from_si((queries * kernel.query_bytes + keys * kernel.key_bytes) / kernel.launches);
    const KernelCost cost = streaming_cost(bytes, context_.peaks, *context_.profile, kernel.kernel);
    for (int i = 0; i < kernel.launches; ++i) compute(action, Category::merge, cost, Op());
  }
}

void BlockWriter::end(const Action& action, Index query_rows, Index key_rows) {
  step_kernels(action, StepKernel::When::end, query_rows, key_rows);
}

void BlockWriter::merge(const Action& action, Index query_rows, Op op) {
  const Geometry& g = *context_.geometry;
  const double elements =
      static_cast<double>(query_rows) * action.query_heads.count * g.head_dim * static_cast<double>(g.batch);
  const Bytes bytes = Bytes::from_si(elements * context_.implementation->merge_bytes_per_element.value);
  compute(action, Category::merge,
          in_stream(streaming_cost(bytes, context_.peaks, *context_.profile, context_.implementation->merge_kernel)),
          op, host_of(context_.implementation->host_merge));
}

void BlockWriter::accumulate(const Action& action, Op op) {
  const Geometry& g = *context_.geometry;
  const Implementation& i = *context_.implementation;
  const double tensors = action.values_only ? 1 : 2;
  const double rows = tensors * static_cast<double>(action.rows->size()) + static_cast<double>(action.values_alone);
  const double elements = rows * static_cast<double>(g.batch) * action.kv_heads.count * g.head_dim;
  compute(action, Category::merge,
          streaming_cost(Bytes::from_si(elements * gradient_sum_bytes()), context_.peaks, *context_.profile,
                         i.gradient_sum_kernel),
          op);
}

void BlockWriter::dense(const Action& action, Op op) {
  if (context_.dense.products.empty()) {
    marker(action, op);
    return;
  }
  const DenseShape shape = phase_ == Phase::forward ? context_.dense : gradients_of(context_.dense);
  const Flops flops = shape.flops();
  compute(action, Category::dense, dense_cost(shape, context_.peaks, *context_.profile, context_.clock_cap), op);
  if (totals_ == nullptr) return;
  totals_->useful += flops;
  totals_->executed += flops;
}

void BlockWriter::begin(const Action& action, Index exchanged_rows, SignalRef ready) {
  const Implementation& i = *context_.implementation;
  const bool packs = exchanged_rows > 0 && has_step_kernels(StepKernel::When::begin);
  Op projections, packed;
  (packs ? packed : projections).finished[0] = ready;
  projections.launch =
      to_ticks(Seconds::from_si(phase_ == Phase::forward ? i.host_call_forward.value : i.host_call_backward.value));
  dense(action, projections);
  if (!packs) return;
  step_kernels(action, StepKernel::When::begin, exchanged_rows, exchanged_rows);
  marker({.kind = ActionKind::marker, .layer = action.layer}, packed);
}

void BlockWriter::marker(const Action& action, Op op) {
  op.stream = Stream::compute;
  add(action, Category::marker, op);
}

Bytes BlockWriter::size_of(const MessageAction& message) const {
  const Geometry& g = *context_.geometry;
  const bool keys = !is_query_like(message.from.kind) && !message.values_only;
  const bool fp32 = is_travelling_gradient(message.from.kind) && context_.implementation->gradients_in_fp32;
  const double rows =
      static_cast<double>(message.rows->size()) * (keys ? 2.0 : 1.0) + static_cast<double>(message.values_alone);
  return Bytes::from_si(rows * static_cast<double>(g.batch) * message.heads.count * g.head_dim *
                        (fp32 ? 4.0 : context_.element_bytes));
}

/// Beside the route's latency and the bytes at the link's rate.
Seconds BlockWriter::startup_of(const Action& action, Category category, int startups, Path path, Bytes largest,
                                const Communicator& ranks) const {
  const LinkTimings& links = *context_.links;
  const bool collective =
      context_.implementation->transport == Transport::nccl && (path == Path::gather || path == Path::scatter);
  const bool measured =
      collective ? in_domain(ranks) : std::all_of(action.messages.begin(), action.messages.end(), [&](const auto& m) {
        return links.join(places_[m.source], places_[m.destination]);
      });
  const Seconds assumed = Seconds::from_si(context_.implementation->message_startup.value * startups);
  if (!measured) return assumed;
  // Keys and values of a part are one group.
  const int parts = startups / context_.implementation->kv_messages;
  if (path == Path::gather && links.gather)
    return links.gather->startup_of_hop(largest / parts, largest / parts) * parts;
  if (path == Path::scatter && links.scatter)
    return links.scatter->startup_of_hop(largest / parts, largest / parts) * parts;
  if (category == Category::head_exchange && links.exchange) {
    // The table counts a rank's own share. One after the other: Q, K, V; or O; or dQ, dK, dV.
    Bytes queries, keys_and_values, sent;
    for (const MessageAction& m : action.messages) {
      (is_query_like(m.from.kind) ? queries : keys_and_values) += size_of(m);
      if (m.source != m.destination) sent += size_of(m);
    }
    if (keys_and_values == Bytes()) return links.exchange->startup_of_group({&queries, 1}, startups, sent);
    const std::array tensors = {queries, keys_and_values / 2, keys_and_values / 2};
    return links.exchange->startup_of_group(tensors, startups, sent);
  }
  if (!links.neighbours) return assumed;
  const auto startup = [&](Bytes size) { return links.neighbours->startup(size, channels_of(size, ranks)); };
  const MessageAction& message = action.messages.front();
  if (message.values_alone > 0 && startups == 2) {  // K, then the longer V
    const double rows = static_cast<double>(message.rows->size()),
                 all = 2 * rows + static_cast<double>(message.values_alone);
    const Bytes keys = largest * (rows / all);
    return (keys > Bytes() ? startup(keys) : Seconds()) + startup(largest - keys);
  }
  return startup(largest / startups) * startups;
}

void BlockWriter::transfer(const Action& action, Category category, int startups, Op op, Path path, int hop) {
  const Implementation& implementation = *context_.implementation;
  messages_.clear();
  bool sends = false;
  Bytes largest;
  for (const MessageAction& m : action.messages) {
    const Bytes size = size_of(m);
    sends = sends || (size > Bytes() && m.source != m.destination);
    if (m.source != m.destination) largest = std::max(largest, size);
    messages_.push_back({m.source, m.destination, size, m.delivered});
    if (totals_ == nullptr || m.source == m.destination) continue;
    totals_->sent += size;
    if (context_.profile->kernels) {
      totals_->kernels.energy +=
          energy_of_messages(size, implementation.transport == Transport::nccl, context_.profile->kernels->clock);
    }
    if (category == Category::kv_transfer) totals_->kv_sent += size;
  }
  const bool nccl = implementation.transport == Transport::nccl;
  const bool second = path == Path::network || path == Path::apart;
  op.stream = second ? Stream::network : nccl ? Stream::collective : Stream::copy_out;
  if (sends) {
    const Communicator ranks = communicator_of(action.messages.front().source, category);
    const Seconds startup = startup_of(action, category, startups, path, largest, ranks);
    const bool same_call = nccl && hop > 0;
    const double dependency = same_call ? 0 : implementation.dependency.value;
    op.duration = ticks_of(startup + Seconds::from_si(dependency), action, category);
    op.launch = same_call ? 0 : to_ticks(host_of(implementation.host_message));
    op.sms = channels_of(largest, ranks);
  }
  add(action, category, op, messages_);
}

}  // namespace orrery
