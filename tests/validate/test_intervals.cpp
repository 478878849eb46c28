// How sure predictions are: what lies beyond the measured range, and how often intervals hold.
#include "validate/runs.hpp"

#include <fmt/format.h>

#include <utility>

#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"

using namespace orrery;

namespace {

Prediction of_kernel(int n_q, int n_k, const char* causal, const std::string& gpu = "h200_sxm", int head_dim = 128) {
  const std::string row =
      fmt::format("mine,cudnn,{},,1,,32,8,{},{},,kernel,forward,9,{},{}\n", gpu, head_dim, causal, n_q, n_k);
  return predict_text(run_columns_and("n_q,n_k") + row).front();
}

}  // namespace

TEST_CASE("attention of a head_dim that was not measured is extrapolated, with a wider interval") {
  const auto band = [](int head_dim, const std::string& gpu = "h200_sxm") {
    return of_kernel(8192, 8192, "false", gpu, head_dim);
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
  const Prediction measured = of_kernel(8192, 8192, "true");
  CHECK_FALSE(measured.extrapolated);
  // Measured: from 512 to 131072 of each, without a mask also of different numbers.
  CHECK_FALSE(of_kernel(512, 131072, "false").extrapolated);
  CHECK_FALSE(of_kernel(131072, 512, "false").extrapolated);
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
    CHECK(of_kernel(b.n_q, b.n_k, b.causal).extrapolated);
    CHECK_THAT(of_kernel(b.n_q, b.n_k, b.causal).band, WithinRel(2 * measured.band, 1e-4));
  }
  CHECK_FALSE(of_kernel(8192, 16384, "true").extrapolated);  // h200_sxm_rectangles
  CHECK(of_kernel(8192, 16384, "true", "h100_sxm").extrapolated);
}

TEST_CASE("a run of a mask or a layout that no run of its implementation was measured with is extrapolated") {
  const auto band = [](const char* layout, const char* causal, const char* window) {
    const std::string head = run_columns_and("window");
    const std::string row = fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,2,65536,32,8,128,{},{},ring,forward,9,{}\n",
                                        causal, layout, window);
    return predict_text(head + row).front();
  };
  CHECK_FALSE(band("zigzag", "true", "").extrapolated);
  // Without a mask every layout is the same blocks.
  CHECK_FALSE(band("striped", "false", "").extrapolated);
  CHECK(band("striped", "true", "").extrapolated);
  CHECK(band("contiguous", "true", "8192").extrapolated);
}

TEST_CASE("a run of a head_dim or over a link that nobody measured is extrapolated, with a wider interval") {
  const auto band = [](const std::string& link, int head_dim) {
    const std::string row =
        fmt::format("orrery_ring,cudnn,h200_sxm,{},2,16384,32,8,{},true,zigzag,ring,forward,1.1\n", link, head_dim);
    return predict_text(run_columns + row).front();
  };
  const Prediction measured_run = band("nvlink4", 128);
  CHECK_FALSE(measured_run.extrapolated);
  for (const auto& [link, head_dim] : {std::pair("pcie5_x16", 128), std::pair("nvlink4", 80)}) {
    CHECK(band(link, head_dim).extrapolated);
    CHECK(band(link, head_dim).band > 1.5 * measured_run.band);
  }
}

TEST_CASE("a wider head takes longer, measured or not, and its run is at least as uncertain as its kernel") {
  const std::string head = run_columns_and("n_q,n_k");
  const auto rows = [&](int head_dim, const std::string& pass) {
    const std::string shape = fmt::format("32,8,{},true,contiguous", head_dim);
    return predict_text(head + fmt::format("orrery_ring,cudnn,h200_sxm,nvlink4,1,16384,{0},,{1},1,,\n"
                                           "mine,cudnn,h200_sxm,,1,,{0},kernel,{1},1,16384,16384\n",
                                           shape, pass));
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

TEST_CASE("a kernel of power.csv beyond the sizes that were measured, on either side, has the wider interval") {
  const Profile profile = load_profile("h200_sxm", "h200_sxm");
  const ErrorBand& band = *profile.kernels->band_of("gemm");
  REQUIRE(band.outside > band.inside);
  for (const double n : {64.0, 8192.0, 1048576.0}) {
    const std::string columns = "gpu,kernel,shape,regime,second,time_us,nvml_sm_clock_mhz\n";
    const Prediction p = predict_text(columns + fmt::format("h200_sxm,gemm,{0} x {0} x {0},burst,0,1,1980\n", n)).at(0);
    const double flops = 2 * n * n * n;
    CHECK(p.extrapolated == (flops < band.least || flops > band.most));
    CHECK(p.extrapolated == (n != 8192));
    CHECK(p.band == (n == 8192 ? band.inside : band.outside));
  }
}

TEST_CASE("forward and backward together are as uncertain as the less certain of them") {
  const auto band = [](const std::string& pass) {
    const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms\n";
    const std::string row = "h200_sxm,4096,4096,32,32,128,false,kernel," + pass + ",\n";
    return predict_text(names + row).at(0).band;
  };
  CHECK(band("forward") != band("backward"));
  CHECK(band("forward_backward") == std::max(band("forward"), band("backward")));
}

TEST_CASE("a row without an interval counts in no coverage") {
  const std::vector<Prediction> rows = predict_text(
      run_columns + "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1\n", "peak");
  CHECK_FALSE(rows.front().has_interval());
  CHECK(over_all(rows).rows == 1);
  CHECK_FALSE(over_all(rows).interval_coverage.has_value());
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
  const std::vector<Prediction> rows = predict_measured("h200_sxm_full/elementwise.csv");
  for (const Prediction& p : rows) {
    calibrated += p.calibrated;
    fitted += p.fitted;
    CHECK_FALSE((p.calibrated && p.fitted));
  }
  CHECK(calibrated * 4 > static_cast<int>(rows.size()));
  CHECK(fitted * 4 > static_cast<int>(rows.size()));
}

TEST_CASE("intervals of rings cover what they promise, on runs that did not set their width") {
  const std::vector<Prediction> rows = predict_measured("h200_sxm_x2/ring.csv");
  const auto calibrating = std::count_if(rows.begin(), rows.end(), [](const Prediction& p) { return p.calibrated; });
  CHECK(calibrating * 10 >= static_cast<std::ptrdiff_t>(rows.size()) * 4);
  CHECK(calibrating * 10 <= static_cast<std::ptrdiff_t>(rows.size()) * 6);
  CHECK(over_all(rows).interval_coverage >= 0.85);
}
