#include "scenarios/step_program.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

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

constexpr std::array<const char*, step_signals> step_signal_names = {
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
struct Channel {
  const std::vector<RingPart>* parts;
  Stream stream;
  StepSignal local, node;
};

DenseCost operator+(DenseCost a, const DenseCost& b) {
  a.duration += b.duration;
  a.hbm_traffic += b.hbm_traffic;
  a.flops += b.flops;
  a.energy += b.energy;
  return a;
}

}  // namespace

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

  void compute(const DenseCost& cost, std::uint8_t category, StepSignal also = step_signals) {
    Op op;
    op.stream = Stream::compute;
    op.category = category;
    op.duration = to_ticks(cost.duration);
    if (cost.flops > Flops()) op.hbm_traffic = cost.hbm_traffic;  // what only streams slows no transfer, see above
    if (op.duration > 0) op.launch = to_ticks(Seconds::from_si(implementation_.launch.value));
    for (const auto& [signal, count] : waits_) op.wait_for(at(rank_, signal), count);
    waits_.clear();
    op.finished[0] = raise(advanced);
    if (also != step_signals) op.finished[1] = raise(also);
    add(op);
    if (work_ != nullptr) *work_ += {cost.duration, cost.energy};
  }

  /// An all-gather or reduce-scatter (passes = 1) or all-reduce (2) of `size` bytes in all, after the signals in
  /// `after` have come as often as they were raised so far, or so often.
  using After = std::initializer_list<std::pair<StepSignal, std::int64_t>>;
  void collective(const Channel& channel, Bytes size, int passes, std::uint8_t category, After after, StepSignal done) {
    const RingPart& part = (*channel.parts)[static_cast<std::size_t>(rank_)];
    if (part.members == 1) return;
    Op op = transfer(channel.stream, category);
    for (const auto& [signal, count] : after) op.wait_for(at(rank_, signal), count);
    const Bytes sent = size * (passes * (part.members - 1.0) / part.members);
    messages_.clear();
    const auto send = [&](Rank to, double share, StepSignal arrived) {
      if (to < 0) return;
      messages_.push_back({rank_, to, sent * share, raise(to, arrived)});
      op.wait_for(at(rank_, arrived), count(arrived), WaitStage::finish);
    };
    send(part.next_local, part.local_share, channel.local);
    send(part.next_node, part.node_share, channel.node);
    // The message has the latency of one hop.
    const StepProgramInput& in = program_.input_;
    const double local_hops = passes * part.local_hops - (part.node_hops > 0 ? 0 : 1);
    const double node_hops = passes * part.node_hops - (part.node_hops > 0 ? 1 : 0);
    op.duration += to_ticks(in.local_latency * local_hops + in.node_latency * node_hops);
    op.finished[0] = raise(done);
    add(op, messages_);
  }

  void send(Rank to, Bytes size, StepSignal arrived) {
    Op op = transfer(Stream::network, pipeline_transfer);
    op.wait_for(at(rank_, advanced), count(advanced));
    op.wait_for(at(rank_, tensor_done), count(tensor_done));
    messages_.assign(1, {rank_, to, size, raise(to, arrived)});
    add(op, messages_);
  }

  /// Ops of the attention program, on the ranks of this one.
  void attention(Rank rank, const Visit& visit, int block) {
    const RankGrid& grid = program_.grid_;
    scratch_.begin(0);
    WorkTotals totals;
    program_.attention_.write_block(rank, visit, block, scratch_, work_ == nullptr ? nullptr : &totals);
    if (work_ != nullptr) *work_ += totals.kernels;
    const auto there = [&](SignalRef signal) {
      if (signal.rank >= 0) signal.rank = grid.moved(rank_, Axis::context, signal.rank);
      return signal;
    };
    const StepProgramInput& in = program_.input_;
    for (Op op : scratch_.ops()) {
      messages_.assign(scratch_.messages_of(op).begin(), scratch_.messages_of(op).end());
      for (Message& message : messages_) {
        message.source = grid.moved(rank_, Axis::context, message.source);
        message.destination = grid.moved(rank_, Axis::context, message.destination);
        message.delivered = there(message.delivered);
      }
      for (int i = 0; i < op.wait_count; ++i)
        op.waits[static_cast<std::size_t>(i)].signal = there(op.waits[static_cast<std::size_t>(i)].signal);
      op.started = there(op.started);
      for (SignalRef& signal : op.finished) signal = there(signal);
      if (in.steps > 1) repeat(op);
      add(op, messages_);
    }
  }

 private:
  SignalRef raise(StepSignal signal) { return raise(rank_, signal); }
  SignalRef raise(Rank rank, StepSignal signal) {
    ++count(signal);
    return at(rank, signal);
  }
  Op transfer(Stream stream, std::uint8_t category) const {
    Op op;
    op.stream = stream;
    op.category = category;
    op.duration = to_ticks(Seconds::from_si(implementation_.message_startup.value + implementation_.dependency.value));
    op.launch = to_ticks(Seconds::from_si(implementation_.launch.value));
    op.sms = implementation_.sms.value;
    return op;
  }
  /// Makes an op of a ring's step, and its messages, as much as several; heads are exchanged once a layer.
  void repeat(Op& op) {
    const StepProgramInput& in = program_.input_;
    const auto category = static_cast<Category>(op.category);
    if (category == Category::head_exchange || category == Category::marker) return;
    op.duration *= in.steps;
    op.hbm_traffic = op.hbm_traffic * in.steps;
    if (messages_.empty()) return;
    for (Message& message : messages_) message.size = message.size * in.steps;
    op.duration += to_ticks(std::max(in.local_latency, in.node_latency) * (in.steps - 1.0));
  }
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

