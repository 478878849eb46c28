// The committed measured files, predicted by the committed profiles: the table of errors stays where it is.
#include "validate/runs.hpp"

#include <fmt/format.h>

#include <map>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/kernel_cost.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"

using namespace orrery;

TEST_CASE("attention blocks of an H200 that were held out are predicted within the stated errors") {
  const std::vector<Prediction> rows = predict_measured("h200_sxm_full/attention.csv");
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
    CHECK(over_all(predict_measured(std::string("h200_sxm_full/") + file + ".csv")).median_abs_rel < 0.035);
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
  const std::vector<ErrorSummary> groups = summarize(predict_measured("h200_sxm_x2/ring.csv"));
  CHECK(groups.front().group == "h200_sxm_x2: orrery_ring copy_engine");
  CHECK(groups.front().mean_abs_rel < 0.04);
  CHECK(groups.front().max_abs_rel < 0.10);
}

TEST_CASE("rings over NCCL, whose hops kernels slow: mean 4 % on two H200s, 7 % on four H100s") {
  const auto mean_of = [](const std::string& folder) {
    for (const ErrorSummary& group : summarize(predict_measured(folder + "/ring.csv"))) {
      if (group.group == folder + ": orrery_ring nccl") return group.mean_abs_rel;
    }
    return 1.0;
  };
  CHECK(mean_of("h200_sxm_x2") < 0.04);
  CHECK(mean_of("h100_sxm_x4") < 0.07);
}

TEST_CASE(
    "a run of one GPU takes its kernel and a merge that grows evenly with the tokens, whatever is left of a tile") {
  const std::string head = run_columns_and("n_q,n_k");
  for (const std::string kind : {"false,contiguous,{},forward", "true,contiguous,{},backward"}) {
    // What the run takes beyond the kernel, in seconds.
    const auto beyond_kernel = [&](int n) {
      const std::string run = fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,1,{},32,8,128,{},1,,\n", n,
                                          fmt::format(fmt::runtime(kind), "ring"));
      const std::string kernel =
          fmt::format("mine,cudnn,h200_sxm,,1,,32,8,128,{},1,{},{}\n", fmt::format(fmt::runtime(kind), "kernel"), n, n);
      const auto rows = predict_text(head + run + kernel);
      const Seconds both = rows[0].predicted - rows[1].predicted;
      return (rows[0].many_gpus ? both : Seconds() - both).si();
    };
    const double at_13568 = beyond_kernel(13568), at_13696 = beyond_kernel(13696);
    CHECK_THAT(beyond_kernel(13584), WithinRel(at_13568 + (at_13696 - at_13568) / 8, 0.01));
    CHECK_THAT(beyond_kernel(13632), WithinRel(at_13568 + (at_13696 - at_13568) / 2, 0.01));
  }
}

TEST_CASE("a kernel in a burst and the same kernel for ten seconds take the times that were measured") {
  const std::vector<Prediction> rows = predict_measured("h200_sxm_power/power.csv");
  CHECK(rows.size() == 55);
  for (const Prediction& p : rows) {
    INFO(p.name);
    CHECK(std::abs(p.deviation()) < (p.name.starts_with("copy ") ? 0.1 : 0.06));
  }
}

TEST_CASE("a row of power.csv that says why it does not count has no prediction, but the reason") {
  for (const Prediction& p : predict_measured("h200_sxm_whole/power.csv")) {
    CHECK(p.reason.empty() == (p.group.find("kernels in bursts") == std::string::npos));
    CHECK((p.predicted > Seconds()) == p.reason.empty());
  }
}

TEST_CASE("a product loses the 24 SMs of a collective of NCCL, or its channels, for as long as that takes") {
  const auto predicted = [](const std::string& mechanism, double transfer_us) {
    const std::string csv = fmt::format(
        "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us\n"
        "gemm,{},h200_sxm,nvlink4,1000,1100,1e8,{}\n",
        mechanism, transfer_us);
    return predict_text(csv).at(0).predicted.si();
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
  const ErrorSummary overlap = over_all(predict_measured("h200_sxm_x2/overlap.csv"));
  CHECK(overlap.rows >= 20);
  CHECK(overlap.interval_coverage >= 0.85);
  CHECK(overlap.mean_abs_rel < 0.05);
}

TEST_CASE("no row of a ring is marked as fitted on") {
  for (const Prediction& p : predict_measured("h200_sxm_x2/ring.csv")) CHECK_FALSE(p.fitted);
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
  const std::vector<Prediction> rows = predict_measured("h200_sxm/ring.csv");
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
