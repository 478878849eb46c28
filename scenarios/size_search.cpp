#include "scenarios/size_search.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <tuple>

namespace orrery {
namespace {

/// What candidates are compared by; every entry is better if smaller.
struct Merits {
  double time = 0, cost = 0, gpus = 0, energy = 0;

  double of(Objective objective) const {
    switch (objective) {
      case Objective::time:
        return time;
      case Objective::cost:
        return cost;
      case Objective::energy:
        return energy;
      case Objective::gpus:
        break;
    }
    return gpus;
  }
  /// Among equals the faster, then the one with fewer GPUs.
  auto order(Objective objective) const { return std::tuple(of(objective), time, gpus); }
  bool dominates(const Merits& other) const {
    return time <= other.time && cost <= other.cost && gpus <= other.gpus &&
           (time < other.time || cost < other.cost || gpus < other.gpus);
  }
};

struct Entry {
  Candidate candidate;
  Bound bound;
  Merits least;  // by the bound: no simulation is better
};

class Search {
 public:
  Search(const SizeProblem& problem, const SizeOptions& options)
      : problem_(problem), options_(options), useful_(useful_flops(problem)) {
    for (const GpuOption& option : problem.gpus) peaks_.push_back(peak_of_types(problem, option.gpu));
  }

  SizeResult run() {
    bound_all();
    // In small rounds of the most promising, so that what is simulated does not depend on the number of threads.
    constexpr std::size_t round = 8;
    std::size_t next = 0;
    while (next < entries_.size()) {
      std::vector<const Entry*> chosen;
      for (; next < entries_.size() && chosen.size() < round; ++next) {
        if (options_.prune && hopeless(entries_[next])) {
          ++result_.bounded_away;
        } else {
          chosen.push_back(&entries_[next]);
        }
      }
      simulate_all(chosen);
    }
    conclude();
    return std::move(result_);
  }

 private:
  Merits merits_of(const Candidate& c, Seconds time) const {
    const GpuOption& gpu = problem_.gpus[static_cast<std::size_t>(c.gpu)];
    const double gpus = c.degrees.ranks();
    // What is not known of a GPU is no criterion.
    const double watts = gpu.gpu.board_power ? gpu.gpu.board_power->si() : 0;
    return {time.si(), time.si() / 3600 * gpus * gpu.price_per_hour.value_or(0), gpus, time.si() * gpus * watts};
  }

  void bound_all() {
    double least = 0;
    std::set<int> filled;
    for (const Candidate& candidate : candidates_of(problem_)) {
      ++result_.candidates;
      if (candidate.degrees.ranks() > candidate.node_size) filled.insert(candidate.node_size);
      const Bound bound = bound_of(problem_, candidate);
      if (least == 0 || bound.memory.si() < least) least = bound.memory.si();
      if (!bound.fits) {
        ++result_.too_large;
        continue;
      }
      entries_.push_back({candidate, bound, merits_of(candidate, bound.time)});
    }
    result_.least_memory = Bytes::from_si(least);
    for (const int size : problem_.node_sizes) {
      if (2 * size <= problem_.max_gpus && !filled.contains(size)) result_.never_filled.push_back(size);
    }
    if (result_.candidates == 0)
      throw std::invalid_argument(
          "no degrees of parallelism suit this model, batch and implementation, choose another implementation");
    drop_needless_recomputation();
    // GPU count by GPU count would find each front point soonest; the fastest of each count first.
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return std::tuple(a.least.time * a.least.gpus, a.least.time) <
             std::tuple(b.least.time * b.least.gpus, b.least.time);
    });
  }

  /// The same program with work added is not faster: where it fits without recomputing, recomputing is left out.
  void drop_needless_recomputation() {
    std::vector<Entry> kept;
    for (const Entry& entry : entries_) {
      Candidate without = entry.candidate;
      without.recompute = Recompute::none;
      const bool needless =
          entry.candidate.recompute != Recompute::none && !kept.empty() && kept.back().candidate == without;
      if (needless && options_.prune) {
        ++result_.bounded_away;
      } else {
        kept.push_back(entry);
      }
    }
    entries_ = std::move(kept);
  }

  double mfu_of(const Candidate& c, double seconds) const {
    return useful_ / (peaks_[static_cast<std::size_t>(c.gpu)] * Seconds::from_si(seconds) * c.degrees.ranks());
  }
  bool misses_target(const Candidate& c, double seconds) const {
    return (options_.slowest && seconds > options_.slowest->si()) ||
           (options_.least_mfu && mfu_of(c, seconds) < *options_.least_mfu);
  }