namespace {

Degrees folded(const StepProgramInput& input) {
  Degrees degrees = input.shape.degrees;
  degrees.data /= input.folds;
  degrees.context /= input.context_folds;
  return degrees;
}

/// Parts in rings of `folds` times as many nodes.
std::vector<RingPart> unfolded(std::vector<RingPart> parts, int folds) {
  for (RingPart& part : parts) {
    const int nodes = (part.node_hops + 1) * folds;
    part.members *= folds;
    part.node_hops = nodes - 1;
    part.local_hops = part.members - nodes;
  }
  return parts;
}

}  // namespace

StepProgram::StepProgram(StepProgramInput input)
    : input_(std::move(input)),
      degrees_(input_.shape.degrees),
      costs_(step_costs({input_.shape, input_.attention.peaks, input_.attention.clock_cap, input_.fp8_rate},
                        input_.attention.profile)),
      attention_(input_.attention),
      grid_(folded(input_), input_.placement),
      tensor_(ring_parts(grid_, {Axis::tensor}, input_.node_size)),
      replicas_(unfolded(ring_parts(grid_, {Axis::context, Axis::data}, input_.node_size),
                         input_.folds * input_.context_folds)),
      context_(unfolded(ring_parts(grid_, {Axis::context}, input_.node_size), input_.context_folds)) {
  const int chunks = degrees_.pipeline * degrees_.virtual_stages;
  if (input_.shape.layers % chunks != 0) {
    throw std::invalid_argument(
        fmt::format("{} layers cannot be dealt out to {} pipeline stages of {} chunks (each "
                    "gets as many), use degrees whose product divides {}",
                    input_.shape.layers, degrees_.pipeline, degrees_.virtual_stages, input_.shape.layers));
  }
  layers_per_chunk_ = input_.shape.layers / chunks;
  signals_.assign(attention_.signals().begin(), attention_.signals().end());
  signals_.insert(signals_.end(), step_signal_names.begin(), step_signal_names.end());
  make_slots();
  make_partition();
}

