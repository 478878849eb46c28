// What a fit to measured runs adds to a profile: the widths of their intervals.
#include "validate/run_bands.hpp"

#include <fmt/format.h>

#include <array>
#include <map>

#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/validate/measured_files.hpp"

using namespace orrery;

namespace {

/// A ring of two GPUs; `time` with the cells behind it.
std::string ring_run(int tokens, const char* backend, const char* time) {
  return fmt::format("orrery_ring,{},h200_sxm,nvlink4,2,{},32,32,128,false,contiguous,ring,forward,{}\n", backend,
                     tokens, time);
}

/// What a fit to these runs adds to the profile of the H200.
MeasuredKernels kernels_fitted_to_runs(const std::string& text) {
  Profile profile = load_profile("h200_sxm", "h200_sxm");
  profile.kernels->runs.clear();
  std::erase_if(profile.kernels->bands, [](const ErrorBand& b) { return b.group == slow_down_group; });
  calibrate_runs({MeasuredTable::parse(text, "mine.csv")}, profile);
  return *profile.kernels;
}

}  // namespace

TEST_CASE("runs that set widths and runs that try them are of every mask, rotation and length, whatever the order") {
  const MeasuredTable table = MeasuredTable::read(measured_folder / "h200_sxm_torch_x2/torch_context_parallel.csv");
  const std::vector<bool> calibrates = calibrating_rows(table);
  std::map<std::string, std::array<int, 2>> uses;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    for (const char* column : {"causal", "schedule"}) {
      ++uses[std::string(column) + table.text(row, column)][calibrates[row] ? 1 : 0];
    }
    for (std::size_t other = 0; other < row; ++other) {
      const bool same = table.text(row, "seq_len") == table.text(other, "seq_len") &&
                        table.text(row, "causal") == table.text(other, "causal") &&
                        table.text(row, "schedule") == table.text(other, "schedule");
      if (same) CHECK(calibrates[row] == calibrates[other]);
    }
  }
  CHECK(uses.size() == 4);
  for (const auto& [kind, use] : uses) {
    INFO(kind);
    CHECK(use[0] >= 4);
    CHECK(use[1] >= 4);
  }
}

TEST_CASE("a file without a run says nothing of runs, and a run off a hundred times is no run: a fit says which") {
  CHECK_THROWS_WITH(kernels_fitted_to_runs(read_file(measured_folder / "h200_sxm/attention.csv")),
                    ContainsSubstring("mine.csv: ") && ContainsSubstring("no run of several GPUs"));
  const std::string names = run_columns_and("not_predicted");
  CHECK_THROWS_WITH(kernels_fitted_to_runs(names + ring_run(16384, "cudnn", "1,by hand")),
                    ContainsSubstring("(by hand)"));
  CHECK_THROWS_WITH(kernels_fitted_to_runs(names + ring_run(16384, "cudnn", ",")), ContainsSubstring("has a time"));
  CHECK_THROWS_WITH(kernels_fitted_to_runs(names + ring_run(16384, "flash", "1,")),
                    ContainsSubstring("h200_sxm_flash"));
  // Several shapes, so that some are of the half that sets widths; each takes some milliseconds.
  std::string slow = names;
  for (const int tokens : {16384, 20480, 24576, 28672, 32768, 36864, 40960, 49152})
    slow += ring_run(tokens, "cudnn", "1e4,");
  CHECK_THROWS_WITH(kernels_fitted_to_runs(slow), ContainsSubstring("mine.csv:") && ContainsSubstring("takes 10 s"));
}

TEST_CASE("an implementation has a band of its own from nine runs on that set it") {
  const auto bands_of = [](int runs) {
    std::string text = run_columns;
    for (int tokens = 8192; runs > 0; tokens += 1024) {
      const std::string row = ring_run(tokens, "cudnn", "3");
      if (!calibrating_rows(MeasuredTable::parse(run_columns + row, "mine.csv")).front()) continue;
      text += row;
      --runs;
    }
    return kernels_fitted_to_runs(text).runs.size();
  };
  CHECK(bands_of(8) == 0);
  CHECK(bands_of(9) == 1);
}

TEST_CASE("a band of runs reaches from the shortest to the longest that set it, all of the profile's own kernels") {
  std::string own, others;
  double shortest = 1e9, longest = 0;
  int runs = 0;
  for (int i = 0; i < 24; ++i) {
    const int tokens = 8192 + 256 * std::abs(4 * i - 49);  // the shortest is in the middle; of other kernels all are
    const std::string row = ring_run(tokens, "cudnn", "3");
    others += ring_run(tokens / 4, "flash", "3");
    own += row;
    const MeasuredTable alone = MeasuredTable::parse(run_columns + row, "mine.csv");
    if (!calibrating_rows(alone).front()) continue;
    const double predicted = predict_runs(alone, "").front().predicted.si();
    shortest = std::min(shortest, predicted);
    longest = std::max(longest, predicted);
    ++runs;
  }
  REQUIRE(runs >= 9);
  const RunBand band = kernels_fitted_to_runs(run_columns + own + others).runs.at(0);
  CHECK(band.rows == runs);
  CHECK(band.shortest_s == shortest);
  CHECK(band.longest_s == longest);
  CHECK(band.factor == kernels_fitted_to_runs(run_columns + own).runs.at(0).factor);
}

TEST_CASE("slow-downs that are all off alike have a band as wide, and twice as wide beyond the times that set it") {
  const auto text = [](const std::vector<double>& overlapped_us) {
    std::string rows =
        "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us\n";
    for (std::size_t i = 0; i < overlapped_us.size(); ++i)
      rows += fmt::format("merge,copy_engine,,h200_sxm,nvlink4,{},{},1e8,250\n", 100 + 10 * i, overlapped_us[i]);
    return rows;
  };
  constexpr std::size_t rows = 9;
  std::vector<double> measured;
  for (const Prediction& p : predict_text(text(std::vector<double>(rows, 100))))
    measured.push_back(1.2 * p.predicted.si() * 1e6);
  REQUIRE(measured.size() == rows);
  const MeasuredKernels kernels = kernels_fitted_to_runs(text(measured));
  const ErrorBand* band = kernels.band_of(slow_down_group);
  REQUIRE(band != nullptr);
  CHECK(band->rows == rows);
  CHECK_THAT(band->inside, WithinRel(0.2, 1e-6));
  CHECK_THAT(band->outside, WithinRel(2 * 0.2, 1e-6));
  CHECK_THAT(band->least, WithinRel(measured.front() * 1e-6, 1e-6));
  CHECK_THAT(band->most, WithinRel(measured.back() * 1e-6, 1e-6));
}
