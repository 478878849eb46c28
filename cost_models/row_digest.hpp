// A number by which a profile knows the measured rows it was fitted on, in whatever file they stand.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "cost_models/measured_table.hpp"

namespace orrery {

using RowDigests = std::set<std::uint32_t>;

/// FNV-1a, 32 bits.
std::uint32_t digest(std::string_view text);

/// A cell however it is spelt: 8192.0 is 8192, and True is true.
std::string plain_cell(const std::string& cell);

/// Of what was measured and the time: over the cells that say so, numbers to six digits. Two rows of
/// the ten thousand here have the same by chance about once in a hundred sets of files. It goes by cells, not by what
/// they mean: a row without the columns of its file, or with `regime` empty instead of `sustained`, is another row.
std::uint32_t row_digest(const MeasuredTable& table, std::size_t row);

}  // namespace orrery