std::span<const std::string> StepProgram::categories() const {
  return step_category_names();
}

std::span<const std::string> step_category_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all(category_names().begin(), category_names().end());
    all.insert(all.end(), {"tables", "optimizer", "parameter_gather", "gradient_reduction", "tensor_collective",
                           "context_collective", "pipeline_transfer"});
    return all;
  }();
  return names;
}

std::span<const std::string> StepProgram::phases() const {
  static const std::array<std::string, 3> names = {"forward", "backward", "optimizer"};
  return names;
}

// --- Slots and visits ---

int StepProgram::blocks_of(const VisitPlan& visit) const {
  if (visit.kind == VisitKind::begin || visit.kind == VisitKind::end || decode()) return 1;
  return attention_.steps(attention_visit(visit, visit.before)) + 2;
}

Visit StepProgram::attention_visit(const VisitPlan& plan, const Counts& before) const {
  Visit visit;
  visit.number = visit.layer = plan.layer;
  visit.phase = plan.kind == VisitKind::backward ? Phase::backward : Phase::forward;
  visit.pattern_class = input_.attention.class_of_layer[static_cast<std::size_t>(plan.layer)];
  visit.before.counts.assign(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(attention_.signals().size()));
  return visit;
}

void StepProgram::make_visits(SlotPlan& plan) {
  const auto add = [&](VisitKind kind, int layer, bool starts, bool ends) {
    VisitPlan visit;
    visit.kind = kind;
    visit.layer = layer;
    visit.use_starts = starts;
    visit.use_ends = ends;
    visit.before.resize(signals_.size());
    visit.first_block = plan.blocks;
    plan.blocks += blocks_of(visit);
    plan.visits.push_back(std::move(visit));
  };
  const int first = plan.chunk * layers_per_chunk_;
  const bool again = input_.shape.recompute == Recompute::full || input_.shape.recompute == Recompute::blocks;
  add(VisitKind::begin, first, false, false);
  for (int i = 0; i < layers_per_chunk_; ++i) {
    if (plan.forward) {
      add(VisitKind::forward, first + i, true, true);
    } else {
      const int layer = first + layers_per_chunk_ - 1 - i;
      if (again) add(VisitKind::recompute, layer, true, false);
      add(VisitKind::backward, layer, !again, true);
    }
  }
  add(VisitKind::end, first, false, false);
}

/// Writes the slot once, from a rank of its stage, to see what it raises.
void StepProgram::count_raises(SlotPlan& plan) {
  const Rank rank = grid_.moved(0, Axis::pipeline, plan.chunk % degrees_.pipeline);
  Slot slot{&plan, 0, 0, {}};
  Counts counts(signals_.size());
  OpBuffer buffer;
  for (VisitPlan& visit : plan.visits) {
    const int last = blocks_of(visit) - 1;
    visit.before = visit.before_end = counts;
    buffer.begin(0);
    write(rank, slot, visit, 0, counts, buffer);
    visit.before_end = counts;
    if (last > 0) write(rank, slot, visit, last, counts, buffer);
  }
  plan.raised = counts;
}

const StepProgram::SlotPlan& StepProgram::plan_of(const PipelineSlot& slot, int stage, bool first, bool last) {
  const int chunk = slot.chunk * degrees_.pipeline + stage;
  auto& plan = plans_[{slot.forward, chunk, first, last}];
  if (plan == nullptr) {
    plan = std::make_unique<SlotPlan>();
    plan->forward = slot.forward;
    plan->first = first;
    plan->last = last;
    plan->chunk = chunk;
    make_visits(*plan);
    count_raises(*plan);
  }
  return *plan;
}

