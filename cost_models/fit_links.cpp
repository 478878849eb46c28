// Tables of measured messages: one for each kind, with a knot for each size.
#include "cost_models/fit_links.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "cost_models/nccl_channels.hpp"

namespace orrery {
namespace {

constexpr int fewest_knots = 6;  // fitted sizes from which a kind of message has a table: with fewer it would
                                 // interpolate over factors of ten

/// NCCL's limit and number of ranks of "send_recv", "send_recv 4 channels", "send_recv 4 channels 4 ranks", ...
struct Channels {
  int limit = nccl_automatic_channels, ranks = 2;

  static std::optional<Channels> of(const LinkTable& table) {
    Channels c;
    int limit = 0, parsed = 0;  // parsed: characters
    const char* op = table.op.c_str();
    if (table.mechanism != "nccl" || !table.op.starts_with("send_recv")) return std::nullopt;
    op += std::string_view("send_recv").size();
    if (std::sscanf(op, " %d channels%n", &limit, &parsed) == 1 && parsed > 0) {
      c.limit = limit;
      op += parsed;
    }
    std::sscanf(op, " %d ranks", &c.ranks);
    return c;
  }
  int used(double bytes) const { return nccl_send_recv_channels(limit, ranks, Bytes::from_si(bytes)); }
};

/// Where the number of channels changes there is a jump, of which two knots a byte apart are the ends.
class Switches {
 public:
  Switches(const LinkTable& table, Channels channels) : table_(table), channels_(channels) {}

  LinkTable with_knots() const {
    LinkTable result = table_;
    result.bytes.clear();
    result.seconds.clear();
    const auto add = [&](double bytes, double seconds) {
      result.bytes.push_back(bytes);
      result.seconds.push_back(seconds);
    };
    for (std::size_t i = 0; i < table_.bytes.size(); ++i) {
      add(table_.bytes[i], table_.seconds[i]);
      if (i + 1 == table_.bytes.size() || used(i) == used(i + 1)) continue;
      const std::optional<Line> below = line_up_to(i), above = line_from(i + 1);
      if (!below && !above) continue;
      for (int channels = used(i); channels < used(i + 1); channels *= 2) {
        const double last = nccl_most_bytes(channels).si();
        add(last, line_of(channels, i, below, above).at(last));
        add(last + 1, line_of(2 * channels, i, below, above).at(last + 1));
      }
    }
    return result;
  }

 private:
  struct Line {
    double start = 0, slope = 0;  // s, s per byte
    double at(double bytes) const { return start + slope * bytes; }
  };

  int used(std::size_t i) const { return channels_.used(table_.bytes[i]); }
  Line through(std::size_t i, double slope) const { return {table_.seconds[i] - slope * table_.bytes[i], slope}; }
  Line between(std::size_t i) const {
    return through(i, (table_.seconds[i + 1] - table_.seconds[i]) / (table_.bytes[i + 1] - table_.bytes[i]));
  }
  std::optional<Line> line_up_to(std::size_t i) const {
    return i > 0 && used(i - 1) == used(i) ? std::optional(between(i - 1)) : std::nullopt;
  }
  std::optional<Line> line_from(std::size_t i) const {
    return i + 1 < table_.bytes.size() && used(i + 1) == used(i) ? std::optional(between(i)) : std::nullopt;
  }

  /// Where two sizes show it, the line through them; with one size or none the slope of another number of channels,
  /// which goes as their inverse, through that size or from the same start.
  Line line_of(int channels, std::size_t i, const std::optional<Line>& below, const std::optional<Line>& above) const {
    if (channels == used(i) && below) return *below;
    if (channels == used(i + 1) && above) return *above;
    const Line& known = below ? *below : *above;
    const double slope = known.slope * (below ? used(i) : used(i + 1)) / channels;
    if (channels == used(i)) return through(i, slope);
    return channels == used(i + 1) ? through(i + 1, slope) : Line{known.start, slope};
  }

  const LinkTable& table_;
  Channels channels_;
};

}  // namespace

std::vector<LinkTable> tabulate_links(const MeasuredRows& messages) {
  std::vector<LinkTable> tables;
  std::map<std::string, MeasuredRows> by_family;
  for (const MeasuredKernel* row : messages) by_family[row->family].push_back(row);
  for (auto& [name, rows] : by_family) {
    if (rows.size() < fewest_knots) continue;
    std::sort(rows.begin(), rows.end(), [](const auto* a, const auto* b) { return a->bytes < b->bytes; });
    LinkTable& table = tables.emplace_back();
    table.link = rows.front()->link;
    table.mechanism = rows.front()->mechanism;
    table.op = rows.front()->op;
    table.source = files_of(rows);
    const std::optional<Channels> channels = Channels::of(table);
    for (std::size_t first = 0, last = 0; first < rows.size(); first = last) {
      // A size that several files have counts once, with the mean. Noise must not make a longer message faster; more
      // channels do.
      double sum = 0;
      for (; last < rows.size() && rows[last]->work == rows[first]->work; ++last) sum += rows[last]->time.si();
      const double bytes = rows[first]->bytes.si();
      const bool same =
          !table.bytes.empty() && (!channels || channels->used(table.bytes.back()) == channels->used(bytes));
      const double least = same ? table.seconds.back() : 0;
      table.bytes.push_back(bytes);
      table.seconds.push_back(std::max(sum / static_cast<double>(last - first), least));
    }
    if (channels) table = Switches(table, *channels).with_knots();
  }
  return tables;
}

}  // namespace orrery
