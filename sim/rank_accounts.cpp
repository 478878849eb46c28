#include "sim/rank_accounts.hpp"

namespace orrery {

void Accounts::close(std::size_t categories, std::size_t phases, SimulationResult& result) const {
  result.ranks.resize(clocks_.size());
  constexpr Ticks never = std::numeric_limits<Ticks>::max();
  result.phases.assign(phases, PhaseTotals{never, 0, {}, {}});
  for (std::size_t a = 0; a < accounts_.size(); ++a) {
    PhaseTotals& phase = result.phases[accounts_[a].phase];
    phase.start = std::min(phase.start, bounds_[a].first_begin);
    phase.end = std::max(phase.end, bounds_[a].last_end);
  }
  for (PhaseTotals& phase : result.phases) {
    if (phase.start == never) phase.start = 0;
  }
  std::vector<Ticks> phase_busy(phases * 2);  // of one rank: compute, transfers
  for (std::size_t rank = 0; rank < clocks_.size(); ++rank) {
    RankTotals& totals = result.ranks[rank];
    totals.category_busy.resize(categories);
    std::fill(phase_busy.begin(), phase_busy.end(), 0);
    for (std::size_t a = 0; a < accounts_.size(); ++a) {
      const Ticks busy = busy_[rank * accounts_.size() + a];
      const bool is_transfer = accounts_[a].stream != Stream::compute;
      totals.stream_busy[static_cast<std::size_t>(accounts_[a].stream)] += busy;
      totals.category_busy[accounts_[a].category] += busy;
      phase_busy[accounts_[a].phase * std::size_t{2} + is_transfer] += busy;
    }
    totals.compute = totals.stream_busy[static_cast<std::size_t>(Stream::compute)];
    totals.comm = clocks_[rank].comm();
    totals.exposed_comm =
        clocks_[rank].any() - totals.compute;  // compute is in order, so that it never overlaps itself
    totals.idle = result.end - totals.compute - totals.exposed_comm;
    for (std::size_t p = 0; p < phases; ++p) {
      result.phases[p].compute_busy += to_seconds(phase_busy[p * 2]);
      result.phases[p].comm_busy += to_seconds(phase_busy[p * 2 + 1]);
    }
  }
}

}  // namespace orrery