void StepProgram::make_slots() {
  const int stages = degrees_.pipeline, microbatches = input_.shape.microbatches;
  std::vector<std::vector<PipelineSlot>> orders;
  for (int stage = 0; stage < stages; ++stage)
    orders.push_back(pipeline_order(stages, stage, degrees_.virtual_stages, microbatches, training()));
  stages_.resize(static_cast<std::size_t>(stages));
  for (int stage = 0; stage < stages; ++stage) {
    // What the neighbours send, in their order: activations from the stage before, gradients from the one after.
    std::map<std::tuple<bool, int, int>, std::int64_t> arrivals;
    const int chunks = stages * degrees_.virtual_stages;
    for (const bool forward : {true, false}) {
      std::int64_t number = 0;
      const int from = (stage + (forward ? stages - 1 : 1)) % stages;
      for (const PipelineSlot& sent : orders[static_cast<std::size_t>(from)]) {
        const int chunk = sent.chunk * stages + from + (forward ? 1 : -1);
        if (sent.forward == forward && chunk >= 0 && chunk < chunks)
          arrivals[{forward, chunk, sent.microbatch}] = ++number;
      }
    }
    Counts before(signals_.size());
    for (const PipelineSlot& slot : orders[static_cast<std::size_t>(stage)]) {
      const bool first = slot.forward && slot.microbatch == 0;
      const bool last = slot.microbatch == microbatches - 1 && (!slot.forward || !training());
      const SlotPlan& plan = plan_of(slot, stage, first, last);
      const auto arrival = arrivals.find({slot.forward, plan.chunk, slot.microbatch});
      stages_[static_cast<std::size_t>(stage)].push_back(
          {&plan, slot.microbatch, arrival == arrivals.end() ? 0 : arrival->second, before});
      for (std::size_t s = 0; s < before.size(); ++s) before[s] += plan.raised[s];
      slot_blocks_ = std::max(slot_blocks_, plan.blocks);
    }
  }
  slots_ = static_cast<std::int64_t>(stages_.front().size());
  if (stages > 1) return;
  // One stage: visits of one kind, pattern and place repeat over layers and slots.
  std::map<std::tuple<const SlotPlan*, VisitKind, int, bool, bool>, std::int64_t> known;
  shapes_ = 1;  // 0: the empty blocks that fill a slot up
  for (auto& [key, plan] : plans_) {
    for (VisitPlan& visit : plan->visits) {
      const bool edge = visit.kind == VisitKind::begin || visit.kind == VisitKind::end;
      const int pattern = edge ? 0 : input_.attention.class_of_layer[static_cast<std::size_t>(visit.layer)];
      const auto place = static_cast<std::size_t>(&visit - plan->visits.data());
      const bool at_first = place <= 1, at_last = visit.layer == plan->visits[plan->visits.size() - 2].layer;
      const auto [shape, is_new] = known.try_emplace({plan.get(), visit.kind, pattern, at_first, at_last}, shapes_);
      if (is_new) shapes_ += blocks_of(visit);
      visit.shape = shape->second;
    }
  }
  for (const Slot& slot : stages_.front()) {
    std::vector<Counts>& counts = visit_counts_.emplace_back();
    for (const VisitPlan& visit : slot.plan->visits) {
      counts.push_back(slot.before);
      for (std::size_t s = 0; s < signals_.size(); ++s) counts.back()[s] += visit.before[s];
    }
  }
}

const StepProgram::Slot& StepProgram::slot_at(Rank rank, std::int64_t block) const {
  const auto stage = static_cast<std::size_t>(grid_.at(rank, Axis::pipeline));
  return stages_[stage][static_cast<std::size_t>(block / slot_blocks_)];
}

const StepProgram::VisitPlan* StepProgram::visit_at(const Slot& slot, std::int64_t block_in_slot) const {
  if (block_in_slot >= slot.plan->blocks) return nullptr;
  const auto& visits = slot.plan->visits;
  const auto next = std::upper_bound(visits.begin(), visits.end(), block_in_slot,
                                     [](std::int64_t block, const VisitPlan& v) { return block < v.first_block; });
  return &*(next - 1);
}

