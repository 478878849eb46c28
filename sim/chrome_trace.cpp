#include "sim/chrome_trace.hpp"

#include <fmt/format.h>

#include <iterator>
#include <ostream>
#include <stdexcept>
#include <string>

namespace orrery {
namespace {

// Trace viewers take process and thread 0 for the kernel's idle task, and a thread numbered like a process for its main
// thread. So processes count from 1 and tracks from where the processes end, each number being used once.
constexpr int first_process = 1;
int first_track(Rank ranks) {
  return first_process + ranks + 1;
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace

ChromeTrace::ChromeTrace(std::ostream& out, const Program& program, const Cluster& cluster)
    : out_(out),
      program_(program),
      cluster_(cluster),
      stream_named_(static_cast<std::size_t>(program.ranks()) * streams_per_rank),
      rank_named_(static_cast<std::size_t>(program.ranks())),
      link_named_(cluster.links().size()) {
  fmt::format_to(std::back_inserter(text_), "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
  write_out();
}

void ChromeTrace::ops(std::span<const Span> spans) {
  for (const Span& span : spans) {
    const int process = first_process + span.rank;
    const int stream = span.rank * streams_per_rank + static_cast<int>(span.stream);
    const int track = first_track(program_.ranks()) + stream;
    if (!rank_named_[span.rank]) name_process(process, fmt::format("rank {}", span.rank));
    rank_named_[span.rank] = true;
    if (!stream_named_[stream]) name_track(process, track, name_of(span.stream));
    stream_named_[stream] = true;

    begin_event();
    fmt::format_to(std::back_inserter(text_), "{{\"pid\":{},\"tid\":{},\"name\":{},\"cat\":{},", process, track,
                   quoted(program_.describe(span.rank, span.block, span.index)),
                   quoted(program_.categories()[span.category]));
    add_times(span.start, span.end);
    fmt::format_to(std::back_inserter(text_), ",\"args\":{{\"phase\":{}}}}}", quoted(program_.phases()[span.phase]));
  }
  write_out();
}

void ChromeTrace::links(std::span<const LinkSpan> spans) {
  const int process = first_process + program_.ranks();
  const int first = first_track(program_.ranks()) + program_.ranks() * streams_per_rank;
  for (const LinkSpan& span : spans) {
    const int track = first + span.link;
    if (!links_named_) name_process(process, "links");
    links_named_ = true;
    if (!link_named_[span.link]) name_track(process, track, cluster_.links()[span.link].name);
    link_named_[span.link] = true;

    begin_event();
    fmt::format_to(std::back_inserter(text_), "{{\"pid\":{},\"tid\":{},\"name\":\"{} flow{}\",\"cat\":\"link\",",
                   process, track, span.flows, span.flows == 1 ? "" : "s");
    add_times(span.start, span.end);
    const double bytes = span.rate.si() * to_seconds(span.end - span.start).si();
    fmt::format_to(std::back_inserter(text_),
                   ",\"args\":{{\"flows\":{},\"bytes_per_second\":{:.6g},\"bytes\":{:.6g},\"utilization\":{:.4g}}}}}",
                   span.flows, span.rate.si(), bytes, span.rate / cluster_.links()[span.link].bandwidth);
  }
  write_out();
}

void ChromeTrace::finish() {
  fmt::format_to(std::back_inserter(text_), "\n]}}\n");
  write_out();
  out_.flush();
  if (!out_)
    throw std::runtime_error("the trace could not be written (is the disk full?); free some space or trace less");
}

void ChromeTrace::name_process(int process, std::string_view name) {
  begin_event();
  fmt::format_to(std::back_inserter(text_),
                 "{{\"ph\":\"M\",\"pid\":{0},\"name\":\"process_name\",\"args\":{{\"name\":{1}}}}},\n"
                 "{{\"ph\":\"M\",\"pid\":{0},\"name\":\"process_sort_index\",\"args\":{{\"sort_index\":{0}}}}}",
                 process, quoted(name));
}

void ChromeTrace::name_track(int process, int track, std::string_view name) {
  begin_event();
  fmt::format_to(
      std::back_inserter(text_),
      "{{\"ph\":\"M\",\"pid\":{0},\"tid\":{1},\"name\":\"thread_name\",\"args\":{{\"name\":{2}}}}},\n"
      "{{\"ph\":\"M\",\"pid\":{0},\"tid\":{1},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{1}}}}}",
      process, track, quoted(name));
}

void ChromeTrace::begin_event() {
  fmt::format_to(std::back_inserter(text_), "{}\n", first_ ? "" : ",");
  first_ = false;
}

/// Microseconds with all six decimals of a picosecond; a double would round them.
void ChromeTrace::add_times(Ticks start, Ticks end) {
  constexpr Ticks ticks_per_microsecond = 1'000'000;
  const auto add_microseconds = [&](Ticks ticks) {
    fmt::format_to(std::back_inserter(text_), "{}.{:06}", ticks / ticks_per_microsecond, ticks % ticks_per_microsecond);
  };
  text_ += start == end ? "\"ph\":\"i\",\"s\":\"t\",\"ts\":" : "\"ph\":\"X\",\"ts\":";
  add_microseconds(start);
  if (start == end) return;
  text_ += ",\"dur\":";
  add_microseconds(end - start);
}

void ChromeTrace::write_out() {
  out_.write(text_.data(), static_cast<std::streamsize>(text_.size()));
  text_.clear();
  if (!out_)
    throw std::runtime_error("the trace could not be written (is the disk full?); free some space or trace less");
}

}  // namespace orrery
