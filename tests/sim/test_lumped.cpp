// On random programs whose ranks are alike in groups, all three engines give the same.
#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

/// Random ops, layer after layer, the same on all ranks of a kind: those whose numbers are equal modulo the number of
/// kinds. An op waits for any earlier one, of this layer or of some before. Every signal has one stream that raises it,
/// and every link one that sends over it.
class AlikeProgram : public Program {
 public:
  AlikeProgram(unsigned seed, Rank kinds, Rank copies, std::int64_t layers, bool says_that_layers_repeat)
      : kinds_(kinds),
        copies_(copies),
        layers_(layers),
        says_so_(says_that_layers_repeat),
        signals_(static_cast<std::size_t>((2 * streams_per_rank + kinds * copies) * kinds), "signal") {
    std::mt19937 random(seed);
    draw_ops(random);
    draw_waits(random);
  }

  /// Of one rank of each kind.
  std::uint64_t ops() const { return steps_.size() * static_cast<std::uint64_t>(layers_); }

  Rank ranks() const override { return kinds_ * copies_; }
  std::int64_t blocks() const override { return parts_ * layers_; }
  // Nothing is said of the last layer, so that something is left to do after a jump.
  std::int64_t shapes() const override { return says_so_ ? 2 * parts_ : blocks(); }
  std::int64_t shape(std::int64_t block) const override {
    if (!says_so_) return block;
    return block % parts_ + (block / parts_ + 1 == layers_ ? parts_ : 0);
  }
  std::span<const std::int64_t> counts_before(std::int64_t block) const override {
    return std::span(raised_before_)
        .subspan(static_cast<std::size_t>(block / parts_) * signals_.size(), signals_.size());
  }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return categories_; }
  std::span<const std::string> phases() const override { return phases_; }
  std::string describe(Rank, std::int64_t block, std::int32_t index) const override {
    return fmt::format("block {} op {}", block, index);
  }
  void partition(std::int64_t, std::vector<RankSet>& sets) const override {
    for (Rank kind = 0; kind < kinds_; ++kind) sets.push_back({kind, kinds_, copies_});
  }

  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override {
    const auto size = static_cast<std::int64_t>(steps_.size()), part = block % parts_;
    for (std::int64_t i = part * size / parts_; i < (part + 1) * size / parts_; ++i) {
      const Step& step = steps_[static_cast<std::size_t>(i)];
      if (step.kind != rank % kinds_) continue;
      Op op = step.op;
      for (const Earlier& wait : step.waits) {
        const std::int64_t count = wait.count + counts_before(block)[static_cast<std::size_t>(wait.signal)];
        op.wait_for({(rank + wait.distance) % ranks(), wait.signal}, count, wait.stage);
      }
      op.started = {rank, begun(step)};
      op.finished[0] = {rank, done(step)};
      if (step.to == 0) {
        buffer.add(op);
        continue;
      }
      const Rank to = (rank + step.to) % ranks();
      const Message message{rank, to, step.size, {to, arrived(step)}};
      buffer.add(op, {&message, 1});
    }
  }

 private:
  struct Earlier {
    std::int32_t signal;
    Rank distance;
    std::int64_t count;  // above that before the layer
    WaitStage stage;
  };
  struct Step {
    Rank kind = 0;
    Op op;
    Rank to = 0;  // so many ranks further on; 0: sends nothing
    Bytes size;
    std::vector<Earlier> waits;
  };

  static int pick(std::mt19937& random, int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); }

  void draw_ops(std::mt19937& random) {
    const bool launches = pick(random, 3) == 0;
    parts_ = 1 + pick(random, 3);
    steps_.resize(static_cast<std::size_t>(kinds_ * (3 + pick(random, 8))));
    for (Step& step : steps_) {
      step.kind = pick(random, kinds_);
      step.op = compute_op(pick(random, 4) * 1000);
      step.op.launch = launches ? pick(random, 3) * 200 : 0;
      step.op.phase = static_cast<std::uint8_t>(pick(random, 2));
      step.op.category = static_cast<std::uint8_t>(pick(random, 2));
      if (pick(random, 2) == 0) step.op.stream = static_cast<Stream>(1 + pick(random, streams_per_rank - 1));
      if (pick(random, 3) > 0) continue;
      step.to = 1 + pick(random, ranks() - 1);
      step.op.stream = static_cast<Stream>(step.to % 3);
      step.size = bytes(pick(random, 4) * 1500);
    }
  }

  void draw_waits(std::mt19937& random) {
    // In half of the programs every op is held up by the one before, so that none falls behind more and more.
    const bool keeps_step = pick(random, 2) == 0;
    std::vector<std::int64_t> raised(signals_.size());
    const Step* before = &steps_.back();
    for (Step& step : steps_) {
      if (keeps_step) step.waits.push_back(wait(random, step, *before, done(*before), raised));
      for (int w = pick(random, 4); w > 0; --w) {
        const Step& other = steps_[static_cast<std::size_t>(pick(random, static_cast<int>(steps_.size())))];
        const std::array<std::int32_t, 3> signals = {done(other), begun(other), arrived(other)};
        const auto which = static_cast<std::size_t>(pick(random, other.to > 0 ? 3 : 2));
        step.waits.push_back(wait(random, step, other, signals[which], raised));
        step.waits.back().count -= pick(random, 6);
      }
      for (const std::int32_t signal : {done(step), begun(step), arrived(step)}) {
        if (signal >= 0) ++raised[static_cast<std::size_t>(signal)];
      }
      before = &step;
    }
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      for (const std::int64_t raises : raised) raised_before_.push_back(layer * raises);
    }
  }

  /// For what `other`, of any rank of its kind, has raised last.
  Earlier wait(std::mt19937& random, const Step& step, const Step& other, std::int32_t signal,
               const std::vector<std::int64_t>& raised) const {
    const Rank kind = other.kind + (signal == arrived(other) ? other.to : 0);  // of a rank that has the signal
    const Rank distance = (kind - step.kind + kinds_ * (pick(random, copies_) + 1)) % ranks();
    const auto stage = static_cast<WaitStage>(pick(random, 3));
    return {signal, distance, raised[static_cast<std::size_t>(signal)], stage};
  }

  std::int32_t done(const Step& step) const { return static_cast<int>(step.op.stream) * kinds_ + step.kind; }
  std::int32_t begun(const Step& step) const { return streams_per_rank * kinds_ + done(step); }
  std::int32_t arrived(const Step& step) const {
    return step.to == 0 ? -1 : (2 * streams_per_rank + step.to) * kinds_ + step.kind;
  }

  Rank kinds_, copies_;
  std::int64_t layers_, parts_ = 1;
  bool says_so_;
  std::vector<std::string> signals_;
  std::vector<Step> steps_;                  // of a layer
  std::vector<std::int64_t> raised_before_;  // by layer and signal
  std::vector<std::string> categories_ = {"attention", "transfer"};
  std::vector<std::string> phases_ = {"forward", "backward"};
};

