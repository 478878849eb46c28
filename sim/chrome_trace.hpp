// Writes a simulation as a Chrome trace, the JSON that Perfetto and chrome://tracing open.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "sim/simulate.hpp"

namespace orrery {

/// A process per rank with a track per stream, and a process "links" with a track per link that was used. Ops that take
/// no time (markers) become instant events. Events are written as they come; only buffers of a few kB are kept.
class ChromeTrace : public SpanSink {
 public:
  /// All three must outlive the trace.
  ChromeTrace(std::ostream& out, const Program& program, const Cluster& cluster);

  void ops(std::span<const Span> spans) override;
  void links(std::span<const LinkSpan> spans) override;

  /// Ends the JSON. Call it once, after simulate(). As every write, throws std::runtime_error if the stream fails.
  void finish();

 private:
  void name_process(int process, std::string_view name);
  void name_track(int process, int track, std::string_view name);
  void begin_event();
  void add_times(Ticks start, Ticks end);
  void write_out();

  std::ostream& out_;
  const Program& program_;
  const Cluster& cluster_;
  std::string text_;
  std::vector<bool> stream_named_;  // by rank * streams_per_rank + stream
  std::vector<bool> rank_named_;
  std::vector<bool> link_named_;
  bool links_named_ = false;
  bool first_ = true;
};

}  // namespace orrery