std::int64_t StepProgram::shapes() const {
  return shapes_ > 0 ? shapes_ : blocks();
}

std::int64_t StepProgram::shape(std::int64_t block) const {
  if (shapes_ == 0) return block;
  const std::int64_t in_slot = block % slot_blocks_;
  const VisitPlan* visit = visit_at(slot_at(0, block), in_slot);
  return visit == nullptr ? 0 : visit->shape + in_slot - visit->first_block;
}

std::span<const std::int64_t> StepProgram::counts_before(std::int64_t block) const {
  if (shapes_ == 0) return {};
  const Slot& slot = slot_at(0, block);
  const VisitPlan* visit = visit_at(slot, block % slot_blocks_);
  if (visit == nullptr) return slot.before;
  const auto place = static_cast<std::size_t>(visit - slot.plan->visits.data());
  return visit_counts_[static_cast<std::size_t>(block / slot_blocks_)][place];
}

std::vector<StepVisit> StepProgram::visits_of(int stage) const {
  const int chunks = degrees_.pipeline * degrees_.virtual_stages;
  std::vector<StepVisit> all;
  std::int64_t first_block = 0;
  for (const Slot& slot : stages_[static_cast<std::size_t>(stage)]) {
    for (const VisitPlan& visit : slot.plan->visits) {
      all.push_back({visit.kind, slot.microbatch, visit.layer, slot.plan->forward, slot.plan->chunk == 0,
                     slot.plan->chunk == chunks - 1, first_block + visit.first_block});
    }
    first_block += slot_blocks_;
  }
  return all;
}

// --- Ranks that do the same ---

void StepProgram::make_partition() {
  const Rank n = ranks();
  const auto distance = [&](Rank from, Rank to) { return to < 0 ? -1 : (to - from + n) % n; };
  std::map<std::vector<Rank>, std::set<Rank>> alike;
  for (Rank rank = 0; rank < n; ++rank) {
    std::vector<Rank> key = {grid_.at(rank, Axis::pipeline), grid_.at(rank, Axis::context)};
    for (const auto* parts : {&tensor_, &replicas_, &context_}) {
      const RingPart& part = (*parts)[static_cast<std::size_t>(rank)];
      key.push_back(distance(rank, part.next_local));
      key.push_back(distance(rank, part.next_node));
    }
    alike[key].insert(rank);
  }
  std::set<Rank> strides = {1, input_.node_size};
  for (int axis = 0; axis < axes; ++axis) strides.insert(grid_.stride(static_cast<Axis>(axis)));
  for (auto& [key, members] : alike) {
    while (!members.empty()) {
      RankSet longest{*members.begin(), 1, 1};
      for (const Rank stride : strides) {
        Rank count = 1;
        while (members.contains(longest.first + count * stride)) ++count;
        if (count > longest.count) longest = {longest.first, stride, count};
      }
      for (Rank i = 0; i < longest.count; ++i) members.erase(longest[i]);
      sets_.push_back(longest);
    }
  }
}

void StepProgram::partition(std::int64_t, std::vector<RankSet>& sets) const {
  sets.insert(sets.end(), sets_.begin(), sets_.end());
}

// --- Ops ---

void StepProgram::generate(Rank rank, std::int64_t block, OpBuffer& buffer) const {
  buffer.begin(block);
  const Slot& slot = slot_at(rank, block);
  const std::int64_t in_slot = block % slot_blocks_;
  const VisitPlan* visit = visit_at(slot, in_slot);
  if (visit == nullptr) return;
  const auto in_visit = static_cast<int>(in_slot - visit->first_block);
  Counts counts = slot.before;
  const Counts& before = in_visit > 0 ? visit->before_end : visit->before;
  for (std::size_t s = 0; s < counts.size(); ++s) counts[s] += before[s];
  write(rank, slot, *visit, in_visit, counts, buffer);
}

