// The published tables: how rows are read, and how well they are predicted from published rates of single GPUs.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "scenarios/report.hpp"
#include "tests/catch.hpp"
#include "validate/orderings.hpp"
#include "validate/runs.hpp"

using namespace orrery;

namespace {

const std::filesystem::path published = std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/published";

std::vector<Prediction> predict_published(const std::string& file) {
  return predict_runs(MeasuredTable::read(published / file), "");
}

Prediction row(const char* setting, double measured, double predicted) {
  Prediction p;
  p.setting = setting;
  p.reading_error = 0.01;
  p.measured = Seconds::from_si(measured);
  p.predicted = Seconds::from_si(predicted);
  return p;
}

}  // namespace

TEST_CASE("an ordering is right if the prediction has it too, wrong on a tie, and left out below the reading errors") {
  const OrderingSummary order = orderings({row("a", 1.00, 5), row("a", 1.50, 6), row("a", 2.00, 6), row("b", 1.00, 9),
                                           row("b", 1.015, 1), row("", 1, 2), row("", 2, 1)});
  CHECK(order.pairs == 3);
  CHECK(order.right == 2);
  REQUIRE(order.wrong.size() == 1);
  CHECK_THAT(order.wrong.front(), ContainsSubstring("measured 1.5"));
}

TEST_CASE("every published row is predicted or says why not, and every file says where it comes from") {
  for (const std::filesystem::path& file : committed_files("published")) {
    INFO(file.string());
    const MeasuredTable table = MeasuredTable::read(file);
    for (const char* key : {"url", "grade", "how"}) CHECK_FALSE(table.header(key).empty());
    for (std::size_t i = 0; i < table.rows(); ++i) {
      CHECK((table.optional_number(i, "time_ms") || !table.text(i, "not_predicted").empty()));
    }
  }
}

TEST_CASE("a row that no scenario is stays in the list with its reason, and the summary counts it") {
  const std::vector<Prediction> rows = predict_published("magi_attention/h100_runs_varlen.csv");
  REQUIRE(rows.size() == 64);
  for (const Prediction& p : rows) CHECK(p.reason == "the documents that were drawn are not published");
  const ErrorSummary all = summarize(rows).back();
  CHECK(all.rows == 0);
  CHECK(all.not_predicted == 64);
}

TEST_CASE("a row of a whole step is its base scenario with the keys of its columns") {
  const std::filesystem::path file = published / "easycontext/readme.csv";
  const std::vector<Prediction> rows = predict_published("easycontext/readme.csv");
  const auto ring = std::find_if(rows.begin(), rows.end(), [](const Prediction& p) {
    return p.name.find("zigzag ring") != std::string::npos && p.name.find("tokens 65536") != std::string::npos;
  });
  REQUIRE(ring != rows.end());
  const Scenario base = load_scenario(file.parent_path() / "llama2_7b.toml");
  CHECK(base.tokens == 65536);
  CHECK(ring->predicted == predict(base).step_time);
  CHECK_THROWS_WITH(predict_runs(MeasuredTable::parse("scenario,time_ms,workload.tokns\nllama2_7b.toml,1,8192\n",
                                                      file.parent_path() / "rows.csv"),
                                 ""),
                    ContainsSubstring("rows.csv:2") && ContainsSubstring("tokns"));
}

TEST_CASE("a row of a scenario is predicted as simulate does: at the power limit, with slow ranks, and its interval") {
  const std::filesystem::path scenarios = std::filesystem::path(ORRERY_SOURCE_DIR) / "scenarios";
  for (const char* name : {"examples/llama3_8b_128k_stragglers_h200.toml", "examples/llama3_8b_256k_faults_4nodes.toml",
                           "steps/llama3_8b_1m_context_h200.toml"}) {
    INFO(name);
    const std::filesystem::path file = scenarios / name;
    const Report simulated = predict(load_scenario(file));
    // Once as it stands, once with a key that says what the base says.
    for (const char* key : {"", ",workload.batch"}) {
      const std::string rows = fmt::format("scenario,method,time_ms{}\n{},mine,1000{}\n", key, file.filename().string(),
                                           *key == 0 ? "" : ",1");
      const Prediction p = predict_runs(MeasuredTable::parse(rows, file.parent_path() / "mine.csv"), "").at(0);
      CHECK(p.predicted == simulated.step_time);
      CHECK(p.has_interval() == simulated.interval.has_value());
      CHECK(p.band == (simulated.interval ? simulated.interval->half_width : 0));
      CHECK(p.extrapolated == (simulated.interval && simulated.interval->extrapolated));
    }
  }
}

TEST_CASE(
    "runs of published tables are predicted within 12 % in the mean, and all orderings of methods but two are right") {
  std::vector<Prediction> rows;
  for (const std::filesystem::path& file : committed_files("published")) {
    const std::vector<Prediction> more = predict_runs(MeasuredTable::read(file), "");
    rows.insert(rows.end(), more.begin(), more.end());
  }
  const std::vector<ErrorSummary> groups = summarize(rows);
  const auto runs = std::find_if(groups.begin(), groups.end(),
                                 [](const ErrorSummary& g) { return g.group == "all runs of several GPUs"; });
  REQUIRE(runs != groups.end());
  CHECK(runs->rows >= 80);
  CHECK(runs->mean_abs_rel < 0.12);
  for (const Prediction& p : rows) CHECK_FALSE((p.many_gpus && p.fitted));
  const OrderingSummary order = orderings(rows);
  CHECK(order.pairs >= 100);
  CHECK(order.right >= order.pairs - 2);  // which, and why: docs/accuracy.md
}
