// Fits on rows that a known profile produced: the constants must come back, and what rows cannot say is an error.
#include <fmt/format.h>

#include "tests/catch.hpp"
#include "tests/cost_models/known_rows.hpp"

using namespace orrery;

TEST_CASE("a fit finds the constants that made the rows") {
  const KernelFit fit = fit_of(known_rows());
  const Profile expected = known_profile();
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
  std::vector<MeasuredKernel> rows = known_rows();
  const std::size_t count = rows.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (rows[i].regime == Regime::sustained) continue;
    rows.push_back(rows[i]);  // as of a kernel that waits between launches, at the clock of its bursts
    rows.back().regime = Regime::sustained;
    rows.back().power = Watts::from_si(known_facts().power_limit_w / 2);
  }
  const Profile fitted = fit_of(rows).profile, made = known_profile();
  CHECK_THAT(fitted.kernels->clock.busy_power.value, WithinRel(made.kernels->clock.busy_power.value, 0.1));
  for (const AttentionModel& model : fitted.kernels->attention) {
    const AttentionModel& of_phase = *made.kernels->attention_of(model.phase, 128);
    CHECK_THAT(model.power.tensor_power.value, WithinRel(of_phase.power.tensor_power.value, 0.05));
  }
}

TEST_CASE("without masked rows the cost of a masked tile is undetermined, and the error says so") {
  CHECK_THROWS_WITH(fit_of(rows_of_text(known_csv(false))),
                    ContainsSubstring("masked_tile") && ContainsSubstring("causal blocks"));
}

TEST_CASE("windows of several widths say what their tiles cost, and the start and end of their lists") {
  Profile profile = known_profile();
  std::string text = known_csv();
  for (AttentionModel& m : profile.kernels->attention) {
    m.window_kernel = number(1.1);
    m.window_start = number(1500);
    m.guarded_window = number(900);
    // A third of them is fitted on.
    for (int width = 256; width <= 1280; width += 128) text += csv_row(profile, m, 16384, width);
    for (const double n : {8352.0, 8416.0, 12320.0, 12352.0, 16416.0, 16480.0}) text += csv_row(profile, m, n, 512);
  }
  const KernelFit several = fit_of(rows_of_text(text));
  for (const AttentionModel& m : several.profile.kernels->attention) {
    CHECK_THAT(m.window_kernel.value, WithinRel(1.1, 1e-3));
    CHECK_THAT(m.window_start.value, WithinRel(1500, 2e-2));
    CHECK(m.window_launch.value == 0);  // blocks of 16K tokens hide it
    CHECK_THAT(m.guarded_window.value, WithinRel(900, 2e-2));
  }
}

TEST_CASE("rectangles under a mask say whether a kernel skips what is masked, and what that or not doing so takes") {
  Profile profile = known_profile();
  AttentionModel& forward = profile.kernels->attention.front();
  AttentionModel& backward = profile.kernels->attention.back();
  forward.rectangle_start = number(900);
  backward.rectangle_edge = number(800);
  std::string text = known_csv();
  for (const AttentionModel* model : {&forward, &backward}) {
    for (const double n : {2048.0, 4096.0, 8192.0, 16384.0}) {
      for (const double more : {1024.0, 2048.0, 4096.0}) {
        text += csv_row(profile, *model, {.mask = {n, n + more, "causal", 0}}) +
                csv_row(profile, *model, {.mask = {n, n + more, "window", more}});
      }
    }
  }
  const Profile fitted = fit_of(rows_of_text(text)).profile;
  CHECK_THAT(fitted.kernels->attention.front().rectangle_start.value, WithinRel(900, 2e-2));
  CHECK(fitted.kernels->attention.front().rectangle_edge.value == 0);
  CHECK_THAT(fitted.kernels->attention.back().rectangle_edge.value, WithinRel(800, 2e-2));
  CHECK(fitted.kernels->attention.back().rectangle_start.value == 0);
  // Without such rows both are taken to be nothing.
  const Profile without = fit_of(known_rows()).profile;
  for (const AttentionModel& model : without.kernels->attention) {
    CHECK(model.rectangle_edge.value == 0);
    CHECK(model.rectangle_edge.provenance == Provenance::assumed);
  }
}

TEST_CASE(
    "the launch of a window's kernel shows where blocks are short, and stays others' where it would be beyond reason") {
  const auto fitted_launch = [](double launch) {
    Profile profile = known_profile();
    std::string text = known_csv();
    for (AttentionModel& m : profile.kernels->attention) {
      m.window_kernel = number(1.1);
      m.window_start = number(1500);
      m.window_launch = number(launch);
      for (const double n : {512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0}) {
        for (const double width : {128, 256, 512, 1024}) text += csv_row(profile, m, n, width);
      }
    }
    return fit_of(rows_of_text(text)).profile.kernels->attention.front().window_launch.value;
  };
  CHECK_THAT(fitted_launch(2e-6), WithinRel(2e-6, 0.02));
  CHECK(fitted_launch(9e-6) == 0);  // 5 us at most
}

