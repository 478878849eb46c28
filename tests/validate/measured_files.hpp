// The committed measured files, and the columns of a file of runs.
#pragma once

#include <filesystem>
#include <string>

namespace orrery {

inline const std::filesystem::path measured_folder = std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured";

inline const std::string run_columns =
    "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,time_ms\n";

}  // namespace orrery