void StepProgram::write(Rank rank, const Slot& slot, const VisitPlan& visit, int block, Counts& counts,
                        OpBuffer& buffer, KernelWork* work) const {
  const SlotPlan& plan = *slot.plan;
  Writer w(*this, rank, plan.forward ? forward_phase : backward_phase, counts, buffer, work);
  const bool backward = visit.kind == VisitKind::backward;
  const bool splits = degrees_.tensor > 1, sequence_parallel = degrees_.sequence_parallel;
  const int chunks = degrees_.pipeline * degrees_.virtual_stages;
  const bool first_chunk = plan.chunk == 0, last_chunk = plan.chunk == chunks - 1;
  const bool final_slot =
      plan.last && (training() ? plan.chunk < degrees_.pipeline : plan.chunk + degrees_.pipeline >= chunks);
  const bool first_slot = plan.first && plan.chunk < degrees_.pipeline;
  const bool reduces = !plan.forward && (degrees_.zero >= 2 || plan.last);
  const Channel tensor{&tensor_, Stream::collective, tensor_local, tensor_node};
  const Channel shards{&replicas_, Stream::copy_in, shard_local, shard_node};
  const Channel partial{&context_, Stream::collective, context_local, context_node};
  const auto dense = static_cast<std::uint8_t>(Category::dense);

  // Tensor parallelism. With sequence parallelism rows are gathered before the first matrix of a half and sums are
  // scattered after its last; without, sums are reduced to all. Backward mirrors it; the inputs of the first matrix,
  // kept split, are gathered again for the gradients of the weights.
  const auto tensor_step = [&](int passes) {
    if (splits)
      w.collective(tensor, costs_.sequence, passes, tensor_collective, {{advanced, w.count(advanced)}}, tensor_done);
  };
  const auto gather_rows = [&] {
    if (sequence_parallel) tensor_step(1);
    w.wait(tensor_done);
  };
  const auto scatter_sums = [&] { tensor_step(sequence_parallel ? 1 : 2); };
  // Gradients of the inputs, whose sums travel under those of the weights.
  const auto first_matrices_backward = [&](const DenseCost& cost, StepSignal also) {
    if (!splits) {
      w.compute(cost + cost, dense, also);
      return;
    }
    const std::int64_t inputs_gathered = w.count(tensor_done) + (sequence_parallel ? 1 : 0);
    if (sequence_parallel) tensor_step(1);
    w.compute(cost, dense);
    scatter_sums();
    w.wait(tensor_done, inputs_gathered);
    w.compute(cost, dense, also);
  };
  const auto reduce = [&](Bytes gradients) {
    if (reduces)
      w.collective(shards, gradients, degrees_.zero == 0 ? 2 : 1, gradient_reduction, {{advanced, w.count(advanced)}},
                   reduced);
  };

  // ZeRO-3: a layer's parameters are there while it is in use, those of the next are gathered meanwhile.
  const bool gathers = degrees_.zero >= 3 && degrees_.replicas() > 1;
  const auto gather_layer = [&] {
    const std::int64_t number = w.count(gathered);
    w.collective(shards, costs_.layer_parameters, 1, parameter_gather, {{layer_used, number - 1}}, gathered);
  };
  const auto start_use = [&] {
    if (!gathers || !visit.use_starts) return;
    const bool first_use = first_slot && &visit == &plan.visits[1];
    const bool last_use = final_slot && visit.layer == plan.visits[plan.visits.size() - 2].layer;
    if (first_use) gather_layer();
    w.wait(gathered, w.count(layer_used) + 1);
    if (!last_use) gather_layer();
  };
  const StepSignal end_of_use = visit.use_ends ? layer_used : step_signals;

  if (visit.kind == VisitKind::begin) {
    const int tables_here =
        (first_chunk ? 1 : 0) + (last_chunk && !(first_chunk && input_.shape.model->tied_embeddings) ? 1 : 0);
    if (plan.forward && gathers && tables_here > 0)
      w.collective(shards, costs_.table_parameters * tables_here, 1, parameter_gather, {}, tables_gathered);
    w.wait(tables_gathered);
    if (plan.forward && !first_chunk) w.wait(activations_arrived, slot.arrival);
    if (!plan.forward && !last_chunk) w.wait(gradients_arrived, slot.arrival);
    DenseCost cost;
    if (plan.forward && first_chunk) cost = costs_.embedding;
    if (!plan.forward && last_chunk) {
      w.wait(tensor_done);
      cost = costs_.head + costs_.head;
    }
    w.compute(cost, tables);
    if (!plan.forward && last_chunk) {
      scatter_sums();
      reduce(costs_.table_gradients);
    }
    return;
  }
  if (visit.kind == VisitKind::end) {
    if (plan.forward && last_chunk) {
      gather_rows();
      w.compute(costs_.head, tables);
    }
    const Bytes sent = costs_.sequence / (sequence_parallel ? degrees_.tensor : 1);
    const int stage = grid_.at(rank, Axis::pipeline), stages = degrees_.pipeline;
    if (plan.forward && !last_chunk)
      w.send(grid_.moved(rank, Axis::pipeline, (stage + 1) % stages), sent, activations_arrived);
    if (!plan.forward && first_chunk) {
      w.wait(tensor_done);
      w.compute(costs_.embedding, tables);
      if (!(last_chunk && input_.shape.model->tied_embeddings)) reduce(costs_.table_gradients);
    }
    if (!plan.forward && !first_chunk)
      w.send(grid_.moved(rank, Axis::pipeline, (stage + stages - 1) % stages), sent, gradients_arrived);
    if (!plan.forward && final_slot) {
      w.set_phase(optimizer_phase);
      w.wait(reduced);
      w.compute(costs_.optimizer, optimizer);
      if (degrees_.zero == 1 || degrees_.zero == 2) {
        const double tables_here = (first_chunk ? 1.0 : 0.0) + (plan.chunk + 1 == degrees_.pipeline ? 1.0 : 0.0);
        const Bytes all = costs_.layer_parameters * layers_per_chunk_ * degrees_.virtual_stages +
                          costs_.table_parameters * tables_here;
        w.collective(shards, all, 1, parameter_gather, {{advanced, w.count(advanced)}}, tables_gathered);
      }
    }
    return;
  }

  const bool before_attention = block == 0;
  const int last_block = blocks_of(visit) - 1;
  const bool after_attention = block == last_block;
  const Rank place = grid_.at(rank, Axis::context);
  if (before_attention && !backward) {
    start_use();
    gather_rows();
    w.compute(costs_.qkv, dense);
  }
  if (before_attention && backward) {
    start_use();
    gather_rows();
    first_matrices_backward(costs_.mlp, step_signals);
    gather_rows();
    w.compute(costs_.output + costs_.output, dense);
  }
  if (decode()) {
    w.compute(costs_.decode_attention, static_cast<std::uint8_t>(Category::attention));
    w.collective(partial, costs_.partial_output, 2, context_collective, {{advanced, w.count(advanced)}}, context_done);
    w.wait(context_done);
  } else {
    const Visit attention = attention_visit(visit, counts);
    w.attention(place, attention, block);
    if (after_attention) {
      const SignalCounts raised = attention_.raises(attention);
      for (std::size_t s = 0; s < raised.counts.size(); ++s) counts[s] += raised.counts[s];
    }
  }
  if (after_attention && !backward) {
    w.compute(costs_.output, dense);
    scatter_sums();
    gather_rows();
    w.compute(costs_.mlp, dense, end_of_use);
    scatter_sums();
  }
  if (after_attention && backward) {
    first_matrices_backward(costs_.qkv, end_of_use);
    reduce(costs_.layer_gradients);
  }
}