  /// Cannot be among the best, on the front, the smallest or the fastest.
  bool hopeless(const Entry& entry) const {
    if (done_.empty()) return false;
    if (misses_target(entry.candidate, entry.least.time)) {
      // The nearest to a target that nobody meets is still to be found.
      const bool nearer =
          best_.empty() && options_.least_mfu && mfu_of(entry.candidate, entry.least.time) > highest_mfu_;
      return entry.least.time > fastest_ && !nearer;
    }
    const auto order = entry.least.order(options_.objective);
    const bool among_best = best_.size() < static_cast<std::size_t>(options_.keep) || order <= best_.back();
    if (among_best) return false;
    return std::any_of(front_.begin(), front_.end(), [&](const Merits& m) { return m.dominates(entry.least); });
  }

  void simulate_all(const std::vector<const Entry*>& chosen) {
    std::vector<SimulatedStep> steps(chosen.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      for (std::size_t i = next++; i < chosen.size(); i = next++)
        steps[i] = simulate_candidate(problem_, chosen[i]->candidate);
    };
    std::vector<std::future<void>> helpers;
    for (int t = 1; t < options_.threads; ++t) helpers.push_back(std::async(std::launch::async, work));
    work();
    for (std::future<void>& helper : helpers) helper.get();
    for (std::size_t i = 0; i < chosen.size(); ++i) note(*chosen[i], steps[i]);
  }

  void note(const Entry& entry, const SimulatedStep& step) {
    ++result_.simulated;
    const Merits merits = merits_of(entry.candidate, step.time);
    const GpuOption& gpu = problem_.gpus[static_cast<std::size_t>(entry.candidate.gpu)];
    Sized sized{entry.candidate,
                entry.bound,
                step,
                entry.candidate.degrees.ranks(),
                gpu.price_per_hour ? std::optional(merits.cost) : std::nullopt,
                gpu.gpu.board_power ? std::optional(merits.energy) : std::nullopt,
                mfu_of(entry.candidate, merits.time)};
    highest_mfu_ = std::max(highest_mfu_, sized.mfu);
    done_.emplace_back(sized, merits);
    if (fastest_ == 0 || merits.time < fastest_) fastest_ = merits.time;
    if (misses_target(entry.candidate, merits.time)) return;
    best_.push_back(merits.order(options_.objective));
    std::sort(best_.begin(), best_.end());
    if (best_.size() > static_cast<std::size_t>(options_.keep)) best_.resize(static_cast<std::size_t>(options_.keep));
    if (std::any_of(front_.begin(), front_.end(), [&](const Merits& m) { return m.dominates(merits); })) return;
    std::erase_if(front_, [&](const Merits& m) { return merits.dominates(m); });
    front_.push_back(merits);
  }

  void conclude() {
    const auto by = [](Objective objective) {
      return
          [objective](const auto& a, const auto& b) { return a.second.order(objective) < b.second.order(objective); };
    };
    std::stable_sort(done_.begin(), done_.end(), by(Objective::time));
    if (!done_.empty()) {
      result_.fastest = done_.front().first;
      const auto less = [](const auto& a, const auto& b) { return a.first.mfu < b.first.mfu; };
      result_.highest_mfu = std::max_element(done_.begin(), done_.end(), less)->first;
    }
    std::erase_if(done_, [&](const auto& d) { return misses_target(d.first.candidate, d.second.time); });
    for (const auto& [sized, merits] : done_) {
      const bool dominated =
          std::any_of(front_.begin(), front_.end(), [&, &m = merits](const Merits& f) { return f.dominates(m); });
      const bool again = std::any_of(result_.front.begin(), result_.front.end(), [&, &s = sized](const Sized& other) {
        return other.step.time == s.step.time && other.gpus == s.gpus && other.cost == s.cost;
      });
      if (!dominated && !again) result_.front.push_back(sized);
    }
    std::stable_sort(done_.begin(), done_.end(), by(Objective::gpus));
    if (!done_.empty()) result_.fewest = done_.front().first;
    std::stable_sort(done_.begin(), done_.end(), by(options_.objective));
    for (std::size_t i = 0; i < done_.size() && i < static_cast<std::size_t>(options_.keep); ++i)
      result_.best.push_back(done_[i].first);
  }

  const SizeProblem& problem_;
  const SizeOptions& options_;
  Flops useful_;
  std::vector<FlopsPerSecond> peaks_;  // by GPU
  std::vector<Entry> entries_;
  std::vector<std::pair<Sized, Merits>> done_;
  std::vector<std::tuple<double, double, double>> best_;  // their order, at most options.keep
  std::vector<Merits> front_;
  double fastest_ = 0, highest_mfu_ = 0;
  SizeResult result_;
};

}  // namespace

SizeResult search(const SizeProblem& problem, const SizeOptions& options) {
  return Search(problem, options).run();
}

}  // namespace orrery
