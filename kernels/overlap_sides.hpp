// The two sides of an overlap row, each on all ranks: a kernel that computes, and a transfer.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.hpp"

namespace orrery {

// queue() puts one launch (or copy) into every rank's stream.
struct Side {
  std::function<void(const std::vector<Stream>&)> queue;
  std::shared_ptr<void> state;
  double flops = 0, bytes = 0;
  bool is_transfer = false;
};

struct Mechanism {
  std::string name;  // copy_engine, nccl_send_recv, nccl_all_gather
  int channels = 0;
};

Side compute_side(const std::string& kernel, int ranks);
Side transfer_side(const Mechanism& mechanism, int ranks);

}  // namespace orrery
