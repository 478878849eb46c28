// The committed measured files, predicted by the committed profiles: the table of errors stays where it is.
#include "validate/runs.hpp"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "validate/residuals.hpp"
#include "validate/run_bands.hpp"

using namespace orrery;

namespace {

const std::filesystem::path measured = std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured";

std::vector<Prediction> predict(const std::string& file) {
  return predict_runs(MeasuredTable::read(measured / file), "");
}

ErrorSummary over_all(const std::vector<Prediction>& rows) {
  return summarize(rows).back();
}

const char* columns =
    "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms\n";

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

TEST_CASE("a row of a run that makes no sense is an error that names its line and the column") {
  const std::string good = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1";
  const auto with = [&](const std::string& old, const std::string& replacement) {
    std::string row = good;
    return row.replace(row.find(old), old.size(), replacement);
  };
  const auto predict_row = [](const std::string& row) {
    return predict_runs(MeasuredTable::parse(columns + row + "\n", "mine.csv"), "");
  };
  CHECK(predict_row(good).size() == 1);
  const std::pair<std::string, std::string> bad[] = {{with("contiguous", "contigous"), "layout"},
                                                     {with(",ring,", ",rong,"), "schedule"},
                                                     {with("1.1", "-3"), "time_ms"},
                                                     {with("1.1", "0"), "time_ms"},
                                                     {with("1.1", "nan"), "time_ms"},
                                                     {with("nvlink4,2", "nvlink4,2.5"), "n_gpu"},
                                                     {with("8192", "1e30"), "seq_len"},
                                                     {with("32,32", "32,5"), "key heads"},
                                                     {with("forward", "fwd"), "pass"},
                                                     {with("orrery_ring", "orrery_rong"), "implementation"},
                                                     {with("h200_sxm", "h300"), "orrery list gpus"},
                                                     {with("nvlink4", "nvlink44"), "orrery list links"},
                                                     {with("nvlink4,2", "nvlink4,3"), "equal parts"},
                                                     {with("nvlink4,2", "nvlink4,1000000000"), "n_gpu"},
                                                     {with("8192", "1000000000000"), "seq_len"}};
  for (const auto& [row, named] : bad) {
    INFO(row);
    CHECK_THROWS_WITH(predict_row(row), ContainsSubstring("mine.csv:2") && ContainsSubstring(named));
  }
}

TEST_CASE("kernels and runs in one file are all predicted, each by the GPU and the tolerance of its row") {
  const std::string head = std::string(columns).substr(0, std::string(columns).size() - 1) + ",n_q,n_k,tolerance\n";
  const std::string run = "orrery_ring,cudnn,h200_sxm,nvlink4,2,16384,32,8,128,true,zigzag,ring,forward,9,,,\n";
  const auto kernel = [](const std::string& gpu, const std::string& pass = "forward") {
    return "mine,cudnn," + gpu + ",,1,,32,8,128,false,,kernel," + pass + ",9,8192,8192,0.01\n";
  };
  const auto all = [&](const std::string& rows) {
    return predict_runs(MeasuredTable::parse(head + rows, "m.csv"), "");
  };
  const std::vector<Prediction> rows = all(kernel("h200_sxm") + run + kernel("h100_sxm"));
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].many_gpus);
  CHECK(rows[1].predicted == all(run).front().predicted);
  CHECK(rows[0].predicted == all(kernel("h200_sxm")).front().predicted);
  CHECK(rows[2].predicted == all(kernel("h100_sxm")).front().predicted);
  CHECK(rows[0].predicted != rows[2].predicted);
  CHECK(rows[0].tolerance == 0.01);
  CHECK_FALSE(rows[1].tolerance.has_value());

  const Prediction both = all(kernel("h200_sxm", "forward_backward")).front();
  CHECK(both.predicted == rows[0].predicted + all(kernel("h200_sxm", "backward")).front().predicted);
  CHECK(both.has_interval());
}

