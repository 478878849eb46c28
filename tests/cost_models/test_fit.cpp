// Fits on rows that a known profile produced: the constants must come back, and what rows cannot say is an error.
#include "cost_models/fit_kernels.hpp"

#include <fmt/format.h>

#include <cmath>

#include "cost_models/fit_links.hpp"
#include "cost_models/nccl_channels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

const GpuPeaks peaks{FlopsPerSecond::from_si(9.8e14), BytesPerSecond::from_si(4.8e12), 132};

FitFacts facts() {
  return {.peaks = peaks, .maximum_clock_hz = 1.98e9, .power_limit_w = 700, .idle_power_w = 120, .source = "test"};
}

/// Constants near those of a real GPU.
Profile truth() {
  Profile p = measured_profile();
  ClockModel& clock = p.kernels->clock;
  clock.maximum_clock = number(1.98e9);
  clock.burst_clock = number(1.86e9);
  clock.idle_power = number(120);
  clock.power_limit = number(700);
  clock.power_exponent = number(2.5);
  clock.busy_power = number(450);
  clock.hbm_energy = number(0);  // no copy rows here, so that the fit takes none either
  clock.tensor_flops_per_cycle = number(132 * 4096);
  for (AttentionModel& m : p.kernels->attention) {
    const bool forward = m.phase == Phase::forward;
    m.launch = number(forward ? 6e-6 : 12e-6);
    m.query_traffic = number(forward ? 0 : 18);
    m.grouped_traffic = number(forward ? 0 : 5);
    m.grouped_launch = number(forward ? 0 : 2e-6);
    m.waves_in_step = number(forward ? 1.2 : 6);
    m.list_start = number(forward ? 2500 : 8000);
    m.full_tile = number(forward ? 2650 : 7600);
    m.masked_tile = number(forward ? 4000 : 9000);
    m.masked_kernel = number(forward ? 1.01 : 1.04);
    m.power = {number(forward ? 2.4e8 : 1.2e8), number(forward ? 1050 : 1150)};
  }
  p.kernels->streams.clear();
  return p;
}

std::string csv_rows(const std::string& masks) {
  const Profile profile = truth();
  std::string text =
      "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,window,causal,regime,time_ms,sm_clock_mhz,status\n";
  for (const std::string pass : {"forward", "backward"}) {
    for (const std::string mask : {"full", "causal"}) {
      if (masks.find(mask) == std::string::npos) continue;
      for (const int n_q : {512, 2048, 8192, 16384}) {
        for (const int n_k : {512, 2048, 8192, 16384}) {
          if (mask == "causal" && n_q != n_k) continue;
          for (const int kv_heads : {32, 8}) {
            for (const std::string regime : {"burst", "sustained"}) {
              const Phase phase = pass == "forward" ? Phase::forward : Phase::backward;
              const TilePairs pairs =
                  tile_pairs({static_cast<double>(n_q), static_cast<double>(n_k), mask, 0}, 128, 128);
              const AttentionShape shape{.pairs = pairs.executed,
                                         .query_rows = static_cast<double>(n_q),
                                         .key_rows = static_cast<double>(n_k),
                                         .heads = 32,
                                         .kv_heads = static_cast<double>(kv_heads),
                                         .head_dim = 128,
                                         .masked_pairs = pairs.masked};
              const AttentionModel& model = *profile.kernels->attention_of(phase, 128);
              const KernelRun run =
                  run_kernel(attention_load(shape, model, *profile.kernels, peaks, 128, 128), profile.kernels->clock,
                             model.power, regime == "burst" ? Regime::burst : Regime::sustained);
              text += fmt::format("h200_sxm,kernel,{},32,{},128,{},{},{},,{},{},{:.9},{:.9},ok\n", pass, kv_heads, n_q,
                                  n_k, mask, mask == "causal" ? "true" : "false", regime, run.duration.si() * 1e3,
                                  run.clock_hz / 1e6);
            }
          }
        }
      }
    }
  }
  return text;
}

std::vector<MeasuredKernel> rows_of(const std::string& csv) {
  std::vector<MeasuredKernel> rows;
  add_rows(MeasuredTable::parse(csv, "made.csv"), rows);
  return rows;
}

}  // namespace

