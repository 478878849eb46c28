// Small hand-written programs and clusters for the tests of sim/.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/program.hpp"
#include "sim/simulate.hpp"

namespace orrery::test {

inline constexpr Ticks us = 1'000'000;

inline constexpr double giga = 1e9;
inline BytesPerSecond gigabytes_per_second(double value) {
  return BytesPerSecond::from_si(value * giga);
}
inline Seconds microseconds(double value) {
  return Seconds::from_si(value * 1e-6);
}
inline Bytes bytes(double value) {
  return Bytes::from_si(value);
}

/// GPUs with a link between each two; `link(a, b)` is its GB/s and latency in us, of ranks a > b.
template <class Link>
Cluster mesh_of(Rank ranks, Link link) {
  Cluster cluster({});
  std::vector<Cluster::Node> gpus;
  for (Rank rank = 0; rank < ranks; ++rank) gpus.push_back(cluster.add_gpu(fmt::format("gpu{}", rank)));
  for (Rank a = 0; a < ranks; ++a) {
    for (Rank b = 0; b < a; ++b) {
      const auto [bandwidth, latency] = link(a, b);
      cluster.connect(gpus[static_cast<std::size_t>(a)], gpus[static_cast<std::size_t>(b)],
                      gigabytes_per_second(bandwidth), microseconds(latency));
    }
  }
  return cluster;
}

/// Ops written down one by one, in one block unless split.
class ListProgram : public Program {
 public:
  explicit ListProgram(Rank ranks, std::vector<std::string> signals = {})
      : ops_(static_cast<std::size_t>(ranks)), signals_(std::move(signals)) {}

  ListProgram& add(Rank rank, const Op& op, std::vector<Message> messages = {}) {
    ops_[rank].emplace_back(op, std::move(messages));
    return *this;
  }

  ListProgram& split(std::int64_t ops_per_block) {
    ops_per_block_ = ops_per_block;
    return *this;
  }

  Rank ranks() const override { return static_cast<Rank>(ops_.size()); }
  std::int64_t blocks() const override {
    std::int64_t most = 0;
    for (const auto& ops : ops_) most = std::max(most, static_cast<std::int64_t>(ops.size()));
    return most / ops_per_block_ + 1;
  }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return categories_; }
  std::span<const std::string> phases() const override { return phases_; }
  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override {
    const auto size = static_cast<std::int64_t>(ops_[rank].size());
    for (std::int64_t i = block * ops_per_block_; i < std::min(size, (block + 1) * ops_per_block_); ++i) {
      buffer.add(ops_[rank][i].first, ops_[rank][i].second);
    }
  }
  std::string describe(Rank, std::int64_t block, std::int32_t index) const override {
    return fmt::format("op {}", block * ops_per_block_ + index);
  }

 private:
  std::vector<std::vector<std::pair<Op, std::vector<Message>>>> ops_;
  std::int64_t ops_per_block_ = 1'000'000;
  std::vector<std::string> signals_;
  std::vector<std::string> categories_ = {"attention", "transfer"};
  std::vector<std::string> phases_ = {"forward", "backward"};
};

inline Op compute_op(Ticks duration) {
  Op op;
  op.duration = duration;
  return op;
}

inline Op transfer_op(Stream stream, Ticks startup = 0) {
  Op op;
  op.stream = stream;
  op.category = 1;
  op.duration = startup;
  return op;
}

/// Ring attention with two buffers: in step s a rank computes on the block it has and passes it on at the same time. A
/// block may be sent once the receiver is done with the block whose buffer it overwrites (that of step s - 1).
class RingProgram : public Program {
 public:
  RingProgram(Rank ranks, std::int64_t layers, Ticks tile, Bytes block)
      : ranks_(ranks), layers_(layers), tile_(tile), block_(block) {}

  Rank ranks() const override { return ranks_; }
  std::int64_t blocks() const override { return layers_ * ranks_; }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return categories_; }
  std::span<const std::string> phases() const override { return phases_; }

  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override {
    const std::int64_t layer = block / ranks_;
    const std::int64_t step = block % ranks_;
    const std::int64_t received = layer * (ranks_ - 1) + step;
    Op compute = compute_op(tile_);
    if (step > 0) compute.wait_for({rank, arrived}, received);
    compute.finished[0] = {rank, computed};
    buffer.add(compute);
    if (step == ranks_ - 1) return;
    const Rank next = (rank + 1) % ranks_;
    Op send = transfer_op(Stream::copy_out);
    if (step == 0) send.wait_for({rank, computed}, layer * ranks_);
    if (step > 0) send.wait_for({rank, arrived}, received);
    send.wait_for({next, computed}, layer * ranks_ + step);
    const Message message{rank, next, block_, {next, arrived}};
    buffer.add(send, {&message, 1});
  }

  std::string describe(Rank, std::int64_t block, std::int32_t index) const override {
    return fmt::format("layer {} step {} {}", block / ranks_, block % ranks_, index == 0 ? "attention" : "send");
  }

 private:
  enum Signal : std::int32_t { arrived, computed };
  Rank ranks_;
  std::int64_t layers_;
  Ticks tile_;
  Bytes block_;
  std::vector<std::string> signals_ = {"arrived", "computed"};
  std::vector<std::string> categories_ = {"attention", "transfer"};
  std::vector<std::string> phases_ = {"forward"};
};

/// Every GPU linked to one switch.
inline Cluster star(Rank ranks, BytesPerSecond bandwidth, Seconds link_latency = {}, GpuResources gpu = {}) {
  Cluster cluster(gpu);
  const auto hub = cluster.add_switch("switch");
  for (Rank rank = 0; rank < ranks; ++rank) {
    cluster.connect(cluster.add_gpu(fmt::format("gpu{}", rank)), hub, bandwidth, link_latency);
  }
  return cluster;
}

}  // namespace orrery::test