TEST_CASE(
    "a run of one GPU takes its kernel and a merge that grows evenly with the tokens, whatever is left of a tile") {
  const std::string head = std::string(columns).substr(0, std::string(columns).size() - 1) + ",n_q,n_k\n";
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
  const auto band = [](int head_dim) {
    const std::string row =
        fmt::format("mine,cudnn,h200_sxm,,1,,32,8,{},false,,kernel,forward,9,8192,8192\n", head_dim);
    const std::string head = std::string(columns).substr(0, std::string(columns).size() - 1) + ",n_q,n_k\n";
    return predict_runs(MeasuredTable::parse(head + row, "m.csv"), "").front();
  };
  for (const int known : {64, 128}) CHECK_FALSE(band(known).extrapolated);
  for (const int other : {96, 256}) {
    CHECK(band(other).extrapolated);
    CHECK(band(other).band > 2 * band(128).band);
  }
}

TEST_CASE("a row of a kernel that makes no sense is an error that names its line and the column") {
  const std::string good = "mine,cudnn,h200_sxm,,1,,32,8,128,false,,kernel,forward,1.1,8192,4096";
  const std::string head = std::string(columns).substr(0, std::string(columns).size() - 1) + ",n_q,n_k\n";
  const auto predict_row = [&](const std::string& row) {
    return predict_runs(MeasuredTable::parse(head + row + "\n", "mine.csv"), "");
  };
  CHECK(predict_row(good).size() == 1);
  const auto with = [&](const std::string& old, const std::string& replacement) {
    std::string row = good;
    return row.replace(row.find(old), old.size(), replacement);
  };
  const std::pair<std::string, std::string> bad[] = {
      {with(",32,", ",0.5,"), "heads"}, {with(",32,", ",-4,"), "heads"}, {with(",32,8,", ",40,7,"), "key heads"},
      {with("8192", "8192.5"), "n_q"},  {with("4096", "0"), "n_k"},      {with("1.1", "0"), "time_ms"},
      {with("1.1", "inf"), "time_ms"},  {with("forward", "fwd"), "pass"}};
  for (const auto& [row, named] : bad) {
    INFO(row);
    CHECK_THROWS_WITH(predict_row(row), ContainsSubstring("mine.csv:2") && ContainsSubstring(named));
  }
}

TEST_CASE("a row without an interval counts in no coverage") {
  const std::vector<Prediction> rows = predict_runs(
      MeasuredTable::parse(std::string(columns) +
                               "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1\n",
                           "runs.csv"),
      "peak");
  CHECK_FALSE(rows.front().has_interval());
  CHECK(over_all(rows).rows == 1);
  CHECK_FALSE(over_all(rows).interval_coverage.has_value());
}