TEST_CASE("rows with what they read in L2 and others say what loading it from HBM takes, rows of one kind do not") {
  Profile profile = known_profile();
  for (AttentionModel& model : profile.kernels->attention) model.cold_start = number(3e-6);
  std::string text = known_csv(true, "warm");
  const KernelFit warm = fit_of(rows_of_text(text));
  for (const AttentionModel& model : profile.kernels->attention) {
    for (const double n : {512.0, 768.0, 1024.0, 1536.0, 2048.0}) {
      for (const double heads : {8.0, 16.0, 32.0}) {
        text += csv_row(profile, model, {.mask = {n, n, "full", 0}, .heads = heads, .cache = "flushed"});
      }
    }
  }
  const KernelFit both = fit_of(rows_of_text(text));
  for (std::size_t i = 0; i < both.profile.kernels->attention.size(); ++i) {
    CHECK_THAT(both.profile.kernels->attention[i].cold_start.value, WithinRel(3e-6, 0.03));
    CHECK(warm.profile.kernels->attention[i].cold_start.value == 0);
  }
}

TEST_CASE("full blocks whose keys end inside a tile say what guarding the end costs, and change no other constant") {
  Profile profile = known_profile();
  std::string text = known_csv();
  for (const std::size_t i : {0u, 1u}) {
    AttentionModel& narrow = profile.kernels->attention.emplace_back(profile.kernels->attention[i]);
    narrow.head_dim = 64;
    narrow.full_tile.value *= 0.7;
    for (const double n : {512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0}) {
      text += csv_row(profile, narrow, n, 0) + csv_row(profile, narrow, n, 0, Regime::sustained);
    }
  }
  const KernelFit without = fit_of(rows_of_text(text));
  for (AttentionModel& model : profile.kernels->attention) {
    model.guarded_kernel = number(model.head_dim == 64 ? 1.2 : 1.1);
    for (const double n : {1056.0, 1120.0, 2080.0, 4112.0, 4128.0}) text += csv_row(profile, model, n, 0);
  }
  const KernelFit with = fit_of(rows_of_text(text));
  for (std::size_t i = 0; i < with.profile.kernels->attention.size(); ++i) {
    const AttentionModel& model = with.profile.kernels->attention[i];
    CHECK_THAT(model.guarded_kernel.value, WithinRel(model.head_dim == 64 ? 1.2 : 1.1, 0.01));
    CHECK(without.profile.kernels->attention[i].guarded_kernel.value == 0);
    CHECK(model.full_tile.value == without.profile.kernels->attention[i].full_tile.value);
    CHECK(model.power.tensor_power.value == without.profile.kernels->attention[i].power.tensor_power.value);
  }
}

TEST_CASE(
    "products whose rows are not aligned have efficiencies of their own, by layout, and change no other constant") {
  Profile profile = known_profile();
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
                             model, *profile.kernels, known_peaks),
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
  const GemmModel aligned = *fit_of(known_rows(text, "gemm.csv")).profile.kernels->gemm;
  CHECK(aligned.even_rows_forward.source.empty());
  for (const double out : {50258, 50260, 50268}) add(1024, 1600, out, "forward", Regime::burst);
  for (const double out : {50257, 50259, 50261}) add(1024, 1600, out, "input_gradient", Regime::burst);
  const GemmModel all = *fit_of(known_rows(text, "gemm.csv")).profile.kernels->gemm;
  CHECK(all.efficiency.value == aligned.efficiency.value);
  CHECK_THAT(all.efficiency.value, WithinRel(0.9, 1e-2));
  CHECK_THAT(all.even_rows_forward.value, WithinRel(0.3, 1e-2));
  CHECK_THAT(all.odd_rows_backward.value, WithinRel(0.15, 1e-2));
  CHECK(all.odd_rows_forward.source.empty());
}

TEST_CASE("no efficiency is more than the peak, whatever the cache lets pass faster") {
  std::string text = "gpu,kernel,width,bytes,time_us,status\n";
  for (double bytes = 1e6; bytes < 1e9; bytes *= 2)
    text += fmt::format("h,copy_kernel,1,{:.0f},{:.9},ok\n", bytes, 1 + 1e6 * bytes / (1.5 * known_peaks.hbm.si()));
  CHECK(fit_of(known_rows(text, "elementwise.csv")).profile.hbm_efficiency.value == 1);
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
  const std::vector<MeasuredKernel> rows = known_rows(text, "elementwise.csv");
  FitFacts known = known_facts();
  known.cache = Bytes::from_si(cache);
  const StreamModel& copy = *fit_kernels(rows, known, measured_profile()).profile.kernels->stream_of("copy_kernel");
  CHECK_THAT(copy.bandwidth.value, WithinRel(rate, 1e-3));
  CHECK_THAT(copy.launch.value, WithinRel(launch, 1e-2));
}

TEST_CASE("where times and clocks contradict each other the error says so, and asks for no more rows") {
  std::vector<MeasuredKernel> rows = known_rows();
  for (MeasuredKernel& row : rows) row.clock_hz *= 1.5;  // beyond the maximum
  CHECK_THROWS_WITH(fit_of(rows), ContainsSubstring("in the units of their columns") && !ContainsSubstring("measure"));
}

TEST_CASE("rows that no constants explain contradict each other") {
  std::vector<MeasuredKernel> rows = known_rows();
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].time = rows[i].time * (i % 4 < 2 ? 1 : 4);
  CHECK_THROWS_WITH(fit_of(rows), ContainsSubstring("contradict"));
}
