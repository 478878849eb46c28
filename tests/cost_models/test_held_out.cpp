// What the rows are for that nothing is fitted on: error bands, their coverage, and what is no row of theirs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cost_models/predicted_kernels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/known_rows.hpp"

using namespace orrery;

TEST_CASE("a third of the shapes is fitted on, and both regimes of a shape have the same use") {
  const std::vector<MeasuredKernel> rows = known_rows();
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
  Profile profile = known_profile();
  profile.kernels->bands.push_back({"attention forward", 0.1, 0.2, 1, 1e18, 9});
  std::vector<MeasuredKernel> rows = rows_of_text(known_csv(false));
  rows.resize(3);
  const RowUse uses[] = {RowUse::fitted, RowUse::calibration, RowUse::test};
  const auto coverage_with_off = [&](std::size_t off) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i].time = predicted_time(rows[i], known_peaks, profile) * (i == off ? 1.2 : 1);
    return errors_by_group(rows, uses, known_peaks, profile).at(0).coverage;
  };
  CHECK(coverage_with_off(0) == 1);
  CHECK(coverage_with_off(1) == 1);
  CHECK(coverage_with_off(2) == 0);
}

TEST_CASE("a row that takes a hundred times what the others say is no row of theirs, and the error names it") {
  for (const double factor : {100.0, 0.01}) {
    std::vector<MeasuredKernel> rows = known_rows();
    rows[20].time = rows[20].time * factor;
    CHECK_THROWS_WITH(fit_of(rows),
                      ContainsSubstring(rows[20].place) && ContainsSubstring("in the unit of its column"));
  }
}

TEST_CASE("a held-out row that is off by more than twice is named, one of another machine refused from ten times on") {
  std::vector<MeasuredKernel> rows = known_rows();
  const MachineRows others{{"another", rows}};
  const std::vector<RowUse> uses = split(rows);
  const auto held_out = static_cast<std::size_t>(
      std::find_if(uses.begin(), uses.end(), [](RowUse use) { return use != RowUse::fitted; }) - uses.begin());
  const auto noted = [&](double factor) {
    std::vector<MeasuredKernel> off = rows;
    off[held_out].time = off[held_out].time * factor;
    std::string text;
    for (const HeldOutErrors& e : fit_of(off).errors) text += e.far_off;
    return text;
  };
  CHECK(noted(1.9).empty());
  for (const double factor : {2.1, 1 / 2.1}) CHECK_THAT(noted(factor), ContainsSubstring(rows[held_out].place + ": "));
  MachineRows wrong = others;
  wrong["another"][held_out].time = rows[held_out].time * 100;
  CHECK_NOTHROW(fit_of(rows, others));
  CHECK_THROWS_WITH(fit_of(rows, wrong), ContainsSubstring(rows[held_out].place));
}

TEST_CASE("the range of a band is that of the rows: FLOPs, queries and keys, and whether causal blocks are squares") {
  std::vector<MeasuredKernel> rows = known_rows();
  const auto band_of_rows = [&] { return *fit_of(rows).profile.kernels->band_of("attention forward"); };
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
  const std::vector<MeasuredKernel> rows = known_rows();
  MachineRows others{{"slower", rows}};
  for (MeasuredKernel& row : others["slower"]) {
    row.place = "slower/attention.csv:" + std::to_string(row.row);
    row.time = row.time * 1.1;
    ++row.digest;
  }
  const Profile alone = fit_of(rows).profile;
  const Profile both = fit_of(rows, others).profile;
  CHECK(alone.kernels->band_of("attention forward")->inside < 0.01);
  CHECK_THAT(both.kernels->band_of("attention forward")->inside, WithinRel(0.1, 0.1));
  CHECK(both.kernels->attention.front().full_tile.value == alone.kernels->attention.front().full_tile.value);
  CHECK(both.kernels->fitted_rows == alone.kernels->fitted_rows);
  const ErrorBand other = band_of_other_chip(others, known_peaks, alone);
  CHECK_THAT(other.inside, WithinRel(0.1, 0.1));
  CHECK(other.outside == 2 * other.inside);
  CHECK(other.rows == static_cast<int>(rows.size()));
  std::size_t calibrating = 0;
  for (const RowUse use : split(rows)) calibrating += use == RowUse::calibration ? 1 : 0;
  CHECK(both.kernels->calibrating_rows.size() == alone.kernels->calibrating_rows.size() + calibrating);
}

TEST_CASE("the speeds of chips at the power limit have their standard deviation, and one chip has none") {
  // The same kernel on three chips, in 1, 1.02 and 1.04 ms: speeds of 1, 1 / 1.02 and 1 / 1.04 of each other.
  std::vector<std::vector<MeasuredKernel>> chips;
  for (const double ms : {1.0, 1.02, 1.04}) {
    chips.push_back(
        rows_of_text("gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,window,causal,regime,time_ms,sm_clock_mhz,"
                     "power_w,status\n"
                     "h200_sxm,kernel,forward,32,32,128,4096,4096,full,,false,sustained," +
                     fmt::format("{}", ms) + ",1500,700,ok\n"));
  }
  const Profile profile = known_profile();
  const double alone = predicted_time(chips[0][0], known_peaks, profile).si() / 1e-3;
  const double a = alone, b = alone / 1.02, c = alone / 1.04, mean = (a + b + c) / 3;
  const double expected = std::sqrt(((a - mean) * (a - mean) + (b - mean) * (b - mean) + (c - mean) * (c - mean)) / 2);
  for (int chip = 0; chip < 3; ++chip) chips[static_cast<std::size_t>(chip)][0].digest = static_cast<unsigned>(chip);
  RowDigests used;
  CHECK(spread_of_chips(std::span(chips).first(1), known_peaks, profile, used).source.empty());
  CHECK(used.empty());
  CHECK_THAT(spread_of_chips(chips, known_peaks, profile, used).value, WithinRel(expected, 1e-6));
  CHECK(used == RowDigests{0, 1, 2});
}
