// How a library runs a schedule: what it sends, in which type, on what engine and in which order. Presets are data
// (scenarios/implementations/*.toml).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cost_models/profile.hpp"
#include "sim/units.hpp"

namespace orrery {

/// copy_engine: DMA copies on the copy_out stream, no SMs. nccl: kernels on the collective stream that hold SMs, start
/// only when the peer's kernel runs too, and end when both their send and their receive are done.
enum class Transport { copy_engine, nccl };
constexpr std::string_view name_of(Transport transport) {
  return transport == Transport::nccl ? "nccl" : "copy_engine";
}

/// What a transfer waits for besides its data and its buffer.
///   data               nothing
///   previous_compute   the compute issued before it: frameworks order a communication stream after the compute stream
///                      at the moment of the call
///   same_step_compute  also the compute of its own step: no overlap
///   free_sms           a kernel issued together with attention waits until attention's last wave leaves it enough SMs
///                      without work. A backward pass begins with small kernels, beside which it finds them at once.
///   free_sms_when_ahead  a host that issues while the GPU computes: at the first step of a pass, whose transfer starts
///                      before attention is issued, previous_compute; later, when the host is ahead and both wait for
///                      the same kernel, free_sms
enum class TransferOrder { data, previous_compute, same_step_compute, free_sms, free_sms_when_ahead };
constexpr bool waits_for_sms(TransferOrder order) {
  return order == TransferOrder::free_sms || order == TransferOrder::free_sms_when_ahead;
}

/// Where a ring's backward pass starts.
///   own            with the rank's own block; the gradient needs one hop more than the block to come home
///   last_received  with the block that came last in the forward pass, in the opposite direction; key, value and their
///                  gradients travel in one message and end at home
enum class RingBackward { own, last_received };

/// Who adds a partial result to the running one. fused: the attention kernel itself, which then waits for what it adds
/// to. kernel: a kernel of its own, so that a backward step can compute while the gradient of its block is still under
/// way.
enum class Merge { fused, kernel };

/// How gathered or fetched keys are attended.
///   together   all in one kernel, once they are there
///   per_rank   the local block at once, the others one kernel each after the gather
enum class GatherAttention { together, per_rank };

enum class GatherGradients { reduce_scatter, ring };

/// A kernel that only moves bytes, which the library launches around the attention kernel of a step: sums, casts, zero
/// fills, copies.
struct StepKernel {
  /// part_queries, part_keys: after a later step whose kernel has fewer rows than the rank's block (zigzag's halves,
  /// striped's shifted blocks), in addition to `later_steps`; they count the rows of that kernel.
  /// middle_steps: later steps but the last. begin: behind the projections and before heads are exchanged, of the rows
  /// that are attended.
  enum class When { begin, first_step, later_steps, middle_steps, part_queries, part_keys, end };
  Phase phase = Phase::forward;
  When when = When::later_steps;
  std::string kernel;          // what the profile knows it as
  double query_bytes = 0;      // HBM bytes per element of the step's queries
  double key_bytes = 0;        // HBM bytes per element of the step's keys; K and V are two elements
  int launches = 1;            // kernels these bytes are spread over
  bool of_gated_skip = false;  // it runs in layers with a gated skip alone

  bool runs(Phase in, bool gated) const { return phase == in && (gated || !of_gated_skip); }
};

struct Implementation {
  std::string name;
  std::string description;
  std::vector<std::string> schedules;  // it runs these
  std::vector<std::string> layouts;    // with these layouts
  bool sparse = true;                  // runs patterns other than full attention

  Transport transport = Transport::copy_engine;
  Constant sms;                 // held by a transfer
  bool nccl_send_recv = false;  // of these, those that NCCL uses for one message of its size among so many ranks
  Constant message_startup;     // seconds per message before the first byte leaves
  Constant launch;              // host seconds to issue one op
  Constant dependency;  // seconds from the end of what a transfer waits for, on another stream or GPU, to its start
  // 0 if a preset does not say.
  Constant
      kernel_gap;  // GPU seconds between kernels of a stream beyond those of a graph, in which kernels are measured
  // Host seconds of a library in an interpreter, beyond `launch`.
  Constant host_call_forward, host_call_backward;  // from the call of a layer's pass to its first kernel
  Constant host_attention;                         // to issue an attention kernel
  Constant host_message;                           // to issue a transfer
  Constant host_merge;                             // to issue a merge
  std::vector<StepKernel> step_kernels;

  TransferOrder transfer_order = TransferOrder::data;
  Merge merge = Merge::fused;                // of outputs, forward
  Merge gradient_sum = Merge::fused;         // of the gradients that travel with a block, backward
  Constant merge_bytes_per_element;          // HBM bytes per element of O; Merge::kernel only
  std::string merge_kernel = "merge_block";  // what the profile knows it as
  std::string gradient_sum_kernel = "accumulate";
  bool sums_skipped_blocks = false;  // adds zeros for a block of which causal attention needs nothing
  double gradient_sum_bytes = 0;  // HBM bytes per element of K and V; 0: two reads and a write in the gradients' type

  int kv_messages = 1;          // 1: K and V together, 2: one message each
  int qkv_messages = 1;         // head exchange: 1 or 3
  bool extra_ring_hop = false;  // the block goes once round the ring, although the last hop brings nothing new
  RingBackward ring_backward = RingBackward::own;
  bool gradients_in_fp32 = false;  // dK and dV on the wire
  bool gradients_apart = false;    // round a ring they go on a stream of their own, beside keys and values
  GatherAttention gather_attention = GatherAttention::together;
  /// Together, but with a causal mask in a kernel for each chunk of the rank's queries, against the keys up to its end.
  /// Backward in two, for the keys before the chunk and for the diagonal, since kernels with more keys than queries are
  /// slow there; what they have in common is summed.
  bool gather_chunks = false;
  GatherAttention halo_attention = GatherAttention::per_rank;
  bool halo_is_kept = false;  // in every layer, from its forward pass to its backward pass, which fetches none then
  bool halo_of_whole_windows = false;  // as many rows as a window has keys, one more than a rank's first query fetches
  GatherGradients gather_gradients = GatherGradients::reduce_scatter;
  int gather_kv_heads = 0;  // KV heads gathered at a time; 0: all

  /// Those that a prediction rests on.
  std::vector<const Constant*> constants() const {
    std::vector<const Constant*> list = {&sms, &message_startup, &launch, &dependency};
    for (const Constant* host :
         {&kernel_gap, &host_call_forward, &host_call_backward, &host_attention, &host_message, &host_merge}) {
      if (!host->name.empty()) list.push_back(host);
    }
    if (merge == Merge::kernel) list.push_back(&merge_bytes_per_element);
    return list;
  }
};

}  // namespace orrery
