#include "cost_models/nccl_channels.hpp"

#include "cost_models/fit_links.hpp"
#include "tests/catch.hpp"

using namespace orrery;

namespace {
constexpr double mib = 1024 * 1024;
int channels(int most, int ranks, double bytes) {
  return nccl_send_recv_channels(most, ranks, Bytes::from_si(bytes));
}
}  // namespace

TEST_CASE(
    "each of n peers gets an n-th of NCCL's channels, twice as many from 16 MiB a channel on, and four times at most") {
  CHECK(channels(32, 2, mib) == 16);
  CHECK(channels(32, 4, mib) == 8);
  CHECK(channels(32, 8, mib) == 4);
  CHECK(channels(32, 4, 8 * 16 * mib) == 8);
  CHECK(channels(32, 4, 1.01 * 8 * 16 * mib) == 16);
  CHECK(channels(32, 4, 1.01 * 16 * 16 * mib) == 32);
  CHECK(channels(32, 8, 1e12) == 16);
  CHECK(channels(1, 4, 1e12) == 1);
}

TEST_CASE("times over so many channels are those of two ranks whose limit makes NCCL use that number") {
  MeasuredKernels kernels;
  const auto add = [&](int limit, double seconds) {
    kernels.links.push_back({"link",
                             "nccl",
                             "send_recv " + std::to_string(limit) + " channels",
                             {mib, 1000 * mib},
                             {seconds, 100 * seconds},
                             "test"});
  };
  add(2, 4e-6);
  add(4, 3e-6);
  add(8, 2e-6);
  const auto tables = send_recv_by_channels(kernels, "link");
  // A limit of 2, 4 or 8 means 1, 2 or 4 channels for 1 MiB between two ranks, and all of them for 1000 MiB.
  REQUIRE(tables.contains(4));
  CHECK(tables.at(4).bytes == std::vector<double>{mib, 1000 * mib});
  REQUIRE(tables.at(4).seconds.size() == 2);
  CHECK_THAT(tables.at(4).seconds[0], WithinRel(2e-6, 1e-12));
  CHECK_THAT(tables.at(4).seconds[1], WithinRel(3e-4, 1e-12));
  REQUIRE(tables.at(1).seconds.size() == 1);
  CHECK_THAT(tables.at(1).seconds[0], WithinRel(4e-6, 1e-12));
  REQUIRE(tables.at(8).seconds.size() == 1);
  CHECK_THAT(tables.at(8).seconds[0], WithinRel(2e-4, 1e-12));
  // Of four ranks a limit of 8 channels leaves 2 for 1 MiB, as a limit of 4 does of two.
  const auto named = [&](const char* name) { return send_recv_named(name, Bytes::from_si(mib), kernels, "link"); };
  REQUIRE(named("send_recv 8 channels 4 ranks").has_value());
  CHECK_THAT(named("send_recv 8 channels 4 ranks")->si(), WithinRel(3e-6, 1e-12));
  CHECK_THAT(named("send_recv 8 channels")->si(), WithinRel(2e-6, 1e-12));
  CHECK_THAT(named("send_recv 16 ranks")->si(), WithinRel(3e-6, 1e-12));  // 32 channels for sixteen
  CHECK_FALSE(named("send_recv").has_value());                            // 16 channels: nobody measured them
  CHECK_FALSE(named("all_reduce 4 ranks").has_value());
  // More bytes over as many channels take no less, whatever another limit's row says.
  kernels.links.clear();
  add(8, 2e-4);  // 4 channels for 1 MiB
  add(4, 1e-6);  // 4 channels for 1000 MiB, in 100 times the time
  CHECK(send_recv_by_channels(kernels, "link").at(4).seconds == std::vector<double>{2e-4, 2e-4});
}

TEST_CASE("a longer message is never faster in a table, but where NCCL doubles its channels") {
  // 16 channels up to 16 x 16 MiB between two ranks: noise before, a true step behind.
  const double sizes[] = {1, 2, 4, 8, 255, 257}, times[] = {10, 9, 12, 14, 400, 300};
  std::vector<MeasuredKernel> messages;
  for (int i = 0; i < 6; ++i) {
    MeasuredKernel& m = messages.emplace_back();
    m.kind = MeasuredKernel::Kind::message;
    m.family = "link nccl send_recv", m.link = "link", m.mechanism = "nccl", m.op = "send_recv";
    m.bytes = Bytes::from_si(sizes[i] * mib);
    m.work = sizes[i] * mib;
    m.time = Seconds::from_si(times[i] * 1e-6);
  }
  MeasuredRows rows;
  for (const MeasuredKernel& m : messages) rows.push_back(&m);
  const std::vector<LinkTable> tables = tabulate_links(rows);
  REQUIRE(tables.size() == 1);
  CHECK(tables[0].time(Bytes::from_si(2 * mib)).si() == Approx(10e-6));
  CHECK(tables[0].time(Bytes::from_si(255 * mib)).si() == Approx(400e-6));
  CHECK(tables[0].time(Bytes::from_si(257 * mib)).si() == Approx(300e-6));
}

TEST_CASE("thread blocks in clusters of four may leave three idle SMs in each of eight processing clusters unused") {
  CHECK(idle_sms_for_nccl(8) == 8 + 3 * 8);
}
