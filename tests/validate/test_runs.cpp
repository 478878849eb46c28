// The committed measured files, predicted by the committed profiles: the table of errors stays where it is.
#include "validate/runs.hpp"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <map>
#include <sstream>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/kernel_cost.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"
#include "validate/run_bands.hpp"

using namespace orrery;

namespace {

std::vector<Prediction> predict(const std::string& file) {
  return predict_runs(MeasuredTable::read(measured_folder / file), "");
}

ErrorSummary over_all(const std::vector<Prediction>& rows) {
  return summarize(rows).back();
}

}  // namespace

TEST_CASE("attention blocks of an H200 that were held out are predicted within the stated errors") {
  const std::vector<Prediction> rows = predict("h200_sxm_full/attention.csv");
  std::map<std::string, ErrorSummary> groups;
  for (const ErrorSummary& g : summarize(rows)) groups[g.group] = g;
  CHECK(groups["h200_sxm_full: attention forward"].median_abs_rel < 0.015);
  CHECK(groups["h200_sxm_full: attention forward"].p90_abs_rel < 0.04);
  CHECK(groups["h200_sxm_full: attention backward"].median_abs_rel < 0.015);
  CHECK(groups["h200_sxm_full: attention backward"].p90_abs_rel < 0.04);
  CHECK(std::count_if(rows.begin(), rows.end(), [](const Prediction& p) { return p.fitted; }) * 10 <=
        static_cast<std::ptrdiff_t>(rows.size()) * 4);
}

TEST_CASE("matrix products, merges and elementwise kernels that were held out have a median error below 3.5 %") {
  for (const char* file : {"gemm", "merge", "elementwise"}) {
    INFO(file);
    CHECK(over_all(predict(std::string("h200_sxm_full/") + file + ".csv")).median_abs_rel < 0.035);
  }
}

TEST_CASE(
    "what kernels draw below the power limit, which no constant is fitted on, is predicted within 10 % in the mean") {
  const MeasuredTable table = MeasuredTable::read(measured_folder / "h200_sxm_whole/attention.csv");
  const Profile profile = load_profile("h200_sxm", "h200_sxm");
  const MeasuredKernels& kernels = *profile.kernels;
  const Gpu gpu = load_gpu("h200_sxm");
  const GpuPeaks peaks{gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
  std::vector<MeasuredKernel> rows;
  add_rows(table, rows);
  double off = 0, bias = 0;
  int count = 0;
  for (const MeasuredKernel& row : rows) {
    const double most = at_power_limit * kernels.clock.power_limit.value;
    if (row.regime != Regime::sustained || row.power == Watts() || row.power.si() > most) continue;
    const AttentionModel& model = *kernels.attention_of(row.phase, row.attention.head_dim);
    const KernelLoad load =
        attention_load(row.attention, model, kernels, peaks, profile.tile_query.value, profile.tile_key.value);
    const double predicted = run_kernel(load, kernels.clock, model.power, ClockCap::shared(row.clock_hz)).power.si();
    const double idle = kernels.clock.idle_power.value;
    const double error = (predicted - idle) / (row.power.si() - idle) - 1;
    off += std::abs(error), bias += error, ++count;
  }
  REQUIRE(count >= 40);
  INFO(fmt::format("{} rows, mean error {}, mean of its absolute value {}", count, bias / count, off / count));
  CHECK(off / count < 0.10);
  CHECK(std::abs(bias / count) < 0.05);
}

TEST_CASE("our own ring on two H200 is predicted from kernels and links alone: mean 4 %, at most 10 %") {
  const std::vector<ErrorSummary> groups = summarize(predict("h200_sxm_x2/ring.csv"));
  CHECK(groups.front().group == "h200_sxm_x2: orrery_ring copy_engine");
  CHECK(groups.front().mean_abs_rel < 0.04);
  CHECK(groups.front().max_abs_rel < 0.10);
}

TEST_CASE("rings over NCCL, whose hops kernels slow: mean 4 % on two H200s, 7 % on four H100s") {
  const auto mean_of = [](const std::string& folder) {
    for (const ErrorSummary& group : summarize(predict(folder + "/ring.csv"))) {
      if (group.group == folder + ": orrery_ring nccl") return group.mean_abs_rel;
    }
    return 1.0;
  };
  CHECK(mean_of("h200_sxm_x2") < 0.04);
  CHECK(mean_of("h100_sxm_x4") < 0.07);
}

TEST_CASE(
    "a run of one GPU takes its kernel and a merge that grows evenly with the tokens, whatever is left of a tile") {
  const std::string head = run_columns.substr(0, run_columns.size() - 1) + ",n_q,n_k\n";
  for (const std::string kind : {"false,contiguous,{},forward", "true,contiguous,{},backward"}) {
    // What the run takes beyond the kernel, in seconds.
    const auto beyond_kernel = [&](int n) {
      const std::string run = fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,1,{},32,8,128,{},1,,\n", n,
                                          fmt::format(fmt::runtime(kind), "ring"));
      const std::string kernel =
          fmt::format("mine,cudnn,h200_sxm,,1,,32,8,128,{},1,{},{}\n", fmt::format(fmt::runtime(kind), "kernel"), n, n);
      const auto rows = predict_runs(MeasuredTable::parse(head + run + kernel, "m.csv"), "");
      const Seconds both = rows[0].predicted - rows[1].predicted;
      return (rows[0].many_gpus ? both : Seconds() - both).si();
    };
    const double at_13568 = beyond_kernel(13568), at_13696 = beyond_kernel(13696);
    CHECK_THAT(beyond_kernel(13584), WithinRel(at_13568 + (at_13696 - at_13568) / 8, 0.01));
    CHECK_THAT(beyond_kernel(13632), WithinRel(at_13568 + (at_13696 - at_13568) / 2, 0.01));
  }
}

