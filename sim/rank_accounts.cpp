#include "sim/rank_accounts.hpp"

namespace orrery {

std::int64_t Accounts::last_stream() const {
  const auto last = std::max_element(last_end_.begin(), last_end_.end());
  return last == last_end_.end() ? -1 : last - last_end_.begin();
}

void Accounts::close(SimulationResult& result) {
  const std::int64_t last = last_stream();
  result.end = last < 0 ? 0 : last_end_[static_cast<std::size_t>(last)];
  result.ranks.resize(clocks_.size());
  for (std::size_t rank = 0; rank < clocks_.size(); ++rank) {
    RankTotals& totals = result.ranks[rank];
    clocks_[rank].close(result.end, totals);
    totals.sent = Bytes::from_si(sent_[rank]);
    totals.received = Bytes::from_si(received_[rank]);
    std::copy_n(stream_busy_.begin() + static_cast<std::ptrdiff_t>(rank) * streams_per_rank, streams_per_rank,
                totals.stream_busy.begin());
    const auto busy = category_busy_.begin() + static_cast<std::ptrdiff_t>(rank * categories_);
    totals.category_busy.assign(busy, busy + static_cast<std::ptrdiff_t>(categories_));
  }
  for (std::size_t p = 0; p < phases_.size(); ++p) {
    PhaseTotals& totals = result.phases.emplace_back(PhaseTotals{phases_[p].start, phases_[p].end, {}, {}});
    for (std::size_t rank = 0; rank < clocks_.size(); ++rank) {
      const Ticks* const busy = &phase_busy_[(rank * phases_.size() + p) * 2];
      totals.compute_busy += to_seconds(busy[0]);
      totals.comm_busy += to_seconds(busy[1]);
    }
  }
}

}  // namespace orrery
