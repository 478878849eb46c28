#include "validate/ring_attention_paper.hpp"

namespace orrery::ring_attention_paper {

double min_block(FlopsPerSecond flop_rate, BytesPerSecond bandwidth) {
  return min_block(flop_rate, bandwidth, Overlap{});
}

double min_sequence(FlopsPerSecond flop_rate, BytesPerSecond bandwidth) {
  return 6 * min_block(flop_rate, bandwidth);
}

const std::array<Accelerator, 5>& table_2() {
  const auto row = [](std::string_view name, double tera_flops, double gigabytes, double block, double sequence) {
    return Accelerator{name, FlopsPerSecond::from_si(tera_flops * 1e12), BytesPerSecond::from_si(gigabytes * 1e9),
                       block, sequence};
  };
  static const std::array table = {row("A100 NVLink", 312, 300, 1.0, 6.2),
                                   row("A100 InfiniBand", 312, 12.5, 24.5, 149.5), row("TPU v3", 123, 112, 1.1, 6.6),
                                   row("TPU v4", 275, 268, 1.0, 6.2), row("TPU v5e", 196, 186, 1.1, 6.3)};
  return table;
}

double min_block(FlopsPerSecond flop_rate, BytesPerSecond bandwidth, const Overlap& overlap) {
  const bool forward = overlap.phase == Phase::forward;
  // FLOPs per pair, query head and element of a head; bytes per row, KV head and element of a head.
  const double flops = (forward ? 4 : 10) * (overlap.causal_balanced ? 0.5 : 1.0);
  const double bytes = forward ? 4 : overlap.gradients_in_fp32 ? 4 + 8 : 4 + 4;
  return flop_rate.si() / bandwidth.si() * (bytes * overlap.kv_heads) / (flops * overlap.heads);
}

Flops training_flops(double batch, double sequence, double hidden, double layers) {
  return Flops::from_si((24 * batch * sequence * hidden * hidden + 4 * batch * sequence * sequence * hidden) * layers);
}

double data_set_flops_ratio(double hidden, double from_sequence, double to_sequence) {
  return (6 * hidden + to_sequence) / (6 * hidden + from_sequence);
}

Bytes peak_activation(double batch, double block, double hidden) {
  return Bytes::from_si(6 * batch * block * hidden);
}

}  // namespace orrery::ring_attention_paper