TEST_CASE("attention of a head_dim that was not measured is extrapolated, with a wider interval") {
  const auto band = [](int head_dim, const std::string& gpu = "h200_sxm") {
    const std::string row = fmt::format("mine,cudnn,{},,1,,32,8,{},false,,kernel,forward,9,8192,8192\n", gpu, head_dim);
    const std::string head = run_columns.substr(0, run_columns.size() - 1) + ",n_q,n_k\n";
    return predict_runs(MeasuredTable::parse(head + row, "m.csv"), "").front();
  };
  for (const int known : {64, 96, 128}) CHECK_FALSE(band(known).extrapolated);
  for (const int other : {80, 256}) {
    CHECK(band(other).extrapolated);
    CHECK(band(other).band > 2 * band(128).band);
  }
  // The cycles of d = 96 were measured on an H200 alone, which lends them.
  CHECK_FALSE(band(128, "h100_sxm").extrapolated);
  CHECK(band(96, "h100_sxm").extrapolated);
  const auto slower = [&](int head_dim) { return band(head_dim, "h100_sxm").predicted / band(head_dim).predicted; };
  CHECK_THAT(slower(96), WithinRel(slower(128), 0.05));
}

TEST_CASE(
    "blocks of fewer queries or keys than any measured, causal ones of fewer keys than queries, and of more where none "
    "were measured, are beyond it") {
  const auto band = [](int n_q, int n_k, const char* causal, const char* gpu = "h200_sxm") {
    const std::string head = run_columns.substr(0, run_columns.size() - 1) + ",n_q,n_k\n";
    const std::string row =
        fmt::format("mine,cudnn,{},,1,,32,8,128,{},,kernel,forward,9,{},{}\n", gpu, causal, n_q, n_k);
    return predict_runs(MeasuredTable::parse(head + row, "m.csv"), "").front();
  };
  const Prediction measured = band(8192, 8192, "true");
  CHECK_FALSE(measured.extrapolated);
  // Measured: from 512 to 131072 of each, without a mask also of different numbers.
  CHECK_FALSE(band(512, 131072, "false").extrapolated);
  CHECK_FALSE(band(131072, 512, "false").extrapolated);
  struct Block {
    int n_q, n_k;
    const char* causal;
  };
  for (const Block b : {Block{1, 131072, "false"},
                        {131072, 1, "false"},
                        {511, 8192, "false"},
                        {512, 131073, "false"},
                        {16384, 8192, "true"}}) {
    INFO(b.n_q << " x " << b.n_k);
    CHECK(band(b.n_q, b.n_k, b.causal).extrapolated);
    CHECK_THAT(band(b.n_q, b.n_k, b.causal).band, WithinRel(2 * measured.band, 1e-4));
  }
  CHECK_FALSE(band(8192, 16384, "true").extrapolated);  // h200_sxm_rectangles
  CHECK(band(8192, 16384, "true", "h100_sxm").extrapolated);
}

