#include "sim/program.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace orrery {

std::string_view name_of(Stream stream) {
  constexpr std::array<std::string_view, streams_per_rank> names = {"compute", "copy_out", "copy_in", "collective",
                                                                    "network"};
  return names.at(static_cast<std::size_t>(stream));
}

void Op::wait_for(SignalRef signal, std::int64_t count, WaitStage stage) {
  if (wait_count >= max_waits) {
    throw std::logic_error(
        fmt::format("an op can wait for at most {} signals (this would be one more); put a marker op before it that "
                    "takes some of them",
                    max_waits));
  }
  waits[wait_count++] = Wait{signal, stage, count};
}

void OpBuffer::begin(std::int64_t block) {
  block_ = block;
  ops_.clear();
  messages_.clear();
}

void OpBuffer::add(const Op& op, std::span<const Message> messages) {
  const auto index = static_cast<std::int32_t>(ops_.size());
  Op& added = ops_.emplace_back(op);
  added.block = block_;
  added.index = index;
  added.first_message = static_cast<std::int64_t>(messages_.size());
  added.message_count = static_cast<std::int32_t>(messages.size());
  messages_.insert(messages_.end(), messages.begin(), messages.end());
}

void Program::partition(std::int64_t, std::vector<RankSet>& sets) const {
  for (Rank rank = 0; rank < ranks(); ++rank) sets.push_back({rank});
}

std::span<const Message> OpBuffer::messages_of(const Op& op) const {
  return std::span(messages_).subspan(static_cast<std::size_t>(op.first_message),
                                      static_cast<std::size_t>(op.message_count));
}

}  // namespace orrery