TEST_CASE("a fit finds the constants that made the rows") {
  const std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  const KernelFit fit = fit_kernels(rows, facts(), measured_profile());
  const Profile expected = truth();
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const AttentionModel& found = *fit.profile.kernels->attention_of(phase, 128);
    const AttentionModel& made = *expected.kernels->attention_of(phase, 128);
    for (const auto& constant : constants_of_attention()) {
      INFO(name_of(phase) << " " << constant.name);
      CHECK_THAT((found.*constant.member).value, WithinRel((made.*constant.member).value, 0.02));
    }
    CHECK_THAT(found.power.clock_droop.value, WithinRel(made.power.clock_droop.value, 0.05));
    CHECK_THAT(found.power.tensor_power.value, WithinRel(made.power.tensor_power.value, 0.05));
  }
  CHECK_THAT(fit.profile.kernels->clock.busy_power.value, WithinRel(450, 0.1));
  for (const HeldOutErrors& group : fit.errors) {
    INFO(group.group);
    CHECK(group.median < 1e-3);
  }
}

TEST_CASE("sustained rows that take less than the power limit say nothing of the clock at it") {
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  const std::size_t count = rows.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (rows[i].regime == Regime::sustained) continue;
    rows.push_back(rows[i]);  // as of a kernel that waits between launches, at the clock of its bursts
    rows.back().regime = Regime::sustained;
    rows.back().power = Watts::from_si(facts().power_limit_w / 2);
  }
  const Profile fitted = fit_kernels(rows, facts(), measured_profile()).profile, made = truth();
  CHECK_THAT(fitted.kernels->clock.busy_power.value, WithinRel(made.kernels->clock.busy_power.value, 0.1));
  for (const AttentionModel& model : fitted.kernels->attention) {
    const AttentionModel& of_phase = *made.kernels->attention_of(model.phase, 128);
    CHECK_THAT(model.power.tensor_power.value, WithinRel(of_phase.power.tensor_power.value, 0.05));
  }
}

TEST_CASE("a third of the shapes is fitted on, and both regimes of a shape have the same use") {
  const std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  const std::vector<RowUse> uses = split(rows);
  const auto fitted = std::count(uses.begin(), uses.end(), RowUse::fitted);
  CHECK(static_cast<double>(fitted) <= 0.4 * static_cast<double>(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < rows.size(); ++j) {
      if (rows[i].shape == rows[j].shape) CHECK(uses[i] == uses[j]);
    }
  }
}

TEST_CASE("of a family of five shapes and more no more than 40 % are fitted on, of up to three one, of four two") {
  for (std::size_t n = 1; n < 20; ++n) {
    std::vector<MeasuredKernel> rows(n);
    for (std::size_t i = 0; i < n; ++i) rows[i].work = static_cast<double>(i);
    const std::vector<RowUse> uses = split(rows);
    const auto fitted = static_cast<std::size_t>(std::count(uses.begin(), uses.end(), RowUse::fitted));
    INFO(n);
    if (n < 5) CHECK(fitted == (n < 4 ? 1 : 2));
    if (n >= 5) CHECK(5 * fitted <= 2 * n);
  }
}

TEST_CASE("coverage is that of rows that neither a constant nor the width of a band comes from") {
  Profile profile = truth();
  profile.kernels->bands.push_back({"attention forward", 0.1, 0.2, 1, 1e18, 9});
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full"));
  rows.resize(3);
  const RowUse uses[] = {RowUse::fitted, RowUse::calibration, RowUse::test};
  const auto coverage_with_off = [&](std::size_t off) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i].time = predicted_time(rows[i], peaks, profile) * (i == off ? 1.2 : 1);
    return errors_by_group(rows, uses, peaks, profile).at(0).coverage;
  };
  CHECK(coverage_with_off(0) == 1);
  CHECK(coverage_with_off(1) == 1);
  CHECK(coverage_with_off(2) == 0);
}

