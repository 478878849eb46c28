#include "cost_models/link_table.hpp"

#include <algorithm>

namespace orrery {

Seconds LinkTable::time(Bytes size) const {
  const double x = size.si();
  if (x <= bytes.front() || bytes.size() == 1) return Seconds::from_si(seconds.front());
  const auto next = std::upper_bound(bytes.begin() + 1, bytes.end() - 1, x);
  const auto i = static_cast<std::size_t>(next - bytes.begin());
  const double slope = (seconds[i] - seconds[i - 1]) / (bytes[i] - bytes[i - 1]);
  return Seconds::from_si(seconds[i - 1] + slope * (x - bytes[i - 1]));
}

BytesPerSecond LinkTable::last_rate() const {
  const std::size_t n = bytes.size();
  if (n < 2) return BytesPerSecond::from_si(bytes.front() / seconds.front());
  return BytesPerSecond::from_si((bytes[n - 1] - bytes[n - 2]) / (seconds[n - 1] - seconds[n - 2]));
}

}  // namespace orrery