TEST_CASE("a run of a mask or a layout that no run of its implementation was measured with is extrapolated") {
  const auto band = [](const char* layout, const char* causal, const char* window) {
    const std::string head = run_columns.substr(0, run_columns.size() - 1) + ",window\n";
    const std::string row = fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,2,65536,32,8,128,{},{},ring,forward,9,{}\n",
                                        causal, layout, window);
    return predict_runs(MeasuredTable::parse(head + row, "m.csv"), "").front();
  };
  CHECK_FALSE(band("zigzag", "true", "").extrapolated);
  // Without a mask every layout is the same blocks.
  CHECK_FALSE(band("striped", "false", "").extrapolated);
  CHECK(band("striped", "true", "").extrapolated);
  CHECK(band("contiguous", "true", "8192").extrapolated);
}

TEST_CASE("a row without an interval counts in no coverage") {
  const std::vector<Prediction> rows = predict_runs(
      MeasuredTable::parse(
          run_columns + "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1\n",
          "runs.csv"),
      "peak");
  CHECK_FALSE(rows.front().has_interval());
  CHECK(over_all(rows).rows == 1);
  CHECK_FALSE(over_all(rows).interval_coverage.has_value());
}

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
  const auto calibrate = [](const std::string& file, const std::string& text) {
    Profile profile = load_profile("h200_sxm", "h200_sxm");
    calibrate_runs({MeasuredTable::parse(text, file)}, profile);
    return profile.kernels->runs.size();
  };
  std::ifstream kernels(measured_folder / "h200_sxm/attention.csv");
  std::stringstream text;
  text << kernels.rdbuf();
  CHECK_THROWS_WITH(calibrate("kernels.csv", text.str()),
                    ContainsSubstring("kernels.csv: ") && ContainsSubstring("no run of several GPUs"));
  std::string names = run_columns;
  names.insert(names.size() - 1, ",not_predicted");
  const auto run = [](int tokens, const char* backend, const std::string& time) {
    return fmt::format("orrery_ring,{},h200_sxm,nvlink4,2,{},32,32,128,false,contiguous,ring,forward,{}\n", backend,
                       tokens, time);
  };
  CHECK_THROWS_WITH(calibrate("runs.csv", names + run(16384, "cudnn", "1,by hand")), ContainsSubstring("(by hand)"));
  CHECK_THROWS_WITH(calibrate("runs.csv", names + run(16384, "cudnn", ",")), ContainsSubstring("has a time"));
  CHECK_THROWS_WITH(calibrate("runs.csv", names + run(16384, "flash", "1,")), ContainsSubstring("h200_sxm_flash"));
  // Several shapes, so that some are of the half that sets widths; each takes some milliseconds.
  std::string slow = names;
  for (const int tokens : {16384, 20480, 24576, 28672, 32768, 36864, 40960, 49152})
    slow += run(tokens, "cudnn", "1e4,");
  CHECK_THROWS_WITH(calibrate("runs.csv", slow), ContainsSubstring("runs.csv:") && ContainsSubstring("takes 10 s"));
}

TEST_CASE("an implementation has a band of its own from nine runs on that set it") {
  const auto bands_of = [](int runs) {
    std::string text = run_columns;
    for (int tokens = 8192; runs > 0; tokens += 1024) {
      const std::string row =
          fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,2,{},32,32,128,false,contiguous,ring,forward,3\n", tokens);
      if (!calibrating_rows(MeasuredTable::parse(run_columns + row, "runs.csv")).front()) continue;
      text += row;
      --runs;
    }
    Profile profile = load_profile("h200_sxm", "h200_sxm");
    profile.kernels->runs.clear();
    calibrate_runs({MeasuredTable::parse(text, "runs.csv")}, profile);
    return profile.kernels->runs.size();
  };
  CHECK(bands_of(8) == 0);
  CHECK(bands_of(9) == 1);
}

namespace {

/// What a fit to these runs adds to the profile of the H200.
MeasuredKernels kernels_fitted_to_runs(const std::string& text, const std::string& file) {
  Profile profile = load_profile("h200_sxm", "h200_sxm");
  profile.kernels->runs.clear();
  std::erase_if(profile.kernels->bands, [](const ErrorBand& b) { return b.group == slow_down_group; });
  calibrate_runs({MeasuredTable::parse(text, file)}, profile);
  return *profile.kernels;
}

}  // namespace