TEST_CASE("without masked rows the cost of a masked tile is undetermined, and the error says so") {
  const std::vector<MeasuredKernel> rows = rows_of(csv_rows("full"));
  CHECK_THROWS_WITH(fit_kernels(rows, facts(), measured_profile()),
                    ContainsSubstring("masked_tile") && ContainsSubstring("causal blocks"));
}

TEST_CASE("no efficiency is more than the peak, whatever the cache lets pass faster") {
  std::string text = "gpu,kernel,width,bytes,time_us,status\n";
  for (double bytes = 1e6; bytes < 1e9; bytes *= 2)
    text += fmt::format("h,copy_kernel,1,{:.0f},{:.9},ok\n", bytes, 1 + 1e6 * bytes / (1.5 * peaks.hbm.si()));
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  add_rows(MeasuredTable::parse(text, "elementwise.csv"), rows);
  CHECK(fit_kernels(rows, facts(), measured_profile()).profile.hbm_efficiency.value == 1);
}

TEST_CASE("a flush before some rows of a stream does not change its rate") {
  // 4 TB/s and 2 us, behind a flush half of 50 MB more to write.
  constexpr double launch = 2e-6, rate = 4e12, cache = 5e7;
  std::string text = "gpu,kernel,width,bytes,cache,launches_per_sample,time_us,status\n";
  for (double bytes = 1e6; bytes < 8e9; bytes *= 2) {
    const int launches = bytes < 1e9 ? 4 : 1;
    const double flushed = bytes > 2e8 ? cache / 2 / launches : 0;
    text += fmt::format("h,copy_kernel,1,{:.0f},{},{},{:.9},ok\n", bytes,
                        flushed == 0    ? "rotated"
                        : launches == 1 ? "flushed"
                                        : "flushed_per_sample",
                        launches, 1e6 * (launch + (bytes + flushed) / rate));
  }
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  add_rows(MeasuredTable::parse(text, "elementwise.csv"), rows);
  FitFacts known = facts();
  known.cache = Bytes::from_si(cache);
  const StreamModel& copy = *fit_kernels(rows, known, measured_profile()).profile.kernels->stream_of("copy_kernel");
  CHECK_THAT(copy.bandwidth.value, WithinRel(rate, 1e-3));
  CHECK_THAT(copy.launch.value, WithinRel(launch, 1e-2));
}

TEST_CASE("a kind of message has a table from six sizes on that are fitted") {
  const auto tables = [](std::size_t sizes) {
    std::string text = "gpu,link,mechanism,op,pattern,channels,bytes,time_us,status\n";
    for (std::size_t i = 1; i <= sizes; ++i)
      text += fmt::format("h,host,copy_engine,peer_copy,one,,{},{},ok\n", i * 4096, i);
    const std::vector<MeasuredKernel> messages = rows_of(text);
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
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  add_rows(MeasuredTable::parse(text, "links.csv"), rows);
  const KernelFit fit = fit_kernels(rows, facts(), measured_profile());
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
    std::vector<MeasuredKernel> messages = rows_of(text), all = rows_of(csv_rows("full causal"));
    all.insert(all.end(), messages.begin(), messages.end());
    const KernelFit fit = fit_kernels(all, facts(), measured_profile());
    const LinkTable& table = fit.profile.kernels->links.back();
    for (const MeasuredKernel& row : messages) {
      INFO(row.shape);
      CHECK_THAT(table.time(row.bytes).si(), WithinRel(row.time.si(), 1e-6));
    }
  }
}

TEST_CASE("a row that takes a hundred times what the others say is no row of theirs, and the error names it") {
  for (const double factor : {100.0, 0.01}) {
    std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
    rows[20].time = rows[20].time * factor;
    CHECK_THROWS_WITH(fit_kernels(rows, facts(), measured_profile()),
                      ContainsSubstring(rows[20].place) && ContainsSubstring("in the unit of its column"));
  }
}

