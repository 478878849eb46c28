// A Program is all ops of all ranks with their dependencies. It is *generated*, block by block, while the simulation
// runs, so that memory does not grow with ranks x layers x steps.
//
// Order within a rank: every op sits on one in-order stream. Order between streams and ranks: counting signals
// (timeline semaphores). An op may wait until a signal has been raised n times, and raises signals itself. Since
// streams are in order, a generator can compute every n from (layer, step) alone; nobody has to hold a reference to
// another op.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/units.hpp"

namespace orrery {

using Rank = std::int32_t;

/// In-order queues of one rank. Ops on different streams run at the same time if nothing else orders them.
/// `network` is the second communicator of hierarchical schedules: their transfers between nodes. `copy_in` is for
/// programs whose receivers pull; the schedules in scenarios/ push, so they leave it idle.
enum class Stream : std::uint8_t { compute, copy_out, copy_in, collective, network };
inline constexpr int streams_per_rank = 5;
std::string_view name_of(Stream stream);

/// Where in an op's life a wait is checked.
///   start     before the op begins
///   transfer  after it began, before its messages leave (a rendezvous: the peer's kernel must be running too)
///   finish    after its messages were delivered, before the op ends (a receive inside the same kernel)
enum class WaitStage : std::uint8_t { start, transfer, finish };

struct SignalRef {
  Rank rank = -1;  // -1: no signal
  std::int32_t signal = 0;
};

/// Holds the op back until `signal` of `rank` has been raised at least `count` times.
struct Wait {
  SignalRef signal;
  WaitStage stage = WaitStage::start;
  std::int64_t count = 0;
};

/// Bytes that travel from one rank's memory to another's; becomes a flow on the links between them.
struct Message {
  Rank source = -1;
  Rank destination = -1;
  Bytes size;           // whole bytes: sums of fractions would depend on the order in which engines add them
  SignalRef delivered;  // raised when the last byte has arrived
};

/// One compute kernel or one transfer. Without duration and messages it is a marker: it takes no time, but waits and
/// signals like any other op.
struct Op {
  static constexpr int max_waits = 6;
  static constexpr int max_signals = 2;

  Stream stream = Stream::compute;
  std::uint8_t category = 0;  // index into Program::categories(), for accounting only
  std::uint8_t phase = 0;     // index into Program::phases(), for accounting only
  std::uint8_t wait_count = 0;
  std::int32_t message_count = 0;  // messages leave at the same time; the op ends when all are delivered
  std::int64_t first_message = 0;  // index into OpBuffer::messages while generating
  std::int64_t block = 0;          // set by OpBuffer; (rank, block, index) names an op for Program::describe
  std::int32_t index = 0;

  Ticks launch = 0;    // host time to issue the op; the host issues a rank's ops in order and never waits for the GPU
  Ticks duration = 0;  // compute: run time with the whole GPU. transfer: start-up time before the first byte leaves
  Bytes hbm_traffic;   // compute: bytes moved from and to HBM in that time
  /// transfer: streaming multiprocessors held on the issuing rank from start to finish.
  /// compute: how many SMs' worth of speed it loses while transfers hold any, if that is more than they hold (whole
  /// waves of thread blocks).
  double sms = 0;
  /// compute: how many times as long the bytes of transfers that hold SMs take, from or to this rank, while it runs:
  /// thread blocks that copy have so much in flight and wait for a busy memory.
  double slows_transfers = 1;

  std::array<Wait, max_waits> waits;
  SignalRef started;                            // raised when the op begins
  std::array<SignalRef, max_signals> finished;  // raised when the op ends

  /// Appends a wait. Throws std::logic_error beyond max_waits.
  void wait_for(SignalRef signal, std::int64_t count, WaitStage stage = WaitStage::start);
};

/// Receives the ops of one block in the order in which the host issues them.
class OpBuffer {
 public:
  void begin(std::int64_t block);
  /// Adds `op` with its messages; sets block, index, first_message and message_count.
  void add(const Op& op, std::span<const Message> messages = {});

  std::span<const Op> ops() const { return ops_; }
  std::span<const Message> messages_of(const Op& op) const;

 private:
  std::int64_t block_ = 0;
  std::vector<Op> ops_;
  std::vector<Message> messages_;
};

/// The ranks first, first + stride, ..., `count` of them.
struct RankSet {
  Rank first = 0;
  Rank stride = 1;
  Rank count = 1;

  Rank operator[](Rank i) const { return first + i * stride; }
  bool contains(Rank rank) const {
    return rank >= first && (stride == 1 ? rank - first : (rank - first) / stride) < count &&
           (stride == 1 || (rank - first) % stride == 0);
  }
};

/// What the simulator asks of a program. One virtual call generates one block: about a layer's step, some ops of all
/// streams of a rank in the order in which the host issues them. All functions are pure; blocks are asked for again
/// when they are no longer at hand.
///
/// Programs repeat themselves, over ranks and over layers, and say so: it is what makes large ones fast. The defaults
/// claim nothing.
class Program {
 public:
  virtual ~Program() = default;
  virtual Rank ranks() const = 0;
  virtual std::int64_t blocks() const = 0;  // per rank, the same for all
  virtual std::span<const std::string> signals() const = 0;
  virtual std::span<const std::string> categories() const = 0;
  virtual std::span<const std::string> phases() const = 0;
  virtual void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const = 0;
  /// A short name for a trace or an error message: "layer 3 step 5 attention".
  virtual std::string describe(Rank rank, std::int64_t block, std::int32_t index) const = 0;

  /// Splits all ranks into sets whose ops in `block` are the same but for a shift: every rank number in an op of
  /// set[i] is that in the op of set[0] plus set[i] - set[0], modulo ranks().
  virtual void partition(std::int64_t block, std::vector<RankSet>& sets) const;

  /// Blocks of the same shape have the same partition and the same ops but for the counts of their waits: these are a
  /// constant above counts_before(block), by signal (the raises of a rank's signals before this stretch of blocks;
  /// empty: all zero). Shapes are numbered from 0 to shapes() - 1.
  virtual std::int64_t shapes() const { return blocks(); }
  virtual std::int64_t shape(std::int64_t block) const { return block; }
  virtual std::span<const std::int64_t> counts_before(std::int64_t) const { return {}; }
};

}  // namespace orrery