TEST_CASE("a band of runs reaches from the shortest to the longest that set it, all of the profile's own kernels") {
  std::string own, others;
  double shortest = 1e9, longest = 0;
  int runs = 0;
  for (int i = 0; i < 24; ++i) {
    const int tokens = 8192 + 256 * std::abs(4 * i - 49);  // the shortest is in the middle; of other kernels all are
    const auto row = [](const char* backend, int of) {
      return fmt::format("orrery_ring,{},h200_sxm,nvlink4,2,{},32,32,128,false,contiguous,ring,forward,3\n", backend,
                         of);
    };
    others += row("flash", tokens / 4);
    own += row("cudnn", tokens);
    const MeasuredTable alone = MeasuredTable::parse(run_columns + row("cudnn", tokens), "runs.csv");
    if (!calibrating_rows(alone).front()) continue;
    const double predicted = predict_runs(alone, "").front().predicted.si();
    shortest = std::min(shortest, predicted);
    longest = std::max(longest, predicted);
    ++runs;
  }
  REQUIRE(runs >= 9);
  const RunBand band = kernels_fitted_to_runs(run_columns + own + others, "runs.csv").runs.at(0);
  CHECK(band.rows == runs);
  CHECK(band.shortest_s == shortest);
  CHECK(band.longest_s == longest);
  CHECK(band.factor == kernels_fitted_to_runs(run_columns + own, "runs.csv").runs.at(0).factor);
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
  for (const Prediction& p : predict_runs(MeasuredTable::parse(text(std::vector<double>(rows, 100)), "o.csv"), ""))
    measured.push_back(1.2 * p.predicted.si() * 1e6);
  REQUIRE(measured.size() == rows);
  const MeasuredKernels kernels = kernels_fitted_to_runs(text(measured), "o.csv");
  const ErrorBand* band = kernels.band_of(slow_down_group);
  REQUIRE(band != nullptr);
  CHECK(band->rows == rows);
  CHECK_THAT(band->inside, WithinRel(0.2, 1e-6));
  CHECK_THAT(band->outside, WithinRel(2 * 0.2, 1e-6));
  CHECK_THAT(band->least, WithinRel(measured.front() * 1e-6, 1e-6));
  CHECK_THAT(band->most, WithinRel(measured.back() * 1e-6, 1e-6));
}

TEST_CASE("coverage is that of rows within the measured range: beyond it intervals are wider on purpose") {
  Prediction inside;
  inside.group = "g";
  inside.measured = Seconds::from_si(1);
  inside.predicted = Seconds::from_si(1.2);
  inside.band = 0.1;
  Prediction beyond = inside;
  beyond.extrapolated = true;
  beyond.band = 0.5;
  CHECK(over_all({inside, beyond}).interval_coverage == 0.0);
  CHECK(over_all({inside, beyond}).rows == 2);
  CHECK_FALSE(over_all({beyond}).interval_coverage.has_value());
}

TEST_CASE("rows that set the width of an interval are not among those it is tried on") {
  int calibrated = 0, fitted = 0;
  const std::vector<Prediction> rows = predict("h200_sxm_full/elementwise.csv");
  for (const Prediction& p : rows) {
    calibrated += p.calibrated;
    fitted += p.fitted;
    CHECK_FALSE((p.calibrated && p.fitted));
  }
  CHECK(calibrated * 4 > static_cast<int>(rows.size()));
  CHECK(fitted * 4 > static_cast<int>(rows.size()));
}

TEST_CASE("a run of a head_dim or over a link that nobody measured is extrapolated, with a wider interval") {
  const auto band = [](const std::string& link, int head_dim) {
    const std::string row =
        fmt::format("orrery_ring,cudnn,h200_sxm,{},2,16384,32,8,{},true,zigzag,ring,forward,1.1\n", link, head_dim);
    return predict_runs(MeasuredTable::parse(run_columns + row, "m.csv"), "").front();
  };
  const Prediction measured_run = band("nvlink4", 128);
  CHECK_FALSE(measured_run.extrapolated);
  for (const auto& [link, head_dim] : {std::pair("pcie5_x16", 128), std::pair("nvlink4", 80)}) {
    CHECK(band(link, head_dim).extrapolated);
    CHECK(band(link, head_dim).band > 1.5 * measured_run.band);
  }
}

