#include "cost_models/attention_tiles.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <vector>

namespace orrery {
namespace {

constexpr std::int64_t most_lists = 1 << 14;

/// Tiles of list i: a ramp that begins at `lead`, cut off at a plateau or lifted so that the sum is `tiles`. A causal
/// square is the ramp alone, a window the ramp with a plateau.
std::vector<double> list_lengths(const TileLists& t) {
  const auto count = static_cast<std::size_t>(t.lists);
  std::vector<double> lengths(count, t.tiles / static_cast<double>(t.lists));
  if (t.equal()) return lengths;
  const auto ramp = [&](double offset, double plateau) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      lengths[i] = std::min(plateau, offset + t.slope * static_cast<double>(i + 1));
      sum += lengths[i];
    }
    return sum;
  };
  const bool lifted = ramp(t.lead, t.longest) < t.tiles;
  double low = 0, high = t.longest;
  for (int i = 0; i < 50; ++i) {
    const double middle = (low + high) / 2;
    const double sum = lifted ? ramp(middle, t.longest) : ramp(t.lead, middle);
    (sum < t.tiles ? low : high) = middle;
  }
  if (t.longest_first) std::reverse(lengths.begin(), lengths.end());
  return lengths;
}

Makespan schedule(const std::vector<double>& durations, std::int64_t heads, int sms, int idle_sms) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int i = 0; i < sms; ++i) free_at.push(0);
  double end = 0;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (const double duration : durations) {
      const double done = free_at.top() + duration;
      free_at.pop();
      free_at.push(done);
      end = std::max(end, done);
    }
  }
  for (int i = 1; i < idle_sms; ++i) free_at.pop();
  return {end, end - free_at.top(), 0};
}

}  // namespace

Makespan makespan(const TileLists& t, const TileCycles& c, int sms, int idle_sms) {
  if (t.lists <= 0 || t.heads <= 0) return {};
  idle_sms = std::clamp(idle_sms, 1, sms);
  const auto lists = static_cast<double>(t.lists);
  const double masked_extra = t.masked_tiles / lists * (c.masked_tile - c.full_tile);
  if (t.equal()) {
    const double all = lists * static_cast<double>(t.heads), waves = std::ceil(all / sms);
    const double wave = c.list_start + t.tiles / lists * c.full_tile + masked_extra;
    return {waves * wave, waves * sms - all >= idle_sms ? wave : 0, all * wave / sms};
  }
  std::vector<double> durations = list_lengths(t);
  double work = 0;
  for (double& d : durations) {
    d = c.list_start + d * c.full_tile + masked_extra;
    work += d;
  }
  const std::int64_t exact_heads = std::clamp<std::int64_t>(most_lists / t.lists, 1, t.heads);
  Makespan result = schedule(durations, exact_heads, sms, idle_sms);
  result.cycles += work * static_cast<double>(t.heads - exact_heads) / sms;
  result.busy = work * static_cast<double>(t.heads) / sms;
  return result;
}

double starts_in_step(const TileLists& t, int sms, double drift) {
  if (!(drift > 0)) return 0;
  const double all = static_cast<double>(t.lists) * static_cast<double>(t.heads);
  const double waves = t.equal() ? std::ceil(all / sms) : 1;
  return drift * (1 - std::exp(-waves / drift)) * std::min(1.0, all / sms);
}

}  // namespace orrery
