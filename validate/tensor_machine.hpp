// The ranks' memories, and what actions do to them.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "scenarios/attention_program.hpp"
#include "validate/access.hpp"
#include "validate/reference_attention.hpp"

namespace orrery {

class TensorMachine {
 public:
  /// Both outlive the machine.
  TensorMachine(const AttentionProgram& program, std::vector<ReferenceLayer>& references)
      : program_(program), geometry_(program.input().geometry), references_(references) {}

  /// What a compute action, or a message, reads and writes.
  Access access_of(Rank rank, const Action& action);
  Access access_of(const MessageAction& message, int layer);

  void perform(Rank rank, const Action& action);
  void deliver(const MessageAction& message, int layer, const std::string& who);

  CheckedTensor& tensor(Rank rank, Buffer buffer, int layer);

 private:
  /// Running log-sum-exp of a rank's queries, the partial result that was not merged yet, and what gated skips have
  /// added to the output.
  struct Running {
    std::vector<double> log_sum_exp;
    CheckedTensor partial, gated;
    std::vector<double> partial_log_sum_exp;
  };

  Index tokens() const { return program_.input().masks.front().tokens(); }
  const Mask& mask(int layer) const;
  const Mask& value_mask(int layer) const;
  int kv_head_of(int head) const { return head * geometry_.kv_heads / geometry_.heads; }
  double scaled_dot(const double* a, const double* b) const {
    return attention_scale(geometry_.head_dim) * dot(a, b, geometry_.head_dim);
  }
  Region region(Rank rank, Buffer buffer, int layer, const TokenSet& rows, HeadRange heads);
  Running& running(Rank rank, int layer);

  void load_inputs(Rank rank, int layer);
  void attend(Rank rank, const Action& action);
  void merge(Rank rank, const Action& action);
  void attend_backward(Rank rank, const Action& action);
  void accumulate(Rank rank, const Action& action);

  const AttentionProgram& program_;
  const Geometry& geometry_;
  std::vector<ReferenceLayer>& references_;
  std::map<std::tuple<Rank, BufferKind, int, int>, CheckedTensor> buffers_;
  std::map<std::pair<Rank, int>, Running> running_;
};

}  // namespace orrery
