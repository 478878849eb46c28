// What the rows of copies and of NCCL have in common.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace orrery {

// 4 KiB to 1 GiB at sqrt(2) spacing, multiples of 256 bytes.
std::vector<int64_t> link_sizes();
std::vector<std::string> link_columns();

}  // namespace orrery
