#include "sim/comm_account.hpp"

#include <algorithm>
#include <array>

#include "sim/tick_vectors.hpp"

namespace orrery {
namespace {

constexpr std::size_t piece = 128;  // columns whose intervals in hand stay in the nearest cache

}  // namespace

CommAccounts::CommAccounts(std::size_t columns, std::size_t depth)
    : begin_(depth, std::vector<double>(columns, -1)), end_(depth, std::vector<double>(columns)) {
  for (std::vector<double>& field : state_) field.resize(columns);
  state_[last_begin].assign(columns, -1);
}

/// Insertion into the sorted slots from the latest down; what falls out is the earliest.
void CommAccounts::add(const ColumnSet& columns, const double* begin, const double* end, double sign) {
  std::array<double, piece> b, e;
  columns.each_piece([&](std::size_t i, std::size_t column, std::size_t count_of_piece) {
    for (std::size_t done = 0; done < count_of_piece; done += piece) {
      const std::size_t n = std::min(piece, count_of_piece - done), first = column + done;
      std::copy_n(begin + i + done, n, b.begin());
      for (std::size_t j = 0; j < n; ++j) e[j] = sign * end[i + done + j];
      for (std::size_t slot = begin_.size(); slot-- > 0;) {
        ticks::sort_pairs(b.data(), e.data(), begin_[slot].data() + first, end_[slot].data() + first, n);
      }
      count(first, b.data(), e.data(), n);
    }
  });
}

/// Intervals come here by their begins, so each can overlap only the latest stretch of the other kind.
void CommAccounts::count(std::size_t column, const double* begin, const double* end, std::size_t n) {
  const ticks::OverlapSums sums{state_[run_begin].data() + column,  state_[run_end].data() + column,
                                state_[gap_begin].data() + column,  state_[gap_end].data() + column,
                                state_[last_begin].data() + column, state_[comm_sum].data() + column,
                                state_[exposed_sum].data() + column};
  lateness_ = std::min(lateness_, ticks::add_overlaps(sums, begin, end, n));
}

bool CommAccounts::finish(double end) {
  const std::size_t columns = state_[comm_sum].size();
  const std::vector<double> ends(columns, end), later(columns, end + 1);
  for (std::size_t i = 0; i < begin_.size(); ++i) add_gap({0, columns, columns}, ends.data(), later.data());
  return lateness_ >= 0;
}

}  // namespace orrery