TEST_CASE("a wider head takes longer, measured or not, and its run is at least as uncertain as its kernel") {
  const std::string head = run_columns.substr(0, run_columns.size() - 1) + ",n_q,n_k\n";
  const auto rows = [&](int head_dim, const std::string& pass) {
    const std::string shape = fmt::format("32,8,{},true,contiguous", head_dim);
    return predict_runs(
        MeasuredTable::parse(head + fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,1,16384,{0},,{1},1,,\n"
                                                "mine,cudnn,h200_sxm,,1,,{0},kernel,{1},1,16384,16384\n",
                                                shape, pass),
                             "m.csv"),
        "");
  };
  for (const std::string pass : {"forward", "backward"}) {
    Seconds run, kernel;
    for (const int head_dim : {32, 64, 72, 80, 96, 104, 112, 120, 128, 192, 256}) {
      INFO(pass << " " << head_dim);
      auto found = rows(head_dim, pass);
      if (!found[0].many_gpus) std::swap(found[0], found[1]);
      CHECK(found[0].predicted > run);
      CHECK(found[1].predicted > kernel);
      run = found[0].predicted;
      kernel = found[1].predicted;
      if (head_dim == 64 || head_dim == 96 || head_dim == 128) continue;
      CHECK(found[0].extrapolated);
      CHECK(found[0].band > 0.8 * found[1].band);  // its merge is known better
    }
  }
}

TEST_CASE("intervals of rings cover what they promise, on runs that did not set their width") {
  const std::vector<Prediction> rows = predict("h200_sxm_x2/ring.csv");
  const auto calibrating = std::count_if(rows.begin(), rows.end(), [](const Prediction& p) { return p.calibrated; });
  CHECK(calibrating * 10 >= static_cast<std::ptrdiff_t>(rows.size()) * 4);
  CHECK(calibrating * 10 <= static_cast<std::ptrdiff_t>(rows.size()) * 6);
  CHECK(over_all(rows).interval_coverage >= 0.85);
}

TEST_CASE("a kernel in a burst and the same kernel for ten seconds take the times that were measured") {
  const std::vector<Prediction> rows = predict("h200_sxm_power/power.csv");
  CHECK(rows.size() == 55);
  for (const Prediction& p : rows) {
    INFO(p.name);
    CHECK(std::abs(p.deviation()) < (p.name.starts_with("copy ") ? 0.1 : 0.06));
  }
}

TEST_CASE("a row of power.csv that says why it does not count has no prediction, but the reason") {
  for (const Prediction& p : predict("h200_sxm_whole/power.csv")) {
    CHECK(p.reason.empty() == (p.group.find("kernels in bursts") == std::string::npos));
    CHECK((p.predicted > Seconds()) == p.reason.empty());
  }
}

TEST_CASE("a kernel of power.csv beyond the sizes that were measured, on either side, has the wider interval") {
  const Profile profile = load_profile("h200_sxm", "h200_sxm");
  const ErrorBand& band = *profile.kernels->band_of("gemm");
  REQUIRE(band.outside > band.inside);
  for (const double n : {64.0, 8192.0, 1048576.0}) {
    const MeasuredTable table =
        MeasuredTable::parse(fmt::format("gpu,kernel,shape,regime,second,time_us,nvml_sm_clock_mhz\n"
                                         "h200_sxm,gemm,{0} x {0} x {0},burst,0,1,1980\n",
                                         n),
                             "power.csv");
    const Prediction p = predict_runs(table, "").at(0);
    const double flops = 2 * n * n * n;
    CHECK(p.extrapolated == (flops < band.least || flops > band.most));
    CHECK(p.extrapolated == (n != 8192));
    CHECK(p.band == (n == 8192 ? band.inside : band.outside));
  }
}

TEST_CASE("a product loses the 24 SMs of a collective of NCCL, or its channels, for as long as that takes") {
  const auto predicted = [](const std::string& mechanism, double transfer_us) {
    const std::string csv = fmt::format(
        "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us\n"
        "gemm,{},h200_sxm,nvlink4,1000,1100,1e8,{}\n",
        mechanism, transfer_us);
    return predict_runs(MeasuredTable::parse(csv, "made.csv"), "").at(0).predicted.si();
  };
  const double alone = 1e-3, sms = 132;
  const NcclBeside beside = *load_profile("h200_sxm", "h200_sxm").kernels->nccl_beside;
  const double half = 500 / beside.matrix_products.value;  // alone; beside the product it takes half of its time
  CHECK_THAT(predicted("nccl_all_gather,", 2000), WithinRel(alone * sms / (sms - 24), 1e-9));
  CHECK_THAT(predicted("nccl_all_gather,", half), WithinRel(alone * sms / (sms - 24 / 2.0), 1e-9));
  CHECK_THAT(predicted("nccl_send_recv,8", 2000), WithinRel(alone * sms / (sms - 8), 1e-9));
  CHECK_THAT(predicted("copy_engine,", 2000), WithinRel(alone, 1e-9));
}

