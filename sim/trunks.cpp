#include "sim/trunks.hpp"

#include <map>

namespace orrery {
namespace {

struct Candidate {
  double capacity = std::numeric_limits<double>::infinity();
  double fastest = 0;
  bool is_even = true;  // all routes equally fast
};

constexpr std::size_t most_gone = 16;

}  // namespace

void Trunk::remove_first(Ticks now, std::vector<Member>& ended) {
  serve_until(now);
  const double next_tick = served_ + bytes_per_tick_ * 0.5;
  do {
    ended.push_back(flows_[first_++].member);
  } while (!empty() && flows_[first_].end < next_tick);
  if (empty()) {
    flows_.clear();
    first_ = 0;
    served_ = 0;
    busy_ += now - busy_since_;
  } else if (first_ >= most_gone && first_ * 2 >= flows_.size()) {
    flows_.erase(flows_.begin(), flows_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

void Trunk::expect(Member member, double size, Ticks at) {
  std::size_t place = arrivals_.size();
  arrivals_.emplace_back();
  for (; place > next_arrival_ && arrivals_[place - 1].at > at; --place) arrivals_[place] = arrivals_[place - 1];
  arrivals_[place] = {at, size, member};
  ++expected_;
  least_expected_ = std::min(least_expected_, size);
}

void Trunk::admit() {
  const Ticks at = next_arrival();
  do {
    add(arrivals_[next_arrival_].member, arrivals_[next_arrival_].size, at);
    ++next_arrival_;
    --expected_;
  } while (expects() && next_arrival() == at);
  if (!expects()) {
    arrivals_.clear();
    next_arrival_ = 0;
    least_expected_ = std::numeric_limits<double>::infinity();
  } else if (next_arrival_ >= most_gone && next_arrival_ * 2 >= arrivals_.size()) {
    arrivals_.erase(arrivals_.begin(), arrivals_.begin() + static_cast<std::ptrdiff_t>(next_arrival_));
    next_arrival_ = 0;
  }
}

void Trunk::start_over() {
  for (Flow& flow : flows_) flow.end -= served_;
  served_ = 0;
}

TrunkId Trunks::of(const Route& route) const {
  for (const LinkId link : route.links) {
    if (of_link[static_cast<std::size_t>(link)] >= 0) return of_link[static_cast<std::size_t>(link)];
  }
  return -1;
}

Trunks find_trunks(const RouteTable& routes, std::span<const Link> links, const std::vector<bool>& is_private) {
  using Shared = std::vector<LinkId>;
  std::map<Shared, Candidate> candidates;
  std::vector<const Shared*> only(links.size(), nullptr);  // what all routes over a link share
  std::vector<bool> is_mixed(links.size());
  routes.each([&](const Route& route) {
    Shared shared;
    Candidate one;
    double own = std::numeric_limits<double>::infinity();
    for (const LinkId link : route.links) {
      const double bandwidth = links[static_cast<std::size_t>(link)].bandwidth.si();
      if (is_private[static_cast<std::size_t>(link)]) {
        own = std::min(own, bandwidth);
      } else {
        shared.push_back(link);
        one.capacity = std::min(one.capacity, bandwidth);
      }
    }
    if (shared.empty()) return;
    std::sort(shared.begin(), shared.end());
    one.fastest = std::min(own, one.capacity);
    const auto [entry, is_new] = candidates.try_emplace(std::move(shared), one);
    entry->second.is_even = entry->second.is_even && entry->second.fastest == one.fastest;
    for (const LinkId link : entry->first) {
      const Shared*& known = only[static_cast<std::size_t>(link)];
      if (known != nullptr && known != &entry->first) is_mixed[static_cast<std::size_t>(link)] = true;
      known = &entry->first;
    }
  });
  Trunks result{{}, std::vector<TrunkId>(links.size(), -1)};
  for (const auto& [shared, candidate] : candidates) {
    const bool is_trunk = candidate.is_even && std::none_of(shared.begin(), shared.end(), [&](LinkId link) {
                            return is_mixed[static_cast<std::size_t>(link)];
                          });
    if (!is_trunk) continue;
    for (const LinkId link : shared)
      result.of_link[static_cast<std::size_t>(link)] = static_cast<TrunkId>(result.trunks.size());
    result.trunks.emplace_back(shared, BytesPerSecond::from_si(candidate.capacity),
                               BytesPerSecond::from_si(candidate.fastest));
  }
  return result;
}

}  // namespace orrery
