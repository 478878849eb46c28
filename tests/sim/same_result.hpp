// What it means that two engines agree.
#pragma once

#include "sim/simulate.hpp"
#include "tests/catch.hpp"

namespace orrery {

/// Everything but the number of events.
inline void check_same(const SimulationResult& a, const SimulationResult& b) {
  CHECK(a.end == b.end);
  REQUIRE(a.ranks.size() == b.ranks.size());
  for (std::size_t r = 0; r < a.ranks.size(); ++r) {
    INFO("rank " << r);
    CHECK(a.ranks[r].compute == b.ranks[r].compute);
    CHECK(a.ranks[r].comm == b.ranks[r].comm);
    CHECK(a.ranks[r].exposed_comm == b.ranks[r].exposed_comm);
    CHECK(a.ranks[r].idle == b.ranks[r].idle);
    CHECK(a.ranks[r].sent == b.ranks[r].sent);
    CHECK(a.ranks[r].received == b.ranks[r].received);
    CHECK(a.ranks[r].stream_busy == b.ranks[r].stream_busy);
    CHECK(a.ranks[r].category_busy == b.ranks[r].category_busy);
  }
  REQUIRE(a.phases.size() == b.phases.size());
  for (std::size_t p = 0; p < a.phases.size(); ++p) {
    CHECK(a.phases[p].start == b.phases[p].start);
    CHECK(a.phases[p].end == b.phases[p].end);
    CHECK(a.phases[p].compute_busy == b.phases[p].compute_busy);
    CHECK(a.phases[p].comm_busy == b.phases[p].comm_busy);
  }
  REQUIRE(a.links.size() == b.links.size());
  for (std::size_t l = 0; l < a.links.size(); ++l) {
    INFO("link " << l);
    CHECK(a.links[l].bytes == b.links[l].bytes);
    CHECK(a.links[l].busy == b.links[l].busy);
  }
  CHECK(a.critical_path.by_category == b.critical_path.by_category);
  CHECK(a.critical_path.contention == b.critical_path.contention);
  CHECK(a.critical_path.launch == b.critical_path.launch);
}

}  // namespace orrery