std::string StepProgram::describe(Rank rank, std::int64_t block, std::int32_t index) const {
  OpBuffer buffer;
  generate(rank, block, buffer);
  const Slot& slot = slot_at(rank, block);
  const VisitPlan* visit = visit_at(slot, block % slot_blocks_);
  const Op& op = buffer.ops()[static_cast<std::size_t>(index)];
  return fmt::format("microbatch {} layer {} {} {}", slot.microbatch + 1, visit->layer + 1, phases()[op.phase],
                     categories()[op.category]);
}

// --- Power ---

void StepProgram::cap_clock(ClockCap cap) {
  costs_ = step_costs({input_.shape, input_.attention.peaks, cap, input_.fp8_rate}, input_.attention.profile);
  attention_.cap_clock(cap);
}

/// Visits of one kind and pattern have the same kernels.
KernelWork StepProgram::kernel_work(Rank rank, const SlotPlan& plan) const {
  std::map<std::pair<VisitKind, int>, KernelWork> known;
  KernelWork sum;
  const Slot slot{&plan, 0, 0, {}};
  OpBuffer buffer;
  for (const VisitPlan& visit : plan.visits) {
    const bool edge = visit.kind == VisitKind::begin || visit.kind == VisitKind::end;
    const int pattern = edge ? 0 : input_.attention.class_of_layer[static_cast<std::size_t>(visit.layer)];
    const auto [work, is_new] = known.try_emplace({visit.kind, pattern});
    for (int block = 0; is_new && block < blocks_of(visit); ++block) {
      Counts counts(signals_.size());
      buffer.begin(0);
      write(rank, slot, visit, block, counts, buffer, &work->second);
    }
    sum += work->second;
  }
  return sum;
}

