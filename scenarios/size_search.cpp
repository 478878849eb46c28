#include "scenarios/size_search.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <stdexcept>
#include <tuple>

#include "scenarios/in_parallel.hpp"

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
  bool is_tight = false;

  /// GPU count by GPU count would find each front point soonest; the fastest of each count first.
  auto promise() const { return std::tuple(least.time * least.gpus, least.time); }
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
    const auto less_promising = [&](std::size_t a, std::size_t b) {
      return std::pair(entries_[a].promise(), a) > std::pair(entries_[b].promise(), b);
    };
    std::vector<std::size_t> all(entries_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::priority_queue queue(less_promising, std::move(all));
    while (!queue.empty()) {
      std::vector<std::size_t> chosen;
      for (; !queue.empty() && chosen.size() < round; queue.pop()) {
        if (options_.prune && hopeless(entries_[queue.top()])) {
          ++result_.bounded_away;
        } else {
          chosen.push_back(queue.top());
        }
      }
      for (const std::size_t again : look_at(chosen)) queue.push(again);
    }
    conclude();
    if (options_.settle) settle();
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

  /// Samples of a step may say a little less than is certain of the whole.
  static SimulatedStep at_least(const Bound& bound, SimulatedStep step) {
    step.time = std::max(step.time, bound.time);
    return step;
  }

  /// Simulates those whose bounds are as tight as they get and tightens those of the others, which come back.
  std::vector<std::size_t> look_at(const std::vector<std::size_t>& chosen) {
    std::vector<std::optional<SimulatedStep>> steps(chosen.size());
    in_parallel(chosen.size(), options_.threads, [&](std::size_t i) {
      Entry& entry = entries_[chosen[i]];
      if (!options_.prune) {
        steps[i] = simulate_candidate(problem_, entry.candidate);
      } else if (entry.is_tight) {
        steps[i] = at_least(entry.bound, simulate_candidate(problem_, entry.candidate));
      } else {
        entry.bound = tightened(problem_, entry.candidate, entry.bound);
        entry.least = merits_of(entry.candidate, entry.bound.time);
        entry.is_tight = true;
      }
    });
    std::vector<std::size_t> again;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      if (steps[i]) {
        note(entries_[chosen[i]], *steps[i]);
      } else {
        again.push_back(chosen[i]);
      }
    }
    return again;
  }

  Sized sized_of(const Candidate& c, const Bound& bound, const SimulatedStep& step) const {
    const GpuOption& gpu = problem_.gpus[static_cast<std::size_t>(c.gpu)];
    const Merits merits = merits_of(c, step.time);
    return {c,
            bound,
            step,
            c.degrees.ranks(),
            gpu.price_per_hour ? std::optional(merits.cost) : std::nullopt,
            gpu.gpu.board_power ? std::optional(merits.energy) : std::nullopt,
            mfu_of(c, merits.time)};
  }

  void note(const Entry& entry, const SimulatedStep& step) {
    ++result_.simulated;
    const Merits merits = merits_of(entry.candidate, step.time);
    const Sized sized = sized_of(entry.candidate, entry.bound, step);
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

  /// What was found, simulated once more with the clock that the mean power of its step leaves.
  void settle() {
    std::vector<Sized*> found;
    for (std::vector<Sized>* list : {&result_.best, &result_.front})
      for (Sized& sized : *list) found.push_back(&sized);
    for (std::optional<Sized>* one : {&result_.fewest, &result_.fastest, &result_.highest_mfu})
      if (*one) found.push_back(&**one);
    std::vector<const Sized*> distinct;
    const auto same = [](const Sized* a) { return [a](const Sized* b) { return a->candidate == b->candidate; }; };
    for (const Sized* sized : found)
      if (std::none_of(distinct.begin(), distinct.end(), same(sized))) distinct.push_back(sized);
    SizeProblem bursts = problem_;
    bursts.prepare(Regime::burst);
    std::vector<Sized> settled(distinct.size());
    in_parallel(distinct.size(), options_.threads, [&](std::size_t i) {
      const Candidate& c = distinct[i]->candidate;
      const Bound bound = bound_of(bursts, c);
      settled[i] = sized_of(c, bound, at_least(bound, simulate_settled(problem_, c)));
    });
    for (Sized* sized : found)
      *sized = *std::find_if(settled.begin(), settled.end(),
                             [&](const Sized& s) { return s.candidate == sized->candidate; });
    order_again();
  }

  void order_again() {
    const auto merits = [&](const Sized& s) { return merits_of(s.candidate, s.step.time); };
    const auto by = [&](Objective objective) {
      return [&merits, objective](const Sized& a, const Sized& b) {
        return merits(a).order(objective) < merits(b).order(objective);
      };
    };
    const auto misses = [&](const Sized& s) { return misses_target(s.candidate, s.step.time.si()); };
    for (std::vector<Sized>* list : {&result_.best, &result_.front}) std::erase_if(*list, misses);
    std::stable_sort(result_.best.begin(), result_.best.end(), by(options_.objective));
    // The search's order may differ from this one: what is best now belongs to the front.
    if (!result_.best.empty() && std::none_of(result_.front.begin(), result_.front.end(), [&](const Sized& s) {
          return s.candidate == result_.best.front().candidate;
        }))
      result_.front.push_back(result_.best.front());
    const std::vector<Sized> all = result_.front;
    std::erase_if(result_.front, [&](const Sized& s) {
      return std::any_of(all.begin(), all.end(), [&](const Sized& f) { return merits(f).dominates(merits(s)); });
    });
    std::stable_sort(result_.front.begin(), result_.front.end(), by(Objective::time));
    if (result_.fewest && misses(*result_.fewest)) result_.fewest.reset();
    for (const std::vector<Sized>* list : {&result_.best, &result_.front}) {
      for (const Sized& sized : *list) {
        if (!result_.fewest || by(Objective::gpus)(sized, *result_.fewest)) result_.fewest = sized;
        if (by(Objective::time)(sized, *result_.fastest)) result_.fastest = sized;
      }
    }
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