TEST_CASE("a held-out row that is off by more than twice is named, one of another machine refused from ten times on") {
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  const MachineRows others{{"another", rows}};
  const std::vector<RowUse> uses = split(rows);
  const auto held_out = static_cast<std::size_t>(
      std::find_if(uses.begin(), uses.end(), [](RowUse use) { return use != RowUse::fitted; }) - uses.begin());
  const auto noted = [&](double factor) {
    std::vector<MeasuredKernel> off = rows;
    off[held_out].time = off[held_out].time * factor;
    std::string text;
    for (const HeldOutErrors& e : fit_kernels(off, facts(), measured_profile()).errors) text += e.far_off;
    return text;
  };
  CHECK(noted(1.9).empty());
  for (const double factor : {2.1, 1 / 2.1}) CHECK_THAT(noted(factor), ContainsSubstring(rows[held_out].place + ": "));
  MachineRows wrong = others;
  wrong["another"][held_out].time = rows[held_out].time * 100;
  CHECK_NOTHROW(fit_kernels(rows, facts(), measured_profile(), others));
  CHECK_THROWS_WITH(fit_kernels(rows, facts(), measured_profile(), wrong), ContainsSubstring(rows[held_out].place));
}

TEST_CASE("where times and clocks contradict each other the error says so, and asks for no more rows") {
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  for (MeasuredKernel& row : rows) row.clock_hz *= 1.5;  // beyond the maximum
  CHECK_THROWS_WITH(fit_kernels(rows, facts(), measured_profile()),
                    ContainsSubstring("in the units of their columns") && !ContainsSubstring("measure"));
}

TEST_CASE("rows that no constants explain contradict each other") {
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].time = rows[i].time * (i % 4 < 2 ? 1 : 4);
  CHECK_THROWS_WITH(fit_kernels(rows, facts(), measured_profile()), ContainsSubstring("contradict"));
}

namespace {

/// A block of 32 heads, as `model` has it: what a row of a file says of it.
std::string csv_row(const Profile& profile, const AttentionModel& model, const MaskShape& mask,
                    Regime regime = Regime::burst) {
  const TilePairs pairs = tile_pairs(mask, 128, 128);
  const AttentionShape shape{.pairs = pairs.executed,
                             .query_rows = mask.n_q,
                             .key_rows = mask.n_k,
                             .heads = 32,
                             .kv_heads = 32,
                             .head_dim = static_cast<double>(model.head_dim),
                             .masked_pairs = pairs.masked,
                             .pairs_beyond = pairs.beyond,
                             .window = mask.mask == "window"};
  const KernelRun run = run_kernel(attention_load(shape, model, *profile.kernels, peaks, 128, 128),
                                   profile.kernels->clock, model.power, regime);
  return fmt::format("h200_sxm,kernel,{},32,32,{},{},{},{},{},{},{},{:.9},{:.9},ok\n", name_of(model.phase),
                     model.head_dim, mask.n_q, mask.n_k, mask.mask, shape.window ? fmt::format("{}", mask.window) : "",
                     mask.mask == "full" ? "false" : "true", regime == Regime::burst ? "burst" : "sustained",
                     run.duration.si() * 1e3, run.clock_hz / 1e6);
}
std::string csv_row(const Profile& profile, const AttentionModel& model, double n, double window,
                    Regime regime = Regime::burst) {
  return csv_row(profile, model, {n, n, window > 0 ? "window" : "full", window}, regime);
}

}  // namespace

TEST_CASE("windows of several widths say what their tiles cost, and the start and end of their lists") {
  Profile profile = truth();
  std::string text = csv_rows("full causal");
  for (AttentionModel& m : profile.kernels->attention) {
    m.window_kernel = number(1.1);
    m.window_start = number(1500);
    m.guarded_window = number(900);
    // A third of them is fitted on.
    for (int width = 256; width <= 1280; width += 128) text += csv_row(profile, m, 16384, width);
    for (const double n : {8352.0, 8416.0, 12320.0, 12352.0, 16416.0, 16480.0}) text += csv_row(profile, m, n, 512);
  }
  const KernelFit several = fit_kernels(rows_of(text), facts(), measured_profile());
  for (const AttentionModel& m : several.profile.kernels->attention) {
    CHECK_THAT(m.window_kernel.value, WithinRel(1.1, 1e-3));
    CHECK_THAT(m.window_start.value, WithinRel(1500, 2e-2));
    CHECK(m.window_launch.value == 0);  // blocks of 16K tokens hide it
    CHECK_THAT(m.guarded_window.value, WithinRel(900, 2e-2));
  }
}

