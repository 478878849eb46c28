#include "cost_models/link_table.hpp"

#include "tests/catch.hpp"

using namespace orrery;

namespace {
const LinkTable table{"link", "nccl", "send_recv", {1e3, 1e6, 4e6}, {5e-6, 8e-6, 20e-6}, "test"};
double time(double bytes) {
  return table.time(Bytes::from_si(bytes)).si();
}
}  // namespace

TEST_CASE("a link table returns its knots and straight lines between them") {
  CHECK_THAT(time(1e3), WithinRel(5e-6, 1e-12));
  CHECK_THAT(time(1e6), WithinRel(8e-6, 1e-12));
  CHECK_THAT(time(2.5e6), WithinRel(14e-6, 1e-12));
}

TEST_CASE("below the table a message takes the shortest time, above it the last line goes on") {
  CHECK(time(1) == 5e-6);
  CHECK_THAT(time(7e6), WithinRel(32e-6, 1e-12));
  CHECK_THAT(table.last_rate().si(), WithinRel(3e6 / 12e-6, 1e-12));
  CHECK(table.measured(Bytes::from_si(4e6)));
  CHECK_FALSE(table.measured(Bytes::from_si(5e6)));
}

TEST_CASE("a table of one size goes at the rate of that message") {
  const LinkTable one{"link", "copy_engine", "peer_copy both", {4e6}, {20e-6}, "test"};
  CHECK_THAT(one.last_rate().si(), WithinRel(4e6 / 20e-6, 1e-12));
  CHECK(one.time(Bytes::from_si(1e6)).si() == 20e-6);
}
