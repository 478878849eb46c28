#include "scenarios/size_search.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <stdexcept>
#include <tuple>

#include "scenarios/in_parallel.hpp"
#include "scenarios/step_power.hpp"

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
  enum class Rests { on_closed_form, on_kernels, on_kernels_and_power } rests = Rests::on_closed_form;

  /// GPU count by GPU count would find each front point soonest; the fastest of each count first.
  auto promise() const { return std::tuple(least.time * least.gpus, least.time); }
};

/// Of the time that the search goes by; what it finds is simulated with more care, within 1.1 % of the whole.
constexpr double search_error = 0.015;

class Search {
 public:
  Search(const SizeProblem& problem, const SizeOptions& options)
      : problem_(problem), options_(options), bursts_(problem), useful_(useful_flops(problem)) {
    bursts_.prepare(Regime::burst);
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
        const Entry& entry = entries_[queue.top()];
        if (options_.prune && hopeless(entry.candidate, entry.least)) {
          ++result_.bounded_away;
        } else {
          chosen.push_back(queue.top());
        }
      }
      for (const std::size_t again : look_at(chosen)) queue.push(again);
      if (options_.progress)
        options_.progress(result_.candidates - static_cast<std::int64_t>(queue.size()), result_.candidates);
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

  bool settles(const Candidate& c) const {
    return options_.settle && has_power_limit(problem_.gpus[static_cast<std::size_t>(c.gpu)].profile);
  }

