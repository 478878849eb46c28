// simulate(): how long a program takes on a cluster, and who waited for what.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/faults.hpp"
#include "sim/perturbation.hpp"
#include "sim/program.hpp"
#include "sim/units.hpp"

namespace orrery {

/// An op as it ran.
struct Span {
  Rank rank = 0;
  Stream stream = Stream::compute;
  std::uint8_t category = 0;
  std::uint8_t phase = 0;
  std::int32_t index = 0;
  std::int64_t block = 0;
  Ticks start = 0;
  Ticks end = 0;
};

/// A stretch of time during which the flows on a link, and so its rate, did not change.
struct LinkSpan {
  LinkId link = 0;
  std::int32_t flows = 0;
  BytesPerSecond rate;
  Ticks start = 0;
  Ticks end = 0;
};

/// Receives spans in batches while the simulation runs, ordered by end time within a stream and within a link.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void ops(std::span<const Span> spans) = 0;
  virtual void links(std::span<const LinkSpan> spans) = 0;
};

/// Time accounts of one rank. compute + exposed_comm + idle = SimulationResult::end, exactly.
/// A message is under way from the start of its transfer op (so start-up, a rendezvous and latency count) until it is
/// delivered; sent by an op on the compute stream, from when it leaves. Start-up alone counts for the issuing rank.
struct RankTotals {
  Ticks compute = 0;       // at least one compute op of this rank runs
  Ticks comm = 0;          // at least one message from or to this rank is under way, see below
  Ticks exposed_comm = 0;  // as comm, and no compute op of this rank runs
  Ticks idle = 0;          // neither
  Bytes sent;
  Bytes received;
  std::array<Ticks, streams_per_rank> stream_busy{};
  std::vector<Ticks> category_busy;  // by Program::categories()
};

/// First start, last end and sums over ranks of one phase.
struct PhaseTotals {
  Ticks start = 0;
  Ticks end = 0;
  Seconds compute_busy;  // summed over ranks, which may be more than ticks can count
  Seconds comm_busy;     // summed over ranks, op time on all other streams
};

struct LinkTotals {
  Bytes bytes;
  Ticks busy = 0;  // at least one flow
};

/// The chain of ops, each started by the end of the one before, that ends last. The parts add up to
/// SimulationResult::end.
struct CriticalPath {
  std::vector<Ticks> by_category;  // uncontended time of the ops on the chain
  Ticks contention = 0;            // what sharing links, SMs or HBM added to them
  Ticks launch = 0;                // waiting for the host to issue
};

/// How to find the finish times. All give the same ones, where they apply.
///   event       every start and end is an event; for everything
///   dependency  times follow from the waits alone; if nothing slows anything else down
///   lumped      the same, once for all ranks that are alike
///   automatic   the cheapest that applies
enum class Engine : std::uint8_t { automatic, event, dependency, lumped };
std::string_view name_of(Engine engine);

struct SimulationResult {
  Engine engine = Engine::event;
  std::string engine_reason;  // why none that is cheaper
  Ticks end = 0;
  std::vector<RankTotals> ranks;
  std::vector<PhaseTotals> phases;
  std::vector<LinkTotals> links;
  CriticalPath critical_path;
  std::uint64_t events = 0;  // of the event engine; else ops worked off
};

/// Thrown when ops are left that can never start. The message names the waiting ops (the first dozen) and, for each,
/// the signal, its rank, the count it has and the count that is wanted.
struct DeadlockError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Runs `program` on `cluster`. Contention:
///   links   a flow gets its max-min fair share of every link on its route, per direction
///   SMs     transfers that hold m of S SMs leave the rank's compute op the fraction (S - m) / S
///           (a whole SM is always left; compute ops are those on Stream::compute)
///   HBM     messages in and out of a rank at rate x in all slow its compute op to 1 - w * x / B of its speed, where w
///   is 0
///           for an op that asks for at most half of the HBM bandwidth B, 1 for one that asks for all of it, and linear
///           in between (a hundredth is always left)
/// The slower of the two counts. Messages of an op on Stream::compute leave when its duration is over.
/// An op alone takes exactly its rounded duration; a message alone round(start-up) + round(latency) + round(size /
/// bandwidth) ticks. Throws DeadlockError, or std::overflow_error beyond 2^63 ticks.
struct SimulationOptions {
  Engine engine = Engine::automatic;
  SpanSink* sink = nullptr;                    // only the event engine has spans to give
  const Perturbation* perturbation = nullptr;  // none: every op takes what it takes
  const Faults* faults = nullptr;              // none, or some
};

/// Throws std::invalid_argument, with the reason, if the engine asked for does not apply.
SimulationResult simulate(const Program& program, const Cluster& cluster, const SimulationOptions& options);
SimulationResult simulate(const Program& program, const Cluster& cluster, SpanSink* sink = nullptr);

}  // namespace orrery
