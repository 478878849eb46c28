// The committed measured files, the columns of a file of runs, and what is predicted of a text.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "validate/runs.hpp"

namespace orrery {

inline const std::filesystem::path measured_folder = std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured";

inline std::vector<Prediction> predict_measured(const std::string& file) {
  return predict_runs(MeasuredTable::read(measured_folder / file), "");
}

inline const std::string run_columns =
    "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms\n";

inline std::string run_columns_and(const std::string& more) {
  return run_columns.substr(0, run_columns.size() - 1) + "," + more + "\n";
}

/// Of a file with this text.
inline std::vector<Prediction> predict_text(const std::string& text, const std::string& profile = "") {
  return predict_runs(MeasuredTable::parse(text, "mine.csv"), profile);
}

/// The summary of all rows.
inline ErrorSummary over_all(const std::vector<Prediction>& rows) {
  return summarize(rows).back();
}

}  // namespace orrery
