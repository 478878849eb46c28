// Hands spans to a SpanSink many at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "sim/simulate.hpp"

namespace orrery {

class SpanBatch {
 public:
  explicit SpanBatch(SpanSink* sink) : sink_(sink) {}

  void add(const Span& span) {
    spans_.push_back(span);
    if (spans_.size() >= batch_size) flush();
  }
  void flush() {
    if (!spans_.empty()) sink_->ops(spans_);
    spans_.clear();
  }

 private:
  static constexpr std::size_t batch_size = 4096;
  SpanSink* sink_;
  std::vector<Span> spans_;
};

}  // namespace orrery