TEST_CASE("rectangles under a mask say whether a kernel skips what is masked, and what that or not doing so takes") {
  Profile profile = truth();
  AttentionModel& forward = profile.kernels->attention.front();
  AttentionModel& backward = profile.kernels->attention.back();
  forward.rectangle_start = number(900);
  backward.rectangle_edge = number(800);
  std::string text = csv_rows("full causal");
  for (const AttentionModel* model : {&forward, &backward}) {
    for (const double n : {2048.0, 4096.0, 8192.0, 16384.0}) {
      for (const double more : {1024.0, 2048.0, 4096.0}) {
        text += csv_row(profile, *model, {n, n + more, "causal", 0}) +
                csv_row(profile, *model, {n, n + more, "window", more});
      }
    }
  }
  const Profile fitted = fit_kernels(rows_of(text), facts(), measured_profile()).profile;
  CHECK_THAT(fitted.kernels->attention.front().rectangle_start.value, WithinRel(900, 2e-2));
  CHECK(fitted.kernels->attention.front().rectangle_edge.value == 0);
  CHECK_THAT(fitted.kernels->attention.back().rectangle_edge.value, WithinRel(800, 2e-2));
  CHECK(fitted.kernels->attention.back().rectangle_start.value == 0);
  // Without such rows both are taken to be nothing.
  const Profile without = fit_kernels(rows_of(csv_rows("full causal")), facts(), measured_profile()).profile;
  for (const AttentionModel& model : without.kernels->attention) {
    CHECK(model.rectangle_edge.value == 0);
    CHECK(model.rectangle_edge.provenance == Provenance::assumed);
  }
}

TEST_CASE(
    "the launch of a window's kernel shows where blocks are short, and stays others' where it would be beyond reason") {
  const auto fitted_launch = [](double launch) {
    Profile profile = truth();
    std::string text = csv_rows("full causal");
    for (AttentionModel& m : profile.kernels->attention) {
      m.window_kernel = number(1.1);
      m.window_start = number(1500);
      m.window_launch = number(launch);
      for (const double n : {512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0}) {
        for (const double width : {128, 256, 512, 1024}) text += csv_row(profile, m, n, width);
      }
    }
    return fit_kernels(rows_of(text), facts(), measured_profile())
        .profile.kernels->attention.front()
        .window_launch.value;
  };
  CHECK_THAT(fitted_launch(2e-6), WithinRel(2e-6, 0.02));
  CHECK(fitted_launch(9e-6) == 0);  // 5 us at most
}