TEST_CASE("runs that set widths and runs that try them are of every mask, rotation and length, whatever the order") {
  const MeasuredTable table = MeasuredTable::read(measured / "h200_sxm_torch_x2/torch_context_parallel.csv");
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

TEST_CASE("an optional field of a run that makes no sense is an error that names its line and the column") {
  const auto predict_row = [](const std::string& column, const std::string& cell) {
    std::string head = columns;
    head.insert(head.size() - 1, "," + column);
    return predict_runs(MeasuredTable::parse(head +
                                                 "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,"
                                                 "ring,forward,1.1," +
                                                 cell + "\n",
                                             "mine.csv"),
                        "");
  };
  const std::pair<const char*, const char*> good[] = {
      {"nodes", "1"}, {"transport", "nccl"}, {"regime", "burst"}, {"channels", "4"}, {"", ""}};
  for (const auto& [column, cell] : good) CHECK(predict_row(column, cell).size() == 1);
  const std::pair<const char*, const char*> bad[] = {
      {"nodes", "0"},          {"nodes", "1.5"},          {"nodes", "-1"},         {"nodes", "3"},
      {"ulysses_degree", "2"}, {"ulysses_degree", "2.5"}, {"ulysses_degree", "0"}, {"window", "0"},
      {"window", "100.5"},     {"regime", "bust"},        {"transport", "ncccl"},  {"channels", "foo"},
      {"tolerance", "-1"},     {"status", "OK"},          {"tolerance", "0.x"}};
  for (const auto& [column, cell] : bad) {
    INFO(column << " = " << cell);
    CHECK_THROWS_WITH(predict_row(column, cell), ContainsSubstring("mine.csv:2") && ContainsSubstring(column));
  }
}

TEST_CASE("a measured slow-down or power that makes no sense is an error that names its line and the column") {
  const std::string overlap =
      "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us,"
      "status\n";
  const auto slow_down = [&](const std::string& row) {
    return predict_runs(MeasuredTable::parse(overlap + row + "\n", "mine.csv"), "");
  };
  CHECK(slow_down("merge,nccl_send_recv,4,h200_sxm,nvlink4,100,110,1e8,400,ok").size() == 1);
  const std::pair<const char*, const char*> bad[] = {
      {"merge,nccl_send_recv,abc,h200_sxm,nvlink4,100,110,1e8,400,ok", "channels"},
      {"merge,nccl_send_recv,4,h200_sxm,nvlink4,-5,110,1e8,400,ok", "compute_alone_us"},
      {"merge,nccl_send_recv,4,h200_sxm,nvlink4,100,-5,1e8,400,ok", "compute_overlapped_us"},
      {"merge,nccl_send_recv,4,h200_sxm,nvlink4,100,110,1e8,0,ok", "transfer_alone_us"},
      {"merge,nccl_send_recv,4,h200_sxm,nvlink4,100,110,1e8,400,Ok", "status"}};
  for (const auto& [row, named] : bad) {
    INFO(row);
    CHECK_THROWS_WITH(slow_down(row), ContainsSubstring("mine.csv:2") && ContainsSubstring(named));
  }
}

TEST_CASE("a measured file of any kind without a row predicts nothing, and one with time stamps is refused") {
  for (const char* file : {"h200_sxm/attention.csv", "h200_sxm/gemm.csv", "h200_sxm/merge.csv", "h200_sxm/links.csv",
                           "h200_sxm/power.csv", "h200_sxm_x2/overlap.csv", "h200_sxm_x2/ring.csv"}) {
    INFO(file);
    std::string names;
    const MeasuredTable table = MeasuredTable::read(measured / file);
    for (const std::string& column : table.columns()) {
      names += (names.empty() ? "" : ",") + column;
    }
    CHECK(predict_runs(MeasuredTable::parse(names + "\n", "mine.csv"), "").empty());
  }
  const auto steps = [](const std::string& text) { return stamped_runs(MeasuredTable::parse(text, "mine.csv")); };
  CHECK_THROWS_WITH(steps("n_gpu,run_us,rank,step,op,start_us,end_us\n"), ContainsSubstring("mine.csv: no rows"));
  CHECK_THROWS_WITH(steps("implementation,rank\nring,0\n"), ContainsSubstring("mine.csv: no column run_us"));
}

TEST_CASE("slow-downs and power of two GPUs in one file are predicted with the constants of each") {
  const std::string overlap =
      "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us\n";
  const std::string power = "gpu,kernel,shape,regime,second,time_us,nvml_sm_clock_mhz,bytes\n";
  const auto row_of = [&](const std::string& columns_of, const std::string& gpu) {
    return columns_of == power ? gpu + ",gemm,8192 x 8192 x 8192,sustained,5,1,,\n"
                               : "merge,copy_engine,," + gpu + ",nvlink4,100,110,1e8,250\n";
  };
  for (const std::string& columns_of : {overlap, power}) {
    INFO(columns_of);
    const auto times = [&](const std::string& rows) {
      std::vector<Seconds> predicted;
      for (const Prediction& p : predict_runs(MeasuredTable::parse(columns_of + rows, "mine.csv"), ""))
        predicted.push_back(p.predicted);
      return predicted;
    };
    const std::string h200 = row_of(columns_of, "h200_sxm"), h100 = row_of(columns_of, "h100_sxm");
    const std::vector<Seconds> both = times(h200 + h100);
    REQUIRE(both.size() == 2);
    CHECK(both[0] == times(h200).at(0));
    CHECK(both[1] == times(h100).at(0));
    CHECK(both[0] != both[1]);
  }
}

TEST_CASE("a reading error is a fraction from 0 to 1, and a row of a kernel needs the columns of kernels") {
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1\n";
  const auto predict_file = [&](const std::string& header, const std::string& rows) {
    return predict_runs(MeasuredTable::parse(header + columns + rows, "mine.csv"), "");
  };
  CHECK(predict_file("# reading_error = 0.002\n", row).front().reading_error == 0.002);
  for (const char* bad : {"abc", "-3", "2 %", "1", "nan", "0.1x"}) {
    INFO(bad);
    CHECK_THROWS_WITH(predict_file(std::string("# reading_error = ") + bad + "\n", row),
                      ContainsSubstring("mine.csv: reading_error"));
  }
  CHECK_THROWS_WITH(predict_file("", row + "mine,cudnn,h200_sxm,,1,,32,8,128,false,,kernel,forward,9\n"),
                    ContainsSubstring("mine.csv:3") && ContainsSubstring("n_q"));
}

TEST_CASE("a byte order mark before the first column is no part of its name") {
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1\n";
  CHECK(predict_runs(MeasuredTable::parse("\xef\xbb\xbf" + std::string(columns) + row, "mine.csv"), "").size() == 1);
}

TEST_CASE("a run of a head_dim or over a link that nobody measured is extrapolated, with a wider interval") {
  const auto band = [](const std::string& link, int head_dim) {
    const std::string row =
        fmt::format("orrery_ring,cudnn,h200_sxm,{},2,16384,32,8,{},true,zigzag,ring,forward,1.1\n", link, head_dim);
    return predict_runs(MeasuredTable::parse(columns + row, "m.csv"), "").front();
  };
  const Prediction measured_run = band("nvlink4", 128);
  CHECK_FALSE(measured_run.extrapolated);
  for (const auto& [link, head_dim] : {std::pair("pcie5_x16", 128), std::pair("nvlink4", 96)}) {
    CHECK(band(link, head_dim).extrapolated);
    CHECK(band(link, head_dim).band > 1.5 * measured_run.band);
  }
}

TEST_CASE("a wider head takes longer, measured or not, and its run is at least as uncertain as its kernel") {
  const std::string head = std::string(columns).substr(0, std::string(columns).size() - 1) + ",n_q,n_k\n";
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
      if (head_dim == 64 || head_dim == 128) continue;
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

TEST_CASE("a kernel in a burst and the same kernel for ten seconds take the times that were measured, within 9 %") {
  const std::vector<Prediction> rows = predict("h200_sxm/power.csv");
  CHECK(rows.size() >= 50);
  for (const Prediction& p : rows) {
    INFO(p.name);
    CHECK(std::abs(p.deviation()) < 0.09);
  }
}

TEST_CASE("the slow-down of kernels beside copies and NCCL is predicted within 5 % in the mean") {
  const ErrorSummary overlap = over_all(predict("h200_sxm_x2/overlap.csv"));
  CHECK(overlap.rows >= 20);
  CHECK(overlap.interval_coverage >= 0.85);
  CHECK(overlap.mean_abs_rel < 0.05);
}

TEST_CASE("the backend of a run says whose kernels it ran, if there is a profile of them") {
  const auto predicted = [](const std::string& backend, const std::string& profile) {
    const std::string row = "pytorch_context_parallel," + backend +
                            ",h200_sxm,nvlink4,2,32768,32,32,128,false,contiguous,alltoall,forward,1\n";
    return predict_runs(MeasuredTable::parse(columns + row, "made.csv"), profile).at(0).predicted;
  };
  CHECK(predicted("flash", "") == predicted("", "h200_sxm_flash"));
  CHECK(predicted("cudnn", "") == predicted("", "h200_sxm"));
  CHECK(predicted("flash", "") > 1.4 * predicted("cudnn", ""));
}

TEST_CASE("kernels that no profile is of are not predicted, but with the profile that was asked for") {
  const std::string names =
      "backend,gpu,link,n_gpu,implementation,seq_len,layout,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_"
      "ms"
      "\n";
  const auto predicted = [&](const std::string& backend, const std::string& gpu, const std::string& profile) {
    const std::string kernel = backend + "," + gpu + ",nvlink4,1,,,,4096,4096,32,32,128,false,kernel,forward,1\n";
    const std::string run =
        backend + "," + gpu + ",nvlink4,2,orrery_ring,8192,contiguous,,,32,32,128,false,ring,forward,1\n";
    return predict_runs(MeasuredTable::parse(names + kernel + run, "made.csv"), profile);
  };
  for (const char* unknown : {"triton", "cudn"}) {
    for (const Prediction& p : predicted(unknown, "h200_sxm", ""))
      CHECK_THAT(p.reason, ContainsSubstring("no profile is of this kernel") && ContainsSubstring(unknown) &&
                               ContainsSubstring("h200_sxm is of cudnn"));
    for (const Prediction& p : predicted(unknown, "h200_sxm", "h200_sxm")) CHECK(p.reason.empty());
  }
  for (const Prediction& p : predicted("cudnn", "a100_80_sxm", "")) CHECK_FALSE(p.reason.empty());
  for (const Prediction& p : predicted("fa2", "a100_80_sxm", "")) CHECK(p.reason.empty());
}

TEST_CASE("rows of kernels and of runs mean what all their cells say, or are an error with their line") {
  const auto predicted = [](const std::string& names, const std::string& row, bool run) {
    const std::string all = run ? "implementation,n_gpu,seq_len,layout,schedule," : "n_q,n_k,schedule,";
    const std::string own = run ? "orrery_window,2,8192,contiguous,halo," : "4096,4096,kernel,";
    return predict_runs(MeasuredTable::parse(all + "gpu,link,kv_heads,head_dim,pass," + names + "\n" + own +
                                                 "h200_sxm,nvlink4,8,128,forward," + row + "\n",
                                             "made.csv"),
                        "")
        .at(0);
  };
  struct Row {
    const char *names, *cells, *problem;
  };
  const Row bad[] = {
      {"heads,causal,mask,time_ms", "32,true,window,1", "window is empty"},
      {"heads,causal,mask,window,time_ms", "32,true,causal,512,1", "contradict"},
      {"heads,causal,mask,time_ms", "32,true,full,1", "contradict"},
      {"heads,causal,mask,time_ms", "32,false,causal,1", "contradict"},
      {"heads,causal,window,time_ms", "32,false,512,1", "a window is causal"},
      {"heads,causal,mask,time_ms", "32,true,striped,1", "unknown"},
      {"heads,causal,dtype,time_ms", "32,true,fp32,1", "bf16"},
      {"heads,causal,batch,time_ms", "32,true,0,1", "batch = 0"},
      {"heads,causal,p5_ms,time_ms", "32,true,-5,1", "p5_ms"},
      {"heads,causal,power_w,time_ms", "32,true,abc,1", "power_w"},
      {"heads,causal,time_ms", "32,true,1e-320", "time_ms"},
      {"heads,causal,time_ms", "32,true,1e300", "time_ms"},
  };
  for (const bool run : {false, true}) {
    for (const Row& row : bad) {
      INFO(row.names << ": " << row.cells << (run ? ", a run" : ", a kernel"));
      CHECK_THROWS_WITH(predicted(row.names, row.cells, run),
                        ContainsSubstring("made.csv:2: ") && ContainsSubstring(row.problem));
    }
    const Seconds one = predicted("heads,causal,window,time_ms", "32,true,512,1", run).predicted;
    CHECK(predicted("heads,mask,window,dtype,batch,time_ms", "32,window,512,bf16,1,1", run).predicted == one);
    CHECK(predicted("heads,causal,window,time_ms", "32,true,,1", run).predicted > 2 * one);
    // Two sequences are as much work as twice the heads (of queries: the keys are shared).
    const double two = predicted("heads,causal,window,batch,time_ms", "32,true,512,2,1", run).predicted / one;
    CHECK(two > 1.5);
    CHECK(two < 2.0);
  }
  CHECK_THAT(predicted("heads,causal,window,time_ms", "32,true,512,1", true).name, ContainsSubstring("window 512"));
}

TEST_CASE("kernels that are only planned are predicted, as runs are, and nothing is fitted on them") {
  const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms,p5_ms,p95_ms,status\n";
  const std::string row = "h200_sxm,4096,4096,32,32,128,false,kernel,forward,";
  const MeasuredTable table = MeasuredTable::parse(
      names + row + "2.0,1.9,2.1,ok\n" + row + ",,,planned\n" + row + ",,,\n" + row + ",,,failed\n", "made.csv");
  const std::vector<Prediction> all = predict_runs(table, "");
  REQUIRE(all.size() == 3);
  for (const Prediction& p : all) {
    CHECK(p.predicted == all[0].predicted);
    CHECK(p.is_measured() == (&p == &all[0]));
  }
  CHECK(summarize(all).back().rows == 1);
  std::vector<MeasuredKernel> fitted;
  const std::string planned = names + row + "2.0,,,ok\n" + row + ",,,planned\n";
  add_rows(MeasuredTable::parse(planned, "made.csv"), fitted);
  CHECK(fitted.size() == 1);
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

TEST_CASE("nodes of a run are of one pod: a message passes two links inside a node, and two between nodes") {
  const std::string names =
      "implementation,gpu,link,n_gpu,nodes,network,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms"
      "\n";
  const MeasuredTable table = MeasuredTable::parse(
      names + "orrery_ring,h100_sxm,nvlink4,32,4,infiniband_ndr,8192,32,32,128,false,contiguous,ring,forward,\n",
      "made.csv");
  const Scenario s = scenario_of(table, 0, load_profile("peak", "h100_sxm"));
  // Over the leaf switch of the NICs of one place in all nodes of a pod; another pod is behind a spine.
  for (const Rank other : {1, 7, 8, 16, 24}) CHECK(s.cluster.route(0, other).links.size() == 2);
}

TEST_CASE("one GPU needs no link, and a run in a file of whole steps is a run") {
  const std::string names =
      "scenario,implementation,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms\n";
  const MeasuredTable table = MeasuredTable::parse(
      names + ",orrery_ring,h200_sxm,,1,8192,32,32,128,false,contiguous,ring,forward,1\n", "made.csv");
  CHECK(predict_runs(table, "").at(0).predicted > Seconds());
  CHECK_THROWS_WITH(
      predict_runs(MeasuredTable::parse(
                       names + ",orrery_ring,h200_sxm,,2,8192,32,32,128,false,contiguous,ring,forward,1\n", "made.csv"),
                   ""),
      ContainsSubstring("made.csv:2: link"));
  CHECK_THROWS_WITH(predict_runs(MeasuredTable::parse("scenario,gpu,time_ms\n,h200_sxm,1\n", "made.csv"), ""),
                    ContainsSubstring("made.csv:2: scenario is empty"));
}

TEST_CASE("a cell that is no finite number is an error with its line and column, in every kind of measured file") {
  for (const char* name : {"attention", "gemm", "merge", "elementwise", "links"}) {
    std::ifstream file(measured / "h200_sxm" / (std::string(name) + ".csv"));
    std::string header, row;
    while (std::getline(file, header) && header.starts_with('#')) {
    }
    std::getline(file, row);
    const MeasuredTable good = MeasuredTable::parse(header + "\n" + row + "\n", "made.csv");
    std::vector<MeasuredKernel> rows;
    add_rows(good, rows);
    REQUIRE(rows.size() == 1);
    for (const std::string& column : good.columns()) {
      const std::string& cell = good.text(0, column);
      if (cell.empty() || cell.find_first_not_of("0123456789.e+-") != std::string::npos) continue;
      for (const char* nonsense : {"nan", "inf", "-inf", "1e999", "-3", "x1", "1 ms"}) {
        std::string cells;
        for (const std::string& c : good.columns()) {
          cells += (cells.empty() ? "" : ",") + (c == column ? nonsense : good.text(0, c));
        }
        INFO(name << " " << column << " = " << nonsense);
        CHECK_THROWS_WITH(add_rows(MeasuredTable::parse(header + "\n" + cells + "\n", "made.csv"), rows),
                          ContainsSubstring("made.csv:2: ") && ContainsSubstring(column));
      }
    }
  }
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

TEST_CASE("a run is predicted by the preset its library and schedule name, and an unknown one is an error") {
  const std::string row = "h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,alltoall,forward,1\n";
  const auto run = [&](const std::string& implementation) {
    return predict_runs(MeasuredTable::parse(columns + implementation + ",cudnn," + row, "runs.csv"), "peak");
  };
  CHECK(run("pytorch_context_parallel").front().predicted > Seconds());
  CHECK_THROWS_WITH(predict_runs(MeasuredTable::parse(std::string(columns) +
                                                          "pytorch_context_parallel,cudnn,h200_sxm,nvlink4,2,8192,32,"
                                                          "32,128,false,contiguous,,forward,1\n",
                                                      "runs.csv"),
                                 "peak"),
                    ContainsSubstring("runs.csv:2") && ContainsSubstring("write one of allgather, alltoall"));
  CHECK_THROWS_WITH(run("pytorch_context_paralel"), ContainsSubstring("runs.csv:2") && ContainsSubstring("no preset"));
}

TEST_CASE("a row without a time is predicted as one with a time is, and counts in no summary") {
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,4,16384,32,32,128,true,zigzag,ring,forward,";
  const auto predictions = [&](const std::string& time) {
    return predict_runs(MeasuredTable::parse(columns + row + time + "\n", "runs.csv"), "peak");
  };
  const std::vector<Prediction> planned = predictions(""), timed = predictions("1");
  CHECK_FALSE(planned.front().is_measured());
  CHECK(planned.front().predicted == timed.front().predicted);
  CHECK(over_all(planned).rows == 0);
  CHECK(over_all(timed).rows == 1);
}

TEST_CASE("a run of GPUs that are one GPU, or of limited channels, is listed but not predicted") {
  const std::vector<Prediction> rows = predict("h200_sxm/ring.csv");
  REQUIRE_FALSE(rows.empty());
  for (const Prediction& p : rows) CHECK(p.reason == "its ranks share one GPU");
}

TEST_CASE("every measured run with time stamps lies beside its simulation, op by op in both") {
  std::set<std::string> schedules, measured_alone, simulated_alone;
  for (const std::filesystem::path& file : committed_files("measured")) {
    const MeasuredTable table = MeasuredTable::read(file);
    if (!table.has("run_us")) continue;
    if (table.text(0, "physical_gpus") == "1") {
      CHECK_THROWS_WITH(stamped_runs(table), ContainsSubstring("its ranks share one GPU"));
      continue;
    }
    for (const StampedRun& run : stamped_runs(table)) {
      const std::size_t row = run.rows.front();
      const std::string schedule = table.text(row, "schedule");
      schedules.insert(schedule + " " + table.text(row, "pass"));
      for (const OpResidual& op : residual(table, run, "").ops) {
        if (!op.simulated) measured_alone.insert(schedule + " " + op.op);
        if (!op.measured) simulated_alone.insert(schedule + " " + table.text(row, "layout") + " " + op.op);
        if (!op.is_compared() || op.kind != "attention") continue;
        INFO(table.place(row) << ": " << run.name << ": " << op.op << " of step " << op.step << " on rank " << op.rank);
        // Forward beside backward would be off by more than twice.
        CHECK(std::abs(op.difference_s()) < 0.5 * op.measured->takes_s + 20e-6);
      }
    }
  }
  CHECK(schedules == std::set<std::string>{"all_gather forward", "all_gather forward_backward", "halo forward",
                                           "halo forward_backward", "ring backward", "ring forward",
                                           "ring forward_backward", "ulysses forward", "ulysses forward_backward",
                                           "usp forward", "usp forward_backward"});
  CHECK(measured_alone.empty());
  CHECK(simulated_alone.empty());
}

TEST_CASE("the trace of a run with time stamps has both timelines, from 0 on") {
  const MeasuredTable table = MeasuredTable::read(measured / "h200_sxm_x2/ring_steps.csv");
  std::ostringstream trace;
  write_trace(trace, residual(table, stamped_runs(table).front(), ""));
  CHECK_THAT(trace.str(), ContainsSubstring("rank 1 simulated") && ContainsSubstring("difference_us") &&
                              ContainsSubstring("\"thread_name\"") && !ContainsSubstring("\"ts\":-"));
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
