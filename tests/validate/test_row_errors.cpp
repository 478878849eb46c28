// Cells of a measured file that make no sense, and the errors that name them.
#include <fstream>

#include "tests/catch.hpp"
#include "tests/validate/measured_files.hpp"
#include "validate/residuals.hpp"
#include "validate/runs.hpp"

using namespace orrery;

TEST_CASE("a row of a run that makes no sense is an error that names its line and the column") {
  const std::string good = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1";
  const auto with = [&](const std::string& old, const std::string& replacement) {
    std::string row = good;
    return row.replace(row.find(old), old.size(), replacement);
  };
  const auto predict_row = [](const std::string& row) { return predict_text(run_columns + row + "\n"); };
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

TEST_CASE("a row of a kernel that makes no sense is an error that names its line and the column") {
  const std::string good = "mine,cudnn,h200_sxm,,1,,32,8,128,false,,kernel,forward,1.1,8192,4096";
  const std::string head = run_columns_and("n_q,n_k");
  const auto predict_row = [&](const std::string& row) { return predict_text(head + row + "\n"); };
  CHECK(predict_row(good).size() == 1);
  const auto with = [&](const std::string& old, const std::string& replacement) {
    std::string row = good;
    return row.replace(row.find(old), old.size(), replacement);
  };
  const std::pair<std::string, std::string> bad[] = {
      {with(",32,", ",0.5,"), "heads"}, {with(",32,", ",-4,"), "heads"},  {with(",32,8,", ",40,7,"), "key heads"},
      {with("8192", "8192.5"), "n_q"},  {with("4096", "0"), "n_k"},       {with("1.1", "0"), "time_ms"},
      {with("1.1", "inf"), "time_ms"},  {with("forward", "fwd"), "pass"}, {with(",,1,,", ",,4,,"), "n_gpu"}};
  for (const auto& [row, named] : bad) {
    INFO(row);
    CHECK_THROWS_WITH(predict_row(row), ContainsSubstring("mine.csv:2") && ContainsSubstring(named));
  }
}

TEST_CASE("an optional field of a run that makes no sense is an error that names its line and the column") {
  const auto predict_row = [](const std::string& column, const std::string& cell) {
    std::string head = run_columns;
    head.insert(head.size() - 1, "," + column);
    return predict_text(head +
                        "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,"
                        "ring,forward,1.1," +
                        cell + "\n");
  };
  const std::pair<const char*, const char*> good[] = {
      {"nodes", "1"}, {"transport", "nccl"}, {"regime", "burst"}, {"channels", "4"}, {"", ""}};
  for (const auto& [column, cell] : good) CHECK(predict_row(column, cell).size() == 1);
  const std::pair<const char*, const char*> bad[] = {
      {"nodes", "0"},          {"nodes", "1.5"},          {"nodes", "-1"},         {"nodes", "3"},
      {"ulysses_degree", "2"}, {"ulysses_degree", "2.5"}, {"ulysses_degree", "0"}, {"window", "0"},
      {"window", "100.5"},     {"regime", "bust"},        {"transport", "ncccl"},  {"channels", "foo"},
      {"tolerance", "-1"},     {"tolerance", "5"},        {"status", "OK"},        {"tolerance", "0.x"}};
  for (const auto& [column, cell] : bad) {
    INFO(column << " = " << cell);
    CHECK_THROWS_WITH(predict_row(column, cell), ContainsSubstring("mine.csv:2") && ContainsSubstring(column));
  }
}

TEST_CASE("a column whose name is a letter or two off one that is read is an error, not carried along") {
  const auto predict_with = [](const std::string& column) {
    std::string head = run_columns;
    head.insert(head.size() - 1, "," + column);
    return predict_text(head +
                        "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1,\n");
  };
  for (const std::string column : {"tolerance", "window", "host", "samples", "start_us"}) {
    INFO(column);
    CHECK(predict_with(column).size() == 1);
  }
  for (const std::string column : {"tolerence", "widow", "Window", "ulyses_degre"}) {
    CHECK_THROWS_WITH(predict_with(column),
                      ContainsSubstring("\"" + column + "\"") && ContainsSubstring("did you mean"));
  }
}

TEST_CASE("an error of a cell says what to write, and of a column that is missing to add it") {
  const auto complaint = [](const std::string& columns, const std::string& cells) -> std::string {
    try {
      predict_text(columns + "\n" + cells + "\n");
    } catch (const MeasuredFileError& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string columns = "implementation,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,pass,time_ms";
  const std::string good = "orrery_ring,h200_sxm,nvlink4,2,8192,32,8,128,true,forward,1.1";
  CHECK(complaint(columns, good) == "no error");
  const auto with = [](std::string text, const std::string& old, const std::string& replacement) {
    REQUIRE(text.find(old) != std::string::npos);
    return text.replace(text.find(old), old.size(), replacement);
  };
  const std::pair<const char*, const char*> bad[] = {{"1.1", "0"},       {"1.1", "-1"},  {"8192", "8K"}, {"8192", "0"},
                                                     {"true", "1"},      {"true", ""},   {",8,", ",5,"}, {",8,", ",,"},
                                                     {"forward", "fwd"}, {"forward", ""}};
  for (const auto& [old, replacement] : bad) {
    INFO(old << " -> " << replacement);
    CHECK_THAT(complaint(columns, with(good, old, replacement)),
               ContainsSubstring("mine.csv:2: ") && ContainsSubstring(", write"));
  }
  for (const std::string column : {"kv_heads", "causal"}) {
    const std::string cell = column == "causal" ? ",true" : ",8,128";
    CHECK_THAT(complaint(with(columns, "," + column, ""), with(good, cell, column == "causal" ? "" : ",128")),
               ContainsSubstring("mine.csv:2: there is no column " + column) && ContainsSubstring(", add it"));
  }
}

TEST_CASE("a measured slow-down or power that makes no sense is an error that names its line and the column") {
  const std::string overlap =
      "kernel,mechanism,channels,gpu,link,compute_alone_us,compute_overlapped_us,transfer_bytes,transfer_alone_us,"
      "status\n";
  const auto slow_down = [&](const std::string& row) { return predict_text(overlap + row + "\n"); };
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
    const MeasuredTable table = MeasuredTable::read(measured_folder / file);
    for (const std::string& column : table.columns()) {
      names += (names.empty() ? "" : ",") + column;
    }
    CHECK(predict_text(names + "\n").empty());
  }
  const auto steps = [](const std::string& text) { return stamped_runs(MeasuredTable::parse(text, "mine.csv")); };
  CHECK_THROWS_WITH(steps("n_gpu,run_us,rank,step,op,start_us,end_us\n"), ContainsSubstring("mine.csv: no rows"));
  CHECK_THROWS_WITH(steps("implementation,rank\nring,0\n"), ContainsSubstring("mine.csv: no column run_us"));
}

TEST_CASE("a reading error is a fraction from 0 to 1, and a row of a kernel needs the columns of kernels") {
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1\n";
  const auto predict_file = [&](const std::string& header, const std::string& rows) {
    return predict_text(header + run_columns + rows);
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
  CHECK(predict_text("\xef\xbb\xbf" + run_columns + row).size() == 1);
}

TEST_CASE("rows of kernels and of runs mean what all their cells say, or are an error with their line") {
  const auto predicted = [](const std::string& names, const std::string& row, bool run) {
    const std::string all = run ? "implementation,n_gpu,seq_len,layout,schedule," : "n_q,n_k,schedule,";
    const std::string own = run ? "orrery_window,2,8192,contiguous,halo," : "4096,4096,kernel,";
    return predict_text(all + "gpu,link,kv_heads,head_dim,pass," + names + "\n" + own +
                        "h200_sxm,nvlink4,8,128,forward," + row + "\n")
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
                        ContainsSubstring("mine.csv:2: ") && ContainsSubstring(row.problem));
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

TEST_CASE("a cell that is no finite number is an error with its line and column, in every kind of measured file") {
  for (const char* name : {"attention", "gemm", "merge", "elementwise", "links"}) {
    std::ifstream file(measured_folder / "h200_sxm" / (std::string(name) + ".csv"));
    std::string header, row;
    while (std::getline(file, header) && header.starts_with('#')) {
    }
    std::getline(file, row);
    const MeasuredTable good = MeasuredTable::parse(header + "\n" + row + "\n", "mine.csv");
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
        CHECK_THROWS_WITH(add_rows(MeasuredTable::parse(header + "\n" + cells + "\n", "mine.csv"), rows),
                          ContainsSubstring("mine.csv:2: ") && ContainsSubstring(column));
      }
    }
  }
}

TEST_CASE("a file that begins with a row is told that column names are missing") {
  for (const char* row : {"orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1\n",
                          "h200_sxm,32,128\n"}) {
    CHECK_THROWS_WITH(MeasuredTable::parse(std::string("# gpu = H200\n") + row, "mine.csv"),
                      ContainsSubstring("mine.csv:2: ") && ContainsSubstring("the first line must be column names"));
  }
}

TEST_CASE("spaces around cells mean nothing, and other separators and line ends are named") {
  const auto parse = [](const std::string& text) { return MeasuredTable::parse(text, "mine.csv"); };
  const MeasuredTable spaced = parse("gpu, n_q ,pass\n h200_sxm,\t4096, forward \n");
  CHECK(spaced.columns() == std::vector<std::string>{"gpu", "n_q", "pass"});
  CHECK(spaced.whole_number(0, "n_q", 1 << 20) == 4096);
  CHECK(spaced.text(0, "pass") == "forward");
  CHECK_THROWS_WITH(parse("gpu;n_q\nh200_sxm;1\n"),
                    ContainsSubstring("mine.csv:1: ") && ContainsSubstring("semicolons"));
  CHECK_THROWS_WITH(parse("gpu\tn_q\nh200_sxm\t1\n"), ContainsSubstring("mine.csv:1: ") && ContainsSubstring("tabs"));
  CHECK_THROWS_WITH(parse("gpu,n_q\rh200_sxm,1\r"), ContainsSubstring("mine.csv: ") && ContainsSubstring("line feeds"));
  CHECK(parse("gpu,n_q\r\nh200_sxm,1\r\n").text(0, "n_q") == "1");
  CHECK(parse("cost\nlaunch\n").rows() == 1);
}

TEST_CASE("a row that says why it is not predicted is checked like others, in what its reason cannot excuse") {
  const std::string names = run_columns_and("transport,regime,mask,network,not_predicted");
  const auto predict_row = [&](const std::string& row) { return predict_text(names + row + "\n"); };
  const std::string good =
      "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,true,contiguous,ring,forward,1.1,copy_engine,burst,"
      "varlen causal,,packed documents";
  CHECK(predict_row(good).at(0).reason == "packed documents");
  const auto with = [&](const std::string& old, const std::string& replacement) {
    std::string row = good;
    return row.replace(row.find(old), old.size(), replacement);
  };
  // Of a library without a preset its own words are not known.
  CHECK(predict_row(with("orrery_ring", "other_library")).size() == 1);
  CHECK(predict_row(with("orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,true,contiguous,ring",
                         "other_library,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,true,own,own"))
            .size() == 1);
  const std::pair<std::string, std::string> bad[] = {{with("h200_sxm", "h200_smx"), "gpu"},
                                                     {with("nvlink4", "nvlink44"), "link"},
                                                     {with(",2,8192", ",2,8k"), "seq_len"},
                                                     {with(",true,", ",ture,"), "causal"},
                                                     {with("contiguous", "contigous"), "layout"},
                                                     {with(",ring,", ",rong,"), "schedule"},
                                                     {with("forward", "fwd"), "pass"},
                                                     {with("1.1", "-3"), "time_ms"},
                                                     {with("copy_engine", "nccl2"), "transport"},
                                                     {with("burst", "bust"), "regime"},
                                                     {with(",,packed", ",ib,packed"), "network"}};
  for (const auto& [row, named] : bad) {
    INFO(row);
    CHECK_THROWS_WITH(predict_row(row), ContainsSubstring("mine.csv:2") && ContainsSubstring(named));
  }
  CHECK_THROWS_WITH(predict_text("scenario,time_ms,not_predicted\nnowhere.toml,1,why\n"),
                    ContainsSubstring("mine.csv:2") && ContainsSubstring("nowhere.toml"));
}
