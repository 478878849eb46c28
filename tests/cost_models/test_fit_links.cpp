// Tables of messages from measured rows.
#include "cost_models/fit_links.hpp"

#include <fmt/format.h>

#include <cmath>

#include "cost_models/nccl_channels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/known_rows.hpp"

using namespace orrery;

TEST_CASE("a kind of message has a table from six sizes on that are fitted") {
  const auto tables = [](std::size_t sizes) {
    std::string text = "gpu,link,mechanism,op,pattern,channels,bytes,time_us,status\n";
    for (std::size_t i = 1; i <= sizes; ++i)
      text += fmt::format("h,host,copy_engine,peer_copy,one,,{},{},ok\n", i * 4096, i);
    const std::vector<MeasuredKernel> messages = rows_of_text(text);
    MeasuredRows rows;
    for (const MeasuredKernel& row : messages) rows.push_back(&row);
    return tabulate_links(rows).size();
  };
  CHECK(tables(5) == 0);
  CHECK(tables(6) == 1);
}

TEST_CASE("a message size that two files have is one knot of its table, with the mean of their times") {
  std::string text = "gpu,link,mechanism,op,pattern,channels,bytes,time_us,status\n";
  for (const int file : {1, 2}) {
    for (int i = 1; i <= 27; ++i) {
      text += fmt::format("h,host,copy_engine,peer_copy,one,,{},{},ok\n", i * 4096, i * 3 + file);
    }
  }
  const KernelFit fit = fit_of(known_rows(text, "links.csv"));
  const LinkTable& table = fit.profile.kernels->links.back();
  REQUIRE(table.bytes.size() >= 9);  // the third that is fitted on
  for (std::size_t i = 0; i < table.bytes.size(); ++i) {
    if (i > 0) CHECK(table.bytes[i] > table.bytes[i - 1]);
    CHECK_THAT(table.seconds[i], WithinRel((table.bytes[i] / 4096 * 3 + 1.5) * 1e-6, 1e-9));
  }
}

TEST_CASE("a message takes the channels that NCCL gives it: its table jumps where their number doubles") {
  const double start = 5e-6, rate = 20e9;  // of a channel
  // Between four ranks a limit of 4 means one channel up to 16 MiB, two up to 32 and then four; none of these sizes has
  // two. Between two ranks a limit of 2 means one and then two.
  for (const auto& [limit, ranks] : {std::pair(2, 2), std::pair(4, 4)}) {
    std::string text = "gpu,link,mechanism,op,channels,ranks,bytes,time_us,status\n";
    for (double bytes = 1 << 20; bytes < 2e9; bytes *= std::sqrt(2)) {
      const int used = nccl_send_recv_channels(limit, ranks, Bytes::from_si(bytes));
      const double size = std::round(bytes);
      text += fmt::format("h,nvlink4,nccl,send_recv,{},{},{:.0f},{:.9},ok\n", limit, ranks, size,
                          1e6 * (start + size / rate / used));
    }
    const KernelFit fit = fit_of(known_rows(text, "links.csv"));
    const LinkTable& table = fit.profile.kernels->links.back();
    for (const MeasuredKernel& row : rows_of_text(text)) {
      INFO(row.shape);
      CHECK_THAT(table.time(row.bytes).si(), WithinRel(row.time.si(), 1e-6));
    }
  }
}
