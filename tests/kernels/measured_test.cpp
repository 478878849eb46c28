// The measured files in the repository have the header and the columns that their readers rely on.
#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "../catch.hpp"

namespace {

struct File {
  std::vector<std::string> header;
  std::string columns;
  int rows = 0;
};

bool read(const std::string& name, File& file) {
  std::ifstream in(std::string(ORRERY_SOURCE_DIR) + "/validate/measured/h200_sxm/" + name + ".csv");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("# ", 0) == 0) {
      file.header.push_back(line.substr(2, line.find(" = ") - 2));
    } else if (file.columns.empty()) {
      file.columns = line;
    } else {
      ++file.rows;
    }
  }
  return !file.columns.empty();
}

}  // namespace

TEST_CASE("measured attention blocks are runs that validation reads") {
  File file;
  REQUIRE(read("attention", file));
  CHECK(file.columns.rfind("implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,"
                           "schedule,pass,time_ms,n_q,n_k",
                           0) == 0);
  CHECK(file.rows > 100);
}

TEST_CASE("measured files say what they were measured on") {
  for (const char* name : {"attention", "merge", "elementwise", "gemm", "links", "overlap", "power", "ring"}) {
    File file;
    INFO(name);
    REQUIRE(read(name, file));
    for (const char* key : {"gpu", "driver", "cuda", "cudnn", "nccl", "clocks", "date", "host_cores", "command"}) {
      INFO(key);
      CHECK(std::find(file.header.begin(), file.header.end(), key) != file.header.end());
    }
  }
}
