// How many channels, each a thread block with an SM to itself, NCCL gives a message between two GPUs of one node.
#pragma once

#include <map>
#include <optional>
#include <string_view>

#include "cost_models/profile.hpp"

namespace orrery {

/// NCCL 2.28, enqueue.cc (scheduleP2pTasksToPlan, calcP2pChannelCount): all channels shared by the peers that a rank
/// may talk to at once, twice as many while a channel's part exceeds 16 MiB, up to four times its share.
int nccl_send_recv_channels(int most, int ranks, Bytes message);

/// Of a communicator over several nodes, to a peer in the same node too: the least that any peer gets, which is two to
/// one behind a NIC (paths.cc, ncclTopoGetNchannels and ncclTopoComputeP2pChannels; one from 65 ranks on is left out).
/// Parts of more than 128 KiB take both (enqueue.cc, addP2pToPlan; init.cc, computeP2pChunkSize).
constexpr int nccl_channels_over_nodes = 2;

/// The longest message, in whole bytes, before another doubling from so many channels.
Bytes nccl_most_bytes(int channels);

/// Between two GPUs of an NVSwitch node, if nobody limits them, as NCCL says in its log.
constexpr int nccl_automatic_channels = 32;

/// Times of a message over so many channels, from the messages between two ranks whose channels were limited to so many
/// that NCCL used that number of them.
std::map<int, LinkTable> send_recv_by_channels(const MeasuredKernels& kernels, std::string_view link);

/// A message between two of several ranks, as tables are named ("send_recv 4 ranks", "send_recv 8 channels 4 ranks"):
/// by the channels that NCCL gives it, at the rates of two ranks. Nothing for other names, or if none of two ranks had
/// so many.
std::optional<Seconds> send_recv_named(std::string_view name, Bytes message, const MeasuredKernels& kernels,
                                       std::string_view link);

/// SMs that have to be idle for that many thread blocks to start. On Hopper NCCL launches clusters of four
/// (NCCL_CGA_CLUSTER_SIZE), each inside one of the GPU's eight processing clusters, in which three idle SMs are of no
/// use.
int idle_sms_for_nccl(int channels);

}  // namespace orrery
