// The ops of a program, one after the other.
#pragma once

#include <span>

#include "scenarios/block_writer.hpp"
#include "sim/program.hpp"

namespace orrery {

/// Calls visit(op, messages) for each op of a rank.
template <class Visit>
void for_each_op(const Program& program, Rank rank, Visit visit) {
  OpBuffer buffer;
  for (std::int64_t block = 0; block < program.blocks(); ++block) {
    buffer.begin(block);
    program.generate(rank, block, buffer);
    for (const Op& op : buffer.ops()) visit(op, buffer.messages_of(op));
  }
}

/// Of one category.
template <class Visit>
void for_each_op(const Program& program, Rank rank, Category category, Visit visit) {
  for_each_op(program, rank, [&](const Op& op, std::span<const Message> messages) {
    if (op.category == static_cast<std::uint8_t>(category)) visit(op, messages);
  });
}

}  // namespace orrery
