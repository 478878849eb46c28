// Measures rows of the table one after another and writes a file for every group.
#pragma once
#include <vector>

#include "kernels/bench_options.hpp"
#include "kernels/table.hpp"

namespace orrery {

// The order of work: rows with several rounds have the first at the beginning, the last at the end, the others between.
std::vector<const Row*> in_rounds(const std::vector<const Row*>& rows);
// 0; 1 if a row failed; 130 if it was interrupted.
int run_rows(const Table& table, const std::vector<const Row*>& rows, const BenchOptions& options);
// Writes the same files with the rows' keys alone, status = planned.
void plan_rows(const Table& table, const std::vector<const Row*>& rows, const BenchOptions& options);

}  // namespace orrery