TEST_CASE("the slow-down of kernels beside copies and NCCL is predicted within 5 % in the mean") {
  const ErrorSummary overlap = over_all(predict("h200_sxm_x2/overlap.csv"));
  CHECK(overlap.rows >= 20);
  CHECK(overlap.interval_coverage >= 0.85);
  CHECK(overlap.mean_abs_rel < 0.05);
}

TEST_CASE("forward and backward together are as uncertain as the less certain of them") {
  const auto band = [](const std::string& pass) {
    const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms\n";
    const std::string row = "h200_sxm,4096,4096,32,32,128,false,kernel," + pass + ",\n";
    return predict_runs(MeasuredTable::parse(names + row, "made.csv"), "").at(0).band;
  };
  CHECK(band("forward") != band("backward"));
  CHECK(band("forward_backward") == std::max(band("forward"), band("backward")));
}

TEST_CASE("no row of a ring is marked as fitted on") {
  for (const Prediction& p : predict("h200_sxm_x2/ring.csv")) CHECK_FALSE(p.fitted);
}

TEST_CASE("the summary counts what was predicted and held out, with the mean, median, p90 and maximum by hand") {
  std::vector<Prediction> rows(5);
  const double errors[] = {0.01, -0.02, 0.03, 0.5, 0.9};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].group = "g";
    rows[i].measured = Seconds::from_si(1);
    rows[i].predicted = Seconds::from_si(1 + errors[i]);
    rows[i].band = 0.025;
  }
  rows[3].fitted = true;
  rows[4].reason = "no model";
  const ErrorSummary s = over_all(rows);
  CHECK(s.rows == 3);
  CHECK_THAT(s.mean_abs_rel, WithinRel(0.02, 1e-9));
  CHECK_THAT(s.median_abs_rel, WithinRel(0.02, 1e-9));
  CHECK_THAT(s.p90_abs_rel, WithinRel(0.028, 1e-9));
  CHECK_THAT(s.max_abs_rel, WithinRel(0.03, 1e-9));
  CHECK_THAT(s.interval_coverage.value(), WithinRel(2.0 / 3, 1e-9));
}

TEST_CASE("a run of GPUs that are one GPU, or of limited channels, is listed but not predicted") {
  const std::vector<Prediction> rows = predict("h200_sxm/ring.csv");
  REQUIRE_FALSE(rows.empty());
  for (const Prediction& p : rows) CHECK(p.reason == "its ranks share one GPU");
}

TEST_CASE("a mask costs an attention kernel as many cycles at every head_dim, where a profile was fitted to blocks") {
  const Profile profile = load_profile("h200_sxm", "h200_sxm");
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const AttentionModel& narrow = *profile.kernels->attention_of(phase, 64);
    const AttentionModel& wide = *profile.kernels->attention_of(phase, 128);
    REQUIRE(narrow.head_dim != wide.head_dim);
    const auto of_a_tile = [](const AttentionModel& m) { return m.masked_tile.value - m.full_tile.value; };
    const auto of_the_kernel = [](const AttentionModel& m) { return (m.masked_kernel.value - 1) * m.full_tile.value; };
    CHECK_THAT(of_a_tile(narrow), WithinRel(of_a_tile(wide), 1e-3));
    CHECK_THAT(of_the_kernel(narrow), WithinRel(of_the_kernel(wide), 1e-3));
  }
}

TEST_CASE("the profiles that predictions were made with can still be read") {
  int read = 0;
  for (const auto& folder : std::filesystem::directory_iterator(measured_folder.parent_path() / "predictions")) {
    if (!folder.is_directory()) continue;
    const std::string name = folder.path().filename().string();
    INFO(name);
    const Profile profile = load_profile((folder.path() / "profile.toml").string(), name.substr(0, name.rfind("_x")));
    CHECK_FALSE(profile.kernels->attention.empty());
    ++read;
  }
  CHECK(read == 8);
}
