// orrery box: the [cluster] of a scenario from what a box says about itself.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "cli/commands.hpp"
#include "scenarios/box.hpp"

namespace orrery {

void add_box(CLI::App& app) {
  struct BoxOptions {
    std::string file, gpu;
  };
  auto options = std::make_shared<BoxOptions>();
  CLI::App* command =
      app.add_subcommand("box", "Print the [cluster] of a box, from nvidia-smi topo -m or NCCL_TOPO_DUMP_FILE");
  command->add_option("file", options->file, "Output of nvidia-smi topo -m, or the XML that NCCL dumped")->required();
  command->add_option("--gpu", options->gpu, "What the GPUs are: a name of `orrery list gpus` or a path")->required();
  command->callback([options] {
    fmt::print("# from {}\n{}", options->file, cluster_text(read_box(options->file), load_gpu(options->gpu)));
  });
}

}  // namespace orrery
