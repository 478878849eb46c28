// What the rows of a measured file mean: of runs, of kernels, of both.
#include <fmt/format.h>

#include "cost_models/row_digest.hpp"
#include "scenarios/preset_files.hpp"
#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"
#include "validate/run_bands.hpp"
#include "validate/runs.hpp"

using namespace orrery;

TEST_CASE("kernels and runs in one file are all predicted, each by the GPU and the tolerance of its row") {
  const std::string head = run_columns_and("n_q,n_k,tolerance");
  const std::string run = "orrery_ring,cudnn,h200_sxm,nvlink4,2,16384,32,8,128,true,zigzag,ring,forward,9,,,\n";
  const auto kernel = [](const std::string& gpu, const std::string& pass = "forward") {
    return "mine,cudnn," + gpu + ",,1,,32,8,128,false,,kernel," + pass + ",9,8192,8192,0.01\n";
  };
  const auto all = [&](const std::string& rows) { return predict_text(head + rows); };
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
      for (const Prediction& p : predict_text(columns_of + rows)) predicted.push_back(p.predicted);
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

TEST_CASE("the backend of a run says whose kernels it ran, if there is a profile of them") {
  const auto predicted = [](const std::string& backend, const std::string& profile) {
    const std::string row = "pytorch_context_parallel," + backend +
                            ",h200_sxm,nvlink4,2,32768,32,32,128,false,contiguous,alltoall,forward,1\n";
    return predict_text(run_columns + row, profile).at(0).predicted;
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
    return predict_text(names + kernel + run, profile);
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

TEST_CASE("the period of a run's row is a gated skip, whose values travel with the window's halo") {
  const auto seconds = [](const std::string& period) {
    const std::string csv = fmt::format(
        "implementation,n_gpu,seq_len,layout,schedule,gpu,link,heads,kv_heads,"
        "head_dim,causal,mask,window,period,pass,time_ms\norrery_pi,4,16384,"
        "contiguous,halo,h200_sxm,nvlink4,32,32,128,true,window,1024,{},forward,1\n",
        period);
    return predict_text(csv).at(0).predicted.si();
  };
  CHECK_THROWS_WITH(seconds("16384"), ContainsSubstring("mine.csv:2: period = 16384") && ContainsSubstring("seq_len"));
  CHECK(seconds("512") == seconds("1023"));  // those rows are fetched anyway
  // The gate: O and V read, O written, at most as fast as HBM.
  CHECK(seconds("512") - seconds("") > 3 * 4096 * 32 * 128 * 2 / 4.8e12);
  // 1,024 rows of V more, at most as fast as NVLink.
  CHECK(seconds("2048") - seconds("1024") > 1024 * 32 * 128 * 2 / 450e9);
}

TEST_CASE("a period is in the name of its row, and an error in a row without a window") {
  const auto predicted = [](const std::string& mask) {
    const std::string names = run_columns_and("window,period");
    const std::string row = "orrery_pi,cudnn,h200_sxm,nvlink4,2,8192,32,32,128," + mask;
    return predict_text(names + row + "\n").at(0);
  };
  CHECK_THAT(predicted("true,contiguous,halo,forward,1,1024,2048").name,
             ContainsSubstring("window 1024 period 2048 forward"));
  for (const char* causal : {"true", "false"}) {
    CHECK_THROWS_WITH(predicted(std::string(causal) + ",contiguous,halo,forward,1,,2048"),
                      ContainsSubstring("mine.csv:2: period = 2048") && ContainsSubstring("window"));
  }
}

TEST_CASE("a summary has a group over all folders of a GPU where a kind of rows lies in several of them") {
  const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms,status\n";
  const auto rows_of = [&](const char* folder, const char* pass, double time_ms) {
    return predict_runs(MeasuredTable::parse(
                            fmt::format("{}h200_sxm,4096,4096,32,32,128,false,kernel,{},{},ok\n", names, pass, time_ms),
                            fmt::format("{}/mine.csv", folder)),
                        "");
  };
  std::vector<Prediction> all = rows_of("one", "forward", 0.5);
  for (const auto& [folder, pass, time] : {std::tuple{"two", "forward", 0.4}, {"two", "backward", 1.2}}) {
    const auto more = rows_of(folder, pass, time);
    all.insert(all.end(), more.begin(), more.end());
  }
  std::vector<std::string> groups;
  for (const ErrorSummary& group : summarize(all)) groups.push_back(group.group);
  CHECK(groups == std::vector<std::string>{"one: attention forward", "two: attention forward",
                                           "two: attention backward", "all h200_sxm: attention forward", "all"});
  const ErrorSummary over_both = summarize(all)[3];
  CHECK(over_both.rows == 2);
  CHECK_THAT(over_both.mean_abs_rel,
             WithinRel((std::abs(all[0].deviation()) + std::abs(all[1].deviation())) / 2, 1e-12));
}

TEST_CASE("a row of PyTorch's context_parallel without a layout has the balanced one, as the library has it") {
  for (const char* rotation : {"alltoall", "allgather"}) {
    const auto of = [&](const std::string& layout) {
      return predict_text(fmt::format("{}pytorch_context_parallel,cudnn,h200_sxm,nvlink4,2,65536,32,8,128,true,{},"
                                      "{},forward,9\n",
                                      run_columns, layout, rotation))
          .front()
          .predicted;
    };
    CHECK(of("") == of("zigzag"));
    CHECK(of("") < of("contiguous"));
  }
}

TEST_CASE("rows that are the same but for their times count once, by the median of all folders") {
  const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms,status\n";
  std::vector<Prediction> all;
  const auto add = [&](const char* folder, int tokens, double time_ms) {
    const auto rows = predict_runs(
        MeasuredTable::parse(
            fmt::format("{}h200_sxm,{},4096,32,32,128,false,kernel,forward,{},ok\n", names, tokens, time_ms),
            fmt::format("{}/made.csv", folder)),
        "");
    all.insert(all.end(), rows.begin(), rows.end());
  };
  add("one", 4096, 0.5);
  add("one", 2048, 0.3);
  add("two", 4096, 0.4);
  add("three", 4096, 0.44);
  add("three", 4096, 9);
  all.back().fitted = true;
  all[2].calibrated = true;
  const std::vector<Prediction> once = medians_of_repeats(all);
  REQUIRE(once.size() == 2);
  CHECK_THAT(once[0].measured.si(), WithinRel(0.44e-3, 1e-12));
  CHECK(once[0].predicted == all[0].predicted);
  CHECK(once[0].calibrated);  // as one of them did
  CHECK(once[1].measured == all[1].measured);
  CHECK(summarize(once)[0].group == "all h200_sxm: attention forward");
  CHECK(summarize(once)[0].rows == 2);
}

TEST_CASE("rows of other GPUs, of other predictions, without a time or without a GPU are no repeats") {
  Prediction measured;
  measured.name = "a kernel";
  measured.of_gpu = "all h200_sxm: kernels";
  measured.measured = measured.predicted = Seconds::from_si(1e-3);
  Prediction other_gpu = measured, other_prediction = measured, planned = measured, no_gpu = measured;
  other_gpu.of_gpu = "all h100_sxm: kernels";
  other_prediction.predicted = Seconds::from_si(2e-3);
  planned.measured = Seconds();
  no_gpu.of_gpu.clear();
  for (const Prediction& other : {other_gpu, other_prediction, planned, no_gpu}) {
    for (const auto& rows : {std::vector{measured, other, other}, {other, other, measured}}) {
      const std::size_t alone = other.is_measured() && !other.of_gpu.empty() ? 1 : 2;
      CHECK(medians_of_repeats(rows).size() == 1 + alone);
    }
  }
}

TEST_CASE("a median has the smallest tolerance of its rows, and the cells that all of them have") {
  Prediction first;
  first.name = "a kernel";
  first.of_gpu = "all h200_sxm: kernels";
  first.measured = first.predicted = Seconds::from_si(1e-3);
  Prediction strict = first, lenient = first;
  first.carried = {{"samples", "20"}, {"host", "one"}};
  strict.carried = {{"samples", "20"}, {"host", "two"}};
  lenient.carried = strict.carried;
  strict.tolerance = 0.05;
  lenient.tolerance = 0.1;
  const std::vector<Prediction> once = medians_of_repeats({first, strict, lenient});
  REQUIRE(once.size() == 1);
  CHECK(once[0].tolerance == 0.05);
  CHECK(once[0].carried == std::vector<std::pair<std::string, std::string>>{{"samples", "20"}});
}

TEST_CASE("kernels that are only planned are predicted, as runs are, and nothing is fitted on them") {
  const std::string names = "gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms,p5_ms,p95_ms,status\n";
  const std::string row = "h200_sxm,4096,4096,32,32,128,false,kernel,forward,";
  const MeasuredTable table = MeasuredTable::parse(
      names + row + "2.0,1.9,2.1,ok\n" + row + ",,,planned\n" + row + ",,,\n" + row + ",,,failed\n", "mine.csv");
  const std::vector<Prediction> all = predict_runs(table, "");
  REQUIRE(all.size() == 3);
  for (const Prediction& p : all) {
    CHECK(p.predicted == all[0].predicted);
    CHECK(p.is_measured() == (&p == &all[0]));
  }
  CHECK(over_all(all).rows == 1);
  std::vector<MeasuredKernel> fitted;
  const std::string planned = names + row + "2.0,,,ok\n" + row + ",,,planned\n";
  add_rows(MeasuredTable::parse(planned, "mine.csv"), fitted);
  CHECK(fitted.size() == 1);
}

TEST_CASE("nodes of a run are of one pod: a message passes two links inside a node, and two between nodes") {
  const std::string names =
      "implementation,gpu,link,n_gpu,nodes,network,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms"
      "\n";
  const MeasuredTable table = MeasuredTable::parse(
      names + "orrery_ring,h100_sxm,nvlink4,32,4,infiniband_ndr,8192,32,32,128,false,contiguous,ring,forward,\n",
      "mine.csv");
  const Scenario s = scenario_of(table, 0, load_profile("peak", "h100_sxm"));
  // Over the leaf switch of the NICs of one place in all nodes of a pod; another pod is behind a spine.
  for (const Rank other : {1, 7, 8, 16, 24}) CHECK(s.cluster.route(0, other).links.size() == 2);
  // What was measured between GPUs of a node holds for those of one node.
  REQUIRE(s.links.size() == 2);
  CHECK(s.links[0].domain == 32 / 4);
  CHECK(s.links[1].domain == 1);
}

TEST_CASE("nodes need a network, and a network needs nodes") {
  const auto predicted = [](const std::string& nodes_and_network) {
    const std::string names = run_columns_and("nodes,network");
    const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,4,8192,32,32,128,false,contiguous,ring,forward,1,";
    return predict_text(names + row + nodes_and_network + "\n").at(0);
  };
  CHECK(predicted("2,infiniband_ndr").predicted > Seconds());
  CHECK_THROWS_WITH(predicted("2,"), ContainsSubstring("mine.csv:2: network is empty"));
  for (const char* one : {"", "1"}) {
    CHECK_THROWS_WITH(predicted(std::string(one) + ",infiniband_ndr"),
                      ContainsSubstring("mine.csv:2: network = infiniband_ndr") && ContainsSubstring("write nodes"));
  }
}

TEST_CASE("one GPU needs no link, and a run in a file of whole steps is a run") {
  const std::string names =
      "scenario,implementation,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms\n";
  const MeasuredTable table = MeasuredTable::parse(
      names + ",orrery_ring,h200_sxm,,1,8192,32,32,128,false,contiguous,ring,forward,1\n", "mine.csv");
  CHECK(predict_runs(table, "").at(0).predicted > Seconds());
  CHECK_THROWS_WITH(predict_text(names + ",orrery_ring,h200_sxm,,2,8192,32,32,128,false,contiguous,ring,forward,1\n"),
                    ContainsSubstring("mine.csv:2: link"));
  CHECK_THROWS_WITH(predict_text("scenario,gpu,time_ms\n,h200_sxm,1\n"),
                    ContainsSubstring("mine.csv:2: scenario is empty"));
}

TEST_CASE("a run is predicted by the preset its library and schedule name, and an unknown one is an error") {
  const std::string row = "h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,alltoall,forward,1\n";
  const auto run = [&](const std::string& implementation) {
    return predict_text(run_columns + implementation + ",cudnn," + row, "peak");
  };
  CHECK(run("pytorch_context_parallel").front().predicted > Seconds());
  CHECK_THROWS_WITH(predict_text(run_columns + "pytorch_context_parallel,cudnn,h200_sxm,nvlink4,2,8192,32,"
                                               "32,128,false,contiguous,,forward,1\n",
                                 "peak"),
                    ContainsSubstring("mine.csv:2") && ContainsSubstring("write one of allgather, alltoall"));
  CHECK_THROWS_WITH(run("pytorch_context_paralel"), ContainsSubstring("mine.csv:2") && ContainsSubstring("no preset"));
}

TEST_CASE("a row without a time is predicted as one with a time is, and counts in no summary") {
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,4,16384,32,32,128,true,zigzag,ring,forward,";
  const auto predictions = [&](const std::string& time) {
    return predict_text(run_columns + row + time + "\n", "peak");
  };
  const std::vector<Prediction> planned = predictions(""), timed = predictions("1");
  CHECK_FALSE(planned.front().is_measured());
  CHECK(planned.front().predicted == timed.front().predicted);
  CHECK(over_all(planned).rows == 0);
  CHECK(over_all(timed).rows == 1);
}

TEST_CASE("booleans and numbers mean the same as other programs spell them, in predictions, digests and halves") {
  const std::string names = run_columns_and("n_q,n_k");
  const auto table_of = [&](const char* yes, const char* tokens) {
    const std::string run = "orrery_ring,cudnn,h200_sxm,nvlink4,2,{1},32,8,128,{0},zigzag,ring,forward,9,,\n";
    const std::string kernel = "mine,cudnn,h200_sxm,,1,,32,8,128,{0},,kernel,forward,9,{1},{1}\n";
    return MeasuredTable::parse(names + fmt::format(fmt::runtime(run + kernel), yes, tokens), "mine.csv");
  };
  const MeasuredTable plain = table_of("true", "16384");
  const std::vector<Prediction> expected = predict_runs(plain, "");
  REQUIRE(expected.size() == 2);
  for (const char* yes : {"True", "TRUE"}) {
    const MeasuredTable table = table_of(yes, "16384.0");
    const std::vector<Prediction> rows = predict_runs(table, "");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      CHECK(rows[i].predicted == expected[i].predicted);
      CHECK(row_digest(table, i) == row_digest(plain, i));
    }
    CHECK(rows[0].name.find("zigzag causal") != std::string::npos);
    CHECK(calibrating_rows(table) == calibrating_rows(plain));
  }
  CHECK(row_digest(table_of("False", "16384"), 0) == row_digest(table_of("false", "16384"), 0));
  CHECK(row_digest(table_of("False", "16384"), 0) != row_digest(plain, 0));
  CHECK_THROWS_WITH(predict_runs(table_of("yes", "16384"), ""), ContainsSubstring("causal = \"yes\" is neither"));
}

TEST_CASE("a run has a schedule and a layout that its preset has, and the mask that its cells say") {
  const std::string names = run_columns_and("mask");
  const auto predict_row = [&](const char* preset, const char* schedule, const char* layout, const char* causal,
                               const char* mask) {
    const std::string row = fmt::format("{},cudnn,h200_sxm,nvlink4,4,32768,32,8,128,{},{},{},forward,1,{}\n", preset,
                                        causal, layout, schedule, mask);
    return predict_text(names + row).at(0);
  };
  CHECK_THAT(predict_row("orrery_ring_nccl", "ring", "zigzag", "", "causal").name, ContainsSubstring("zigzag causal"));
  CHECK_THAT(predict_row("orrery_ring_nccl", "ring", "zigzag", "", "full").name, ContainsSubstring(", full forward"));
  for (const char* other : {"all_gather", "ulysses", "double_ring", "halo", "usp"}) {
    CHECK_THROWS_WITH(predict_row("orrery_ring_nccl", other, "zigzag", "true", ""),
                      ContainsSubstring("mine.csv:2: ") && ContainsSubstring("write one of ring or"));
  }
  CHECK_THROWS_WITH(predict_row("orrery_window_nccl", "halo", "striped", "true", ""),
                    ContainsSubstring("mine.csv:2: ") && ContainsSubstring("does not use, write one of contiguous"));
}

TEST_CASE("a product of power.csv is rows x inner x columns, as gemm.csv has tokens x in x out") {
  const auto predicted = [](const std::string& text) { return predict_text(text).front().predicted; };
  const auto power = [&](const std::string& shape) {
    return predicted("gpu,kernel,shape,regime,second,time_us,nvml_sm_clock_mhz,bytes\nh200_sxm,gemm," + shape +
                     ",burst,0,1,,\n");
  };
  const Seconds product = predicted(
      "gpu,model,layer,pass,tokens,in,out,data,regime,time_us\nh200_sxm,m,l,forward,512,16384,2048,normal,burst,1\n");
  CHECK(power("512 x 16384 x 2048") == product);
  CHECK(power("512 x 2048 x 16384") != product);
}

TEST_CASE("covered counts the rows that have an interval, lie within what was measured and did not set its width") {
  Prediction inside;
  inside.group = "g";
  inside.measured = Seconds::from_si(1.04);
  inside.predicted = Seconds::from_si(1);
  inside.band = 0.05;
  Prediction outside = inside, set_it = inside, beyond = inside, without = inside, fitted = inside;
  outside.measured = Seconds::from_si(1.06);
  set_it.calibrated = beyond.extrapolated = fitted.fitted = true;
  without.band = 0;
  CHECK(over_all({inside, outside}).interval_coverage == 0.5);
  CHECK(over_all({inside, outside, set_it, beyond, without, fitted}).interval_coverage == 0.5);
  // Errors say nothing of what was fitted on.
  CHECK(over_all({inside, outside, set_it, beyond, without, fitted}).rows == 5);
  CHECK_FALSE(over_all({set_it, beyond, without}).interval_coverage.has_value());
}