/// First something long. Then layers of compute, after each of which a marker waits for that layer and for what is
/// long: as long as this is not over, markers of layer after layer end at the same time. At last a transfer after the
/// marker.
class LongBesideLayers : public Program {
 public:
  LongBesideLayers(std::int64_t layers, Ticks layer, Ticks longer) : layers_(layers), layer_(layer), long_(longer) {
    for (std::int64_t block = 0; block < blocks(); ++block) {
      raised_before_.insert(raised_before_.end(), {std::max<std::int64_t>(block - 1, 0), std::int64_t{block > 0}});
    }
  }

  Rank ranks() const override { return 4; }
  std::int64_t blocks() const override { return layers_ + 2; }
  std::int64_t shapes() const override { return 3; }
  std::int64_t shape(std::int64_t block) const override { return block == 0 ? 0 : block <= layers_ ? 1 : 2; }
  std::span<const std::int64_t> counts_before(std::int64_t block) const override {
    return std::span(raised_before_).subspan(static_cast<std::size_t>(block) * signals_.size(), signals_.size());
  }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return categories_; }
  std::span<const std::string> phases() const override { return phases_; }
  std::string describe(Rank, std::int64_t block, std::int32_t) const override { return fmt::format("block {}", block); }
  void partition(std::int64_t, std::vector<RankSet>& sets) const override { sets.push_back({0, 1, ranks()}); }

  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override {
    if (block == 0) {
      Op op = transfer_op(Stream::copy_in, long_);
      op.finished[0] = {rank, long_over};
      buffer.add(op);
    } else if (block <= layers_) {
      Op compute = compute_op(layer_);
      compute.finished[0] = {rank, computed};
      buffer.add(compute);
      Op marker = transfer_op(Stream::copy_out);
      marker.wait_for({rank, computed}, block);
      marker.wait_for({rank, long_over}, 1);
      buffer.add(marker);
    } else {
      buffer.add(transfer_op(Stream::copy_out, long_));
    }
  }

 private:
  enum Signal : std::int32_t { computed, long_over };
  std::int64_t layers_;
  Ticks layer_, long_;
  std::vector<std::int64_t> raised_before_;  // by block and signal
  std::vector<std::string> signals_ = {"computed", "long_over"};
  std::vector<std::string> categories_ = {"attention", "transfer"};
  std::vector<std::string> phases_ = {"forward"};
};