TEST_CASE(
    "products whose rows are not aligned have efficiencies of their own, by layout, and change no other constant") {
  Profile profile = truth();
  GemmModel& model = profile.kernels->gemm.emplace();
  model.launch = number(4e-6);
  model.efficiency = number(0.9);
  model.tile_ends = number(200);
  model.operand_rate = number(70);
  model.even_rows_forward = number(0.3);
  model.odd_rows_backward = number(0.15);
  model.power = {number(1e8), number(1600)};
  std::string text = "gpu,model,layer,pass,tokens,in,out,data,time_us,sm_clock_mhz,power_w,regime,status\n";
  const auto add = [&](double tokens, double in, double out, const std::string& pass, Regime regime) {
    const Phase phase = pass == "forward" ? Phase::forward : Phase::backward;
    const MatrixProduct product =
        phase == Phase::forward ? MatrixProduct{tokens, out, in} : MatrixProduct{tokens, in, out};
    const KernelRun run =
        run_kernel(gemm_load({.products = {product}, .row_alignment = row_alignment({in, out}, 2), .phase = phase},
                             model, *profile.kernels, peaks),
                   profile.kernels->clock, model.power, regime);
    text += fmt::format("h200_sxm,m,l,{},{},{},{},normal,{:.9},{:.9},{},{},ok\n", pass, tokens, in, out,
                        run.duration.si() * 1e6, run.clock_hz / 1e6, regime == Regime::burst ? 300 : 700,
                        regime == Regime::burst ? "burst" : "sustained");
  };
  for (const double tokens : {256, 512, 1024, 2048, 4096, 8192}) {
    for (const double in : {1024, 4096}) {
      for (const Regime regime : {Regime::burst, Regime::sustained}) add(tokens, in, 8192, "forward", regime);
    }
    for (const double in : {4096, 8192, 16384}) add(256, in, tokens, "forward", Regime::burst);  // loading decides
  }
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  add_rows(MeasuredTable::parse(text, "gemm.csv"), rows);
  const GemmModel aligned = *fit_kernels(rows, facts(), measured_profile()).profile.kernels->gemm;
  CHECK(aligned.even_rows_forward.source.empty());
  for (const double out : {50258, 50260, 50268}) add(1024, 1600, out, "forward", Regime::burst);
  for (const double out : {50257, 50259, 50261}) add(1024, 1600, out, "input_gradient", Regime::burst);
  rows = rows_of(csv_rows("full causal"));
  add_rows(MeasuredTable::parse(text, "gemm.csv"), rows);
  const GemmModel all = *fit_kernels(rows, facts(), measured_profile()).profile.kernels->gemm;
  CHECK(all.efficiency.value == aligned.efficiency.value);
  CHECK_THAT(all.efficiency.value, WithinRel(0.9, 1e-2));
  CHECK_THAT(all.even_rows_forward.value, WithinRel(0.3, 1e-2));
  CHECK_THAT(all.odd_rows_backward.value, WithinRel(0.15, 1e-2));
  CHECK(all.odd_rows_forward.source.empty());
}

TEST_CASE("the range of a band is that of the rows: FLOPs, queries and keys, and whether causal blocks are squares") {
  std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  const auto band_of_rows = [&] {
    return *fit_kernels(rows, facts(), measured_profile()).profile.kernels->band_of("attention forward");
  };
  const ErrorBand band = band_of_rows();
  for (const double least : {band.least_queries, band.least_keys}) CHECK(least == 512);
  for (const double most : {band.most_queries, band.most_keys}) CHECK(most == 16384);
  for (const MeasuredKernel& row : rows) CHECK((row.phase == Phase::backward || within(band, row)));
  const auto causal = std::find_if(rows.begin(), rows.end(), [](const MeasuredKernel& row) {
    return row.phase == Phase::forward && row.attention.masked_pairs > 0 && row.attention.query_rows == 2048;
  });
  causal->attention.key_rows = 4096;
  CHECK_FALSE(within(band, *causal));
  CHECK(within(band_of_rows(), *causal));
}

TEST_CASE("the rows of other machines widen the bands and are known again, but change no constant") {
  const std::vector<MeasuredKernel> rows = rows_of(csv_rows("full causal"));
  MachineRows others{{"slower", rows}};
  for (MeasuredKernel& row : others["slower"]) {
    row.place = "slower/attention.csv:" + std::to_string(row.row);
    row.time = row.time * 1.1;
    ++row.digest;
  }
  const Profile alone = fit_kernels(rows, facts(), measured_profile()).profile;
  const Profile both = fit_kernels(rows, facts(), measured_profile(), others).profile;
  CHECK(alone.kernels->band_of("attention forward")->inside < 0.01);
  CHECK_THAT(both.kernels->band_of("attention forward")->inside, WithinRel(0.1, 0.1));
  CHECK(both.kernels->attention.front().full_tile.value == alone.kernels->attention.front().full_tile.value);
  CHECK(both.kernels->fitted_rows == alone.kernels->fitted_rows);
  const ErrorBand other = band_of_other_chip(others, peaks, alone);
  CHECK_THAT(other.inside, WithinRel(0.1, 0.1));
  CHECK(other.outside == 2 * other.inside);
  CHECK(other.rows == static_cast<int>(rows.size()));
  std::size_t calibrating = 0;
  for (const RowUse use : split(rows)) calibrating += use == RowUse::calibration ? 1 : 0;
  CHECK(both.kernels->calibrating_rows.size() == alone.kernels->calibrating_rows.size() + calibrating);
}

