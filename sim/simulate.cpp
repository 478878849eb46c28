#include "sim/simulate.hpp"

#include "sim/block_store.hpp"
#include "sim/event_engine.hpp"

namespace orrery {

SimulationResult simulate(const Program& program, const Cluster& cluster, SpanSink* sink) {
  BlockStore blocks(program, cluster);
  return EventEngine(blocks, cluster, sink).run();
}

}  // namespace orrery
