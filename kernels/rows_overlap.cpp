// Group `overlap`: how much a kernel and a transfer slow each other. Each side is timed alone, then inside a run of the
// other that starts before it and ends after it, so both slow-downs come from an interval that overlaps wholly.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "kernels/cluster.hpp"
#include "kernels/overlap_sides.hpp"
#include "kernels/table.hpp"
#include "kernels/workload.hpp"

namespace orrery {
namespace {

class Pair {
 public:
  Pair(int ranks, bool transfer_first, StartGate& gate) : ranks_(ranks), gate_(gate) {
    for (int r = 0; r < ranks; ++r) {
      OnDevice on(r);
      compute_.emplace_back();
      // NCCL's kernels get the higher priority, or a GPU full of compute starves them. Copies inside one GPU do not:
      // the driver may run them as kernels that would starve the compute.
      transfer_.emplace_back(transfer_first);
      for (auto* events : {&start_, &end_, &outer_end_, &first_done_}) events->emplace_back();
      stamps_.emplace_back(2 * sizeof(ClockStamp));
    }
  }

  struct Time {
    double us = 0, clock_mhz = 0;
    bool covered = true;
  };

  // Per launch of `side`; with `around`, inside a run of it of `around_count` launches.
  Time run(const Side& side, int count, const Side* around, int around_count) {
    const std::vector<Stream>&inner_ = side.is_transfer ? transfer_ : compute_,
          &outer_ = side.is_transfer ? compute_ : transfer_;
    gate_.reset();
    for (int r = 0; r < ranks_; ++r) {
      OnDevice on(r);
      if (around) gate_.hold(outer_[r]);
      gate_.hold(inner_[r]);
    }
    if (around) {
      around->queue(outer_);
      for (int r = 0; r < ranks_; ++r) {
        OnDevice on(r);
        first_done_[r].record(outer_[r]);
        ORRERY_CUDA(cudaStreamWaitEvent(inner_[r], first_done_[r], 0));
      }
      for (int i = 1; i < around_count; ++i) around->queue(outer_);
      for (int r = 0; r < ranks_; ++r) {
        OnDevice on(r);
        outer_end_[r].record(outer_[r]);
      }
    }
    for (int r = 0; r < ranks_; ++r) {
      OnDevice on(r);
      stamp_clock(stamps_[r].as<ClockStamp>(), inner_[r]);
      start_[r].record(inner_[r]);
    }
    for (int i = 0; i < count; ++i) side.queue(inner_);
    for (int r = 0; r < ranks_; ++r) {
      OnDevice on(r);
      end_[r].record(inner_[r]);
      stamp_clock(stamps_[r].as<ClockStamp>() + 1, inner_[r]);
    }
    gate_.release();
    Time out;
    for (int r = 0; r < ranks_; ++r) {
      OnDevice on(r);
      inner_[r].sync();
      outer_[r].sync();
      out.us = std::max(out.us, elapsed_us(start_[r], end_[r]) / count);
      if (around && elapsed_us(end_[r], outer_end_[r]) < 0) out.covered = false;
    }
    OnDevice on(0);
    ClockStamp s[2];
    ORRERY_CUDA(cudaMemcpy(s, stamps_[0].get(), sizeof s, cudaMemcpyDeviceToHost));
    if (s[0].sm == s[1].sm && s[1].nanoseconds > s[0].nanoseconds) {
      out.clock_mhz = 1e3 * static_cast<double>(s[1].cycles - s[0].cycles) /
                      static_cast<double>(s[1].nanoseconds - s[0].nanoseconds);
    }
    return out;
  }