TEST_CASE("rows with what they read in L2 and others say what loading it from HBM takes, rows of one kind do not") {
  Profile profile = truth();
  for (AttentionModel& model : profile.kernels->attention) model.cold_start = number(3e-6);
  std::string text = csv_rows("full causal");
  text.insert(text.find("status"), "cache,");
  for (std::size_t end = text.find(",ok"); end != std::string::npos; end = text.find(",ok", end + 8)) {
    text.insert(end + 1, "warm,");  // of truth(), which has no cold start
  }
  const KernelFit warm = fit_kernels(rows_of(text), facts(), measured_profile());
  for (const AttentionModel& model : profile.kernels->attention) {
    for (const double n : {512.0, 768.0, 1024.0, 1536.0, 2048.0}) {
      for (const double heads : {8.0, 16.0, 32.0}) {
        const TilePairs pairs = tile_pairs({n, n, "full", 0}, 128, 128);
        const AttentionShape shape{.pairs = pairs.executed,
                                   .query_rows = n,
                                   .key_rows = n,
                                   .heads = heads,
                                   .kv_heads = heads,
                                   .head_dim = 128,
                                   .cold = true};
        const KernelRun run = run_kernel(attention_load(shape, model, *profile.kernels, peaks, 128, 128),
                                         profile.kernels->clock, model.power, Regime::burst);
        text += fmt::format("h200_sxm,kernel,{},{},{},128,{},{},full,,false,burst,{:.9},{:.9},flushed,ok\n",
                            name_of(model.phase), heads, heads, n, n, run.duration.si() * 1e3, run.clock_hz / 1e6);
      }
    }
  }
  const KernelFit both = fit_kernels(rows_of(text), facts(), measured_profile());
  for (std::size_t i = 0; i < both.profile.kernels->attention.size(); ++i) {
    CHECK_THAT(both.profile.kernels->attention[i].cold_start.value, WithinRel(3e-6, 0.03));
    CHECK(warm.profile.kernels->attention[i].cold_start.value == 0);
  }
}

TEST_CASE("full blocks whose keys end inside a tile say what guarding the end costs, and change no other constant") {
  Profile profile = truth();
  std::string text = csv_rows("full causal");
  for (const std::size_t i : {0u, 1u}) {
    AttentionModel& narrow = profile.kernels->attention.emplace_back(profile.kernels->attention[i]);
    narrow.head_dim = 64;
    narrow.full_tile.value *= 0.7;
    for (const double n : {512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0}) {
      text += csv_row(profile, narrow, n, 0) + csv_row(profile, narrow, n, 0, Regime::sustained);
    }
  }
  const KernelFit without = fit_kernels(rows_of(text), facts(), measured_profile());
  for (AttentionModel& model : profile.kernels->attention) {
    model.guarded_kernel = number(model.head_dim == 64 ? 1.2 : 1.1);
    for (const double n : {1056.0, 1120.0, 2080.0, 4112.0, 4128.0}) text += csv_row(profile, model, n, 0);
  }
  const KernelFit with = fit_kernels(rows_of(text), facts(), measured_profile());
  for (std::size_t i = 0; i < with.profile.kernels->attention.size(); ++i) {
    const AttentionModel& model = with.profile.kernels->attention[i];
    CHECK_THAT(model.guarded_kernel.value, WithinRel(model.head_dim == 64 ? 1.2 : 1.1, 0.01));
    CHECK(without.profile.kernels->attention[i].guarded_kernel.value == 0);
    CHECK(model.full_tile.value == without.profile.kernels->attention[i].full_tile.value);
    CHECK(model.power.tensor_power.value == without.profile.kernels->attention[i].power.tensor_power.value);
  }
}