/// Links between all ranks, alike for ranks of a kind; a detour is always longer.
Cluster alike_mesh(Rank ranks, Rank kinds) {
  return mesh_of(ranks, [&](Rank a, Rank b) {
    const Rank apart = std::min(a - b, ranks - (a - b)), of_kinds = a % kinds + b % kinds;
    return std::pair(1.0 + (3 * apart + of_kinds) % 5, 1 + 0.1 * ((apart + of_kinds) % 10));
  });
}

}  // namespace

TEST_CASE("On random programs of ranks that are alike the lumped engine gives what the others give") {
  int jumped = 0, split_by_slow_ranks = 0, split_by_links = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    INFO("seed " << seed);
    const Rank kinds = 1 + static_cast<Rank>(seed % 4), copies = kinds == 4 ? 4 : 4 + 2 * static_cast<Rank>(seed % 2);
    const std::int64_t layers = 1 + seed % 23;
    const AlikeProgram program(seed, kinds, copies, layers, seed % 5 > 0);
    // Where all ranks do the same, those of even and of odd numbers may still have other links.
    const Rank link_kinds = kinds == 1 && seed % 8 == 0 ? 2 : kinds;
    const Cluster cluster = alike_mesh(program.ranks(), link_kinds);
    // All of a kind, or every second of it.
    std::vector<Perturbation::SlowRank> slow;
    const Rank apart = kinds * (1 + static_cast<Rank>(seed % 3 % 2));
    for (Rank rank = static_cast<Rank>(seed) % kinds; seed % 3 > 0 && rank < program.ranks(); rank += apart)
      slow.push_back({rank, 0.6});
    const Perturbation perturbation(program.ranks(), {}, slow);
    const auto run = [&](Engine engine) {
      const SimulationResult result = simulate(program, cluster, {.engine = engine, .perturbation = &perturbation});
      CHECK(result.engine == engine);
      return result;
    };
    const SimulationResult events = run(Engine::event), lumped = run(Engine::lumped);
    check_same(events, run(Engine::dependency));
    check_same(events, lumped);
    const std::uint64_t of_classes = program.ops() * static_cast<std::uint64_t>(std::max(apart, link_kinds) / kinds);
    CHECK(lumped.events <= of_classes);
    jumped += lumped.events < of_classes ? 1 : 0;
    split_by_slow_ranks += apart > kinds ? 1 : 0;
    split_by_links += link_kinds > kinds ? 1 : 0;
  }
  CHECK(jumped > 40);
  CHECK(split_by_slow_ranks > 50);
  CHECK(split_by_links > 30);
}

TEST_CASE("Layers are jumped over only once what stands still lies behind all that moves") {
  constexpr std::int64_t layers = 60;
  constexpr Ticks layer = 10 * us, longer = 255 * us;
  const LongBesideLayers program(layers, layer, longer);
  const Cluster cluster = star(program.ranks(), gigabytes_per_second(1));
  const SimulationResult lumped = simulate(program, cluster, {.engine = Engine::lumped});
  CHECK(lumped.end == layers * layer + longer);  // the transfer begins with the last marker, after the last layer
  check_same(lumped, simulate(program, cluster, {.engine = Engine::event}));
  CHECK(lumped.events < 2 * layers);  // of one class; so it jumped
}