KernelWork StepProgram::kernel_work(Rank rank) const {
  std::map<const SlotPlan*, double> slots;
  for (const Slot& slot : stages_[static_cast<std::size_t>(grid_.at(rank, Axis::pipeline))]) ++slots[slot.plan];
  KernelWork sum;
  for (const auto& [key, plan] : plans_) {  // in an order that does not depend on addresses
    if (const auto found = slots.find(plan.get()); found != slots.end())
      sum += kernel_work(rank, *plan) * found->second;
  }
  return sum;
}

std::vector<KernelWork> StepProgram::kernel_work_of_ranks() const {
  std::vector<KernelWork> all(static_cast<std::size_t>(ranks()));
  std::map<std::pair<Rank, Rank>, KernelWork> known;  // by stage and place in the sequence
  for (Rank rank = 0; rank < ranks(); ++rank) {
    const auto [work, is_new] = known.try_emplace({grid_.at(rank, Axis::pipeline), grid_.at(rank, Axis::context)});
    if (is_new) work->second = kernel_work(rank);
    all[static_cast<std::size_t>(rank)] = work->second;
  }
  return all;
}

AttentionProgram::FlopTotals StepProgram::flops_of(Rank rank) const {
  const bool again =
      training() && (input_.shape.recompute == Recompute::full || input_.shape.recompute == Recompute::blocks);
  const Flops dense = dense_flops(input_.shape) / degrees_.ranks();
  AttentionProgram::FlopTotals total{dense, dense};
  if (again) total.executed += dense * (1.0 / 3.0);
  if (decode()) {
    const Flops attention = costs_.decode_attention.flops *
                            (static_cast<double>(input_.shape.layers) / degrees_.pipeline * input_.shape.microbatches);
    total.useful += attention;
    total.executed += attention;
    return total;
  }
  const AttentionProgram::FlopTotals one = attention_.flops_of(grid_.at(rank, Axis::context));
  const double times = static_cast<double>(input_.shape.microbatches) / degrees_.pipeline;
  total.useful += one.useful * times;
  // Backward has 2.5 times the products of forward.
  total.executed += one.executed * (times * (again ? 1 + 1 / 3.5 : 1));
  return total;
}

}  // namespace orrery