TEST_CASE("the speeds of chips at the power limit have their standard deviation, and one chip has none") {
  // The same kernel on three chips, in 1, 1.02 and 1.04 ms: speeds of 1, 1 / 1.02 and 1 / 1.04 of each other.
  std::vector<std::vector<MeasuredKernel>> chips;
  for (const double ms : {1.0, 1.02, 1.04}) {
    chips.push_back(
        rows_of("gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,window,causal,regime,time_ms,sm_clock_mhz,"
                "power_w,status\n"
                "h200_sxm,kernel,forward,32,32,128,4096,4096,full,,false,sustained," +
                fmt::format("{}", ms) + ",1500,700,ok\n"));
  }
  const Profile profile = truth();
  const double alone = predicted_time(chips[0][0], peaks, profile).si() / 1e-3;
  const double a = alone, b = alone / 1.02, c = alone / 1.04, mean = (a + b + c) / 3;
  const double expected = std::sqrt(((a - mean) * (a - mean) + (b - mean) * (b - mean) + (c - mean) * (c - mean)) / 2);
  for (int chip = 0; chip < 3; ++chip) chips[static_cast<std::size_t>(chip)][0].digest = static_cast<unsigned>(chip);
  RowDigests used;
  CHECK(spread_of_chips(std::span(chips).first(1), peaks, profile, used).source.empty());
  CHECK(used.empty());
  CHECK_THAT(spread_of_chips(chips, peaks, profile, used).value, WithinRel(expected, 1e-6));
  CHECK(used == RowDigests{0, 1, 2});
}

TEST_CASE("pairs in tiles: a causal square computes the tiles up to the diagonal") {
  const TilePairs pairs = tile_pairs({512, 512, "causal", 0}, 128, 128);
  CHECK(pairs.executed == (1 + 2 + 3 + 4) * 128 * 128);
  CHECK(pairs.executed - pairs.masked == 512 * 513 / 2);
}

TEST_CASE("pairs in tiles: a window touches its width and the two ragged ends") {
  // 256 keys a query, itself included: a query tile touches three key tiles, at the start of the sequence fewer.
  const TilePairs pairs = tile_pairs({1024, 1024, "window", 256}, 128, 128);
  CHECK(pairs.executed == (1 + 2 + 6 * 3) * 128 * 128);
  CHECK(pairs.executed - pairs.masked == 1024 * 256 - 256 * 255 / 2);
  // With 129 keys the first query of a tile sees the first key of the tile before, and none before that.
  CHECK(tile_pairs({1024, 1024, "window", 129}, 128, 128).executed == (1 + 7 * 2) * 128 * 128);
  CHECK(tile_pairs({1024, 1024, "window", 130}, 128, 128).executed == (1 + 2 + 6 * 3) * 128 * 128);
}

TEST_CASE("a measured file keeps its header, quoted commas and line numbers") {
  const MeasuredTable table = MeasuredTable::parse("# gpu = X\n# date = today\na,b\n1,\"x, y\"\n\n2,z\n", "f.csv");
  CHECK(table.header("gpu") == "X");
  CHECK(table.rows() == 2);
  CHECK(table.text(0, "b") == "x, y");
  CHECK(table.place(1) == "f.csv:6");
  CHECK_THROWS_WITH(table.number(1, "b"), ContainsSubstring("f.csv:6") && ContainsSubstring("is not a number"));
  CHECK_THROWS_WITH(MeasuredTable::parse("a,b\n1\n", "f.csv"),
                    ContainsSubstring("f.csv:2") && ContainsSubstring("1 cells"));
  CHECK_THROWS_WITH(MeasuredTable::parse("a,b\n1,\"x\ny\"\n", "f.csv"),
                    ContainsSubstring("f.csv:2") && ContainsSubstring("a quote does not end"));
  // UTF-8 of one to four bytes; a lone or missing continuation, an overlong form and what is beyond Unicode are none.
  for (const char* good : {"e", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
    CHECK(MeasuredTable::parse(std::string("a\n") + good + "\n", "f.csv").text(0, "a") == good);
  for (const char* bad : {"\xe9", "\xa9", "\xe2\x82", "\xc0\xaf", "\xf5\x80\x80\x80", "\xc3("}) {
    CHECK_THROWS_WITH(MeasuredTable::parse(std::string("a\n") + bad + "\n", "f.csv"),
                      ContainsSubstring("f.csv:2") && ContainsSubstring("UTF-8"));
  }
}
