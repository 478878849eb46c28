// Small dense tensors with the book-keeping that finds races: who is writing which rows, and how often they changed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "scenarios/action.hpp"

namespace orrery {

/// `parts` tensors (1: Q-like, 2: K and V) of tokens x heads x head_dim, poisoned with NaN.
class CheckedTensor {
 public:
  CheckedTensor(Index tokens, int heads, int head_dim, int parts)
      : heads_(heads),
        head_dim_(head_dim),
        parts_(parts),
        values_(static_cast<std::size_t>(tokens * heads * head_dim * parts), std::numeric_limits<double>::quiet_NaN()),
        version_(static_cast<std::size_t>(tokens * heads), 0),
        writing_(static_cast<std::size_t>(tokens * heads), 0) {}

  double* row(Index token, int head, int part = 0) {
    return &values_[((static_cast<std::size_t>(token) * static_cast<std::size_t>(heads_) +
                      static_cast<std::size_t>(head)) *
                         static_cast<std::size_t>(parts_) +
                     static_cast<std::size_t>(part)) *
                    static_cast<std::size_t>(head_dim_)];
  }
  std::uint32_t& version(Index token, int head) { return version_[cell(token, head)]; }
  std::uint8_t& writing(Index token, int head) { return writing_[cell(token, head)]; }
  /// Which of the contents the memory takes on in turn (Buffer::use) is in it, or being written.
  std::int64_t use() const { return use_; }
  /// Makes room for another content: the last one is gone.
  void reuse(std::int64_t use) {
    use_ = use;
    std::fill(values_.begin(), values_.end(), std::numeric_limits<double>::quiet_NaN());
    for (std::uint32_t& version : version_) ++version;
  }
  bool is_being_written() const {
    return std::any_of(writing_.begin(), writing_.end(), [](std::uint8_t writing) { return writing != 0; });
  }
  int parts() const { return parts_; }
  int head_dim() const { return head_dim_; }

 private:
  std::size_t cell(Index token, int head) const {
    return static_cast<std::size_t>(token) * static_cast<std::size_t>(heads_) + static_cast<std::size_t>(head);
  }
  int heads_, head_dim_, parts_;
  std::int64_t use_ = 0;
  std::vector<double> values_;
  std::vector<std::uint32_t> version_;
  std::vector<std::uint8_t> writing_;
};

}  // namespace orrery