  /// Bounds run each kernel alone at the power limit; no clock is higher than that of bursts.
  Merits least_of(const Candidate& c, const Bound& bound) const {
    if (!settles(c)) return merits_of(c, bound.time);
    return merits_of(c, std::max(bound.time - most_gain(bound.beside_kernels), bound_of(bursts_, c).time));
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
      entries_.push_back({candidate, bound, least_of(candidate, bound)});
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
  bool hopeless(const Candidate& c, const Merits& least) const {
    if (done_.empty()) return false;
    if (misses_target(c, least.time)) {
      // The nearest to a target that nobody meets is still to be found.
      const bool nearer = best_.empty() && options_.least_mfu && mfu_of(c, least.time) > highest_mfu_;
      return least.time > fastest_ && !nearer;
    }
    const auto order = least.order(options_.objective);
    const bool among_best = best_.size() < static_cast<std::size_t>(options_.keep) || order <= best_.back();
    if (among_best) return false;
    return std::any_of(front_.begin(), front_.end(), [&](const Merits& m) { return m.dominates(least); });
  }

  SimulatedStep simulated(const Entry& entry) const {
    const Candidate& c = entry.candidate;
    if (!options_.settle) return simulate_candidate(problem_, c);
    const auto may_matter = [&](Seconds least) { return !hopeless(c, merits_of(c, least)); };
    const SimulatedStep step = simulate_for_search(problem_, c, entry.bound, may_matter);
    const bool borderline =
        misses_target(c, step.time.si() * (1 - search_error)) != misses_target(c, step.time.si() * (1 + search_error));
    return borderline ? simulate_settled(problem_, c) : step;
  }

  /// Samples of a step may say a little less than is certain of the whole.
  static SimulatedStep at_least(const Entry& entry, SimulatedStep step) {
    step.time = std::max(step.time, Seconds::from_si(entry.least.time));
    return step;
  }

  Entry::Rests tightest_of(const Candidate& c) const {
    return settles(c) ? Entry::Rests::on_kernels_and_power : Entry::Rests::on_kernels;
  }
  void tighten(Entry& entry) const {
    const Candidate& c = entry.candidate;
    if (entry.rests == Entry::Rests::on_closed_form) {
      entry.bound = tightened(problem_, c, entry.bound);
      entry.least = least_of(c, entry.bound);
      entry.rests = Entry::Rests::on_kernels;
    } else {
      const Seconds settled = least_settled(problem_, c, entry.bound);
      entry.least = merits_of(c, std::max(Seconds::from_si(entry.least.time), settled));
      entry.rests = Entry::Rests::on_kernels_and_power;
    }
  }

  /// Simulates those whose bounds are as tight as they get and tightens those of the others, which come back.
  std::vector<std::size_t> look_at(const std::vector<std::size_t>& chosen) {
    std::vector<std::optional<SimulatedStep>> steps(chosen.size());
    in_parallel(chosen.size(), options_.threads, [&](std::size_t i) {
      Entry& entry = entries_[chosen[i]];
      if (!options_.prune) {
        steps[i] = simulated(entry);
      } else if (entry.rests == tightest_of(entry.candidate)) {
        steps[i] = at_least(entry, simulated(entry));
      } else {
        tighten(entry);
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
    std::optional<double> energy;
    if (gpu.gpu.board_power) energy = merits.energy;
    if (step.energy) energy = step.energy->si();
    return {c,
            bound,
            step,
            c.degrees.ranks(),
            gpu.price_per_hour ? std::optional(merits.cost) : std::nullopt,
            energy,
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

  Merits merits_of(const Sized& s) const {
    Merits merits = merits_of(s.candidate, s.step.time);
    if (s.energy) merits.energy = *s.energy;
    return merits;
  }

  /// What was found, with the clock that its mean power leaves, if it has not got that yet.
  void settle() {
    std::vector<Sized> found = result_.best;
    const auto add = [&](const Sized& sized) {
      const auto same = [&](const Sized& s) { return s.candidate == sized.candidate; };
      if (std::none_of(found.begin(), found.end(), same)) found.push_back(sized);
    };
    // And what may be as good but for the search's error.
    constexpr std::size_t most_more = 8;
    for (std::size_t i = found.size(); i < done_.size() && i < result_.best.size() + most_more; ++i) {
      const Sized& sized = done_[i].first;
      const Merits hoped = merits_of(sized.candidate, sized.step.time * (1 - search_error));
      if (hoped.order(options_.objective) > merits_of(result_.best.back()).order(options_.objective)) break;
      add(sized);
    }
    for (const Sized& sized : result_.front) add(sized);
    for (const std::optional<Sized>* one : {&result_.fewest, &result_.fastest, &result_.highest_mfu})
      if (*one) add(**one);
    in_parallel(found.size(), options_.threads, [&](std::size_t i) {
      const Candidate c = found[i].candidate;
      const Bound bound = bound_of(bursts_, c);
      SimulatedStep step = found[i].step;
      if (!step.energy) step = simulate_settled(problem_, c);
      step.time = std::max(step.time, bound.time);
      found[i] = sized_of(c, bound, step);
    });
    if (!found.empty()) present(std::move(found));
  }

  void present(std::vector<Sized> found) {
    const auto by = [&](Objective objective) {
      return [this, objective](const Sized& a, const Sized& b) {
        return merits_of(a).order(objective) < merits_of(b).order(objective);
      };
    };
    std::stable_sort(found.begin(), found.end(), by(Objective::time));
    result_.fastest = found.front();
    if (result_.highest_mfu) {
      const auto less = [](const Sized& a, const Sized& b) { return a.mfu < b.mfu; };
      result_.highest_mfu = *std::max_element(found.begin(), found.end(), less);
    }
    std::erase_if(found, [&](const Sized& s) { return misses_target(s.candidate, s.step.time.si()); });
    result_.front.clear();
    result_.fewest.reset();
    for (const Sized& s : found) {
      const auto beats = [&](const Sized& f) { return merits_of(f).dominates(merits_of(s)); };
      const auto equals = [&](const Sized& f) {
        return f.step.time == s.step.time && f.gpus == s.gpus && f.cost == s.cost;
      };
      if (std::none_of(found.begin(), found.end(), beats) &&
          std::none_of(result_.front.begin(), result_.front.end(), equals))
        result_.front.push_back(s);
    }
    if (!found.empty()) result_.fewest = *std::min_element(found.begin(), found.end(), by(Objective::gpus));
    std::stable_sort(found.begin(), found.end(), by(options_.objective));
    found.resize(std::min(found.size(), static_cast<std::size_t>(options_.keep)));
    result_.best = std::move(found);
  }

  const SizeProblem& problem_;
  const SizeOptions& options_;
  SizeProblem bursts_;
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