 private:
  int ranks_;
  StartGate& gate_;
  std::vector<Stream> compute_, transfer_;
  std::vector<Event> start_, end_, outer_end_, first_done_;
  std::vector<DeviceBuffer> stamps_;
};

struct SideResult {
  Summary alone, both;
  double clock_alone = 0, clock_both = 0;  // 0: no sample has one
};

// Of the samples whose two stamps came from the same SM.
double median_clock(std::vector<double> clocks) {
  clocks.erase(std::remove(clocks.begin(), clocks.end(), 0.0), clocks.end());
  return clocks.empty() ? 0 : summarize(clocks).median;
}

// A row has two sides, and most a good interval after the least number of samples.
constexpr std::chrono::milliseconds kCap{1500};

SideResult slow_down(Rig& rig, Pair& pair, const Side& side, const Side& around) {
  // A rest as long as every run: at the power limit a clock that swings would be taken for what the sides do to each
  // other.
  auto paced = [&](const Side& timed, int launches, const Side* other, int other_launches) {
    const auto start = std::chrono::steady_clock::now();
    const Pair::Time time = pair.run(timed, launches, other, other_launches);
    std::this_thread::sleep_for(std::chrono::steady_clock::now() - start);
    return time;
  };
  rig.rest_after_load(0.5);
  pair.run(side, 1, nullptr, 0);
  pair.run(around, 1, nullptr, 0);
  const double side_us = pair.run(side, 2, nullptr, 0).us, around_us = pair.run(around, 2, nullptr, 0).us;
  const int count = static_cast<int>(std::min(50.0, std::max(1.0, std::ceil(3000 / side_us))));
  double factor = 1.6;
  SideResult out;
  std::vector<double> alone, both, clock_alone, clock_both;
  const auto begin = std::chrono::steady_clock::now();
  const auto enough = [&] {
    if (both.size() < rig.options.min_samples) return false;
    out.alone = summarize(alone);
    out.both = summarize(both);
    return std::max(out.alone.ci95_rel, out.both.ci95_rel) < rig.options.target_ci ||
           std::chrono::steady_clock::now() - begin > kCap;
  };
  while (!enough()) {
    const int cover = static_cast<int>(std::ceil(factor * count * side_us / around_us)) + 2;
    if (cover > 900) throw BenchError("the transfer is too short to cover the kernel");
    const Pair::Time b = paced(side, count, &around, cover);
    if (!b.covered) {
      factor *= 1.5;
      if (factor > 40) {
        throw BenchError(std::string(side.is_transfer ? "the transfer" : "the kernel") +
                         " does not end inside a run of the other side that is 40 times as long");
      }
      continue;
    }
    const Pair::Time a = paced(side, count, nullptr, 0);
    both.push_back(b.us);
    alone.push_back(a.us);
    clock_both.push_back(b.clock_mhz);
    clock_alone.push_back(a.clock_mhz);
    if (interrupted) throw Interrupted{};
  }
  out.clock_alone = median_clock(clock_alone);
  out.clock_both = median_clock(clock_both);
  return out;
}

Outcome run_overlap(Rig& rig, const std::string& kernel, const Mechanism& mechanism, int ranks) {
  const Side compute = compute_side(kernel, ranks), transfer = transfer_side(mechanism, ranks);
  Pair pair(ranks, ranks > 1, rig.gate);
  if (rig.monitor->available()) rig.monitor->begin();
  const SideResult c = slow_down(rig, pair, compute, transfer);
  const SideResult t = slow_down(rig, pair, transfer, compute);
  rig.load_ends_now();
  const GpuState state = rig.monitor->end();
  Outcome out;
  out.values = {{"transfer_bytes", format_count(transfer.bytes)},
                {"bytes", format_count(compute.bytes)},
                {"samples", std::to_string(c.both.samples)},
                {"transfer_samples", std::to_string(t.both.samples)}};
  for (const auto& [name, side] : {std::pair{"compute", &c}, {"transfer", &t}}) {
    const std::string prefix = std::string(name) + "_";
    for (const auto& [when, summary] : {std::pair{"alone", &side->alone}, {"overlapped", &side->both}}) {
      const std::string column = prefix + when;
      out.values.push_back({column + "_us", format_number(summary->median)});
      out.values.push_back({column + "_p5_us", format_number(summary->p5)});
      out.values.push_back({column + "_p95_us", format_number(summary->p95)});
    }
    out.values.push_back({prefix + "slowdown", format_number(side->both.median / side->alone.median)});
    out.values.push_back({prefix + "ci95_rel", format_number(side->both.ci95_rel)});
  }
  if (compute.flops > 0) out.values.push_back({"flops", format_count(compute.flops)});
  if (c.clock_alone > 0) out.values.push_back({"compute_clock_alone_mhz", format_number(c.clock_alone)});
  if (c.clock_both > 0) out.values.push_back({"compute_clock_overlapped_mhz", format_number(c.clock_both)});
  if (state.samples) {
    out.values.push_back({"sm_clock_mhz", format_number(state.sm_clock_mhz)});
    out.values.push_back({"power_w", format_number(state.power_w)});
    out.values.push_back({"temperature_c", format_number(state.temperature_c)});
    out.values.push_back({"throttle", describe_reasons(state.reasons)});
  }
  out.headline = c.both.median / c.alone.median;
  out.headline_unit = "x";
  return out;
}

}  // namespace

void add_overlap_rows(Table& table) {
  table.groups.push_back({"overlap",
                          "kernels and transfers at once: the slow-down of both",
                          {"gpu",
                           "link",
                           "n_gpu",
                           "kernel",
                           "mechanism",
                           "channels",
                           "compute_alone_us",
                           "compute_alone_p5_us",
                           "compute_alone_p95_us",
                           "compute_overlapped_us",
                           "compute_overlapped_p5_us",
                           "compute_overlapped_p95_us",
                           "compute_slowdown",
                           "compute_ci95_rel",
                           "compute_clock_alone_mhz",
                           "compute_clock_overlapped_mhz",
                           "transfer_alone_us",
                           "transfer_alone_p5_us",
                           "transfer_alone_p95_us",
                           "transfer_overlapped_us",
                           "transfer_overlapped_p5_us",
                           "transfer_overlapped_p95_us",
                           "transfer_slowdown",
                           "transfer_ci95_rel",
                           "transfer_bytes",
                           "samples",
                           "transfer_samples",
                           "flops",
                           "bytes",
                           "sm_clock_mhz",
                           "power_w",
                           "temperature_c",
                           "throttle",
                           "status",
                           "reason"},
                          ""});
  const bool real = table.gpus > 1;
  std::vector<Mechanism> mechanisms{{"copy_engine", 0}, {"copy_to_host", 0}};
#if ORRERY_HAVE_NCCL
  if (real) {
    for (int channels : {1, 4, 16, 32}) mechanisms.push_back({"nccl_send_recv", channels});
    mechanisms.push_back({"nccl_all_gather", 0});
  }
#endif
  for (const std::string& kernel : workload_names()) {
    for (const Mechanism& m : mechanisms) {
      if (real && m.name == "copy_to_host") continue;
      Row row;
      row.group = "overlap";
      const std::string channels = m.channels ? std::to_string(m.channels) : "auto";
      row.name = "overlap/" + kernel + "/" + m.name + (m.name.rfind("nccl", 0) == 0 ? "/c" + channels : "");
      row.what = "both sides' slow-down inside a run of the other";
      row.quick = kernel == workload_names().front() && m.name == "copy_engine";
      row.expected_s = 2.4;
      const int ranks = real ? table.gpus : 1;
      row.keys = {{"gpu", table.gpu},
                  {"link", m.name == "copy_to_host" ? "host"
                           : real                   ? table.link
                                                    : "local"},
                  {"n_gpu", std::to_string(ranks)},
                  {"kernel", kernel},
                  {"mechanism", m.name},
                  {"channels", m.name.rfind("nccl", 0) == 0 ? channels : ""}};
      row.run = [kernel, m, ranks](Rig& rig) { return run_overlap(rig, kernel, m, ranks); };
      row.prepare = [kernel, ranks](int) {
        for (int r = 0; r < ranks; ++r) prepare_workload(kernel, r);
      };
      table.rows.push_back(std::move(row));
    }
  }
}

}  // namespace orrery
