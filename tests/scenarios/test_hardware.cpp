#include "scenarios/hardware.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "scenarios/reader.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

namespace orrery {
namespace {

double gbps(BytesPerSecond bandwidth) {
  return bandwidth.si() / 1e9;
}
double tflops(FlopsPerSecond rate) {
  return rate.si() / 1e12;
}

const std::string good_gpu = R"(kind = "gpu"
description = "d"
source = "s"
hbm_bandwidth = "1 TB/s"
hbm_capacity = "80 GiB"
sms = 108
links = ["nvlink3"]
[peak]
bf16 = "312 TFLOP/s"
)";

TEST_CASE("every hardware file that comes with the program loads, and the links of every GPU exist") {
  int gpus = 0;
  for (const std::string& name : known_names("hardware")) {
    INFO(name);
    if (Table::parse_file(resolve(name, "hardware")).string("kind") == "link") {
      const LinkType link = load_link(name);
      CHECK(link.name == name);
      CHECK(link.latency < Seconds::from_si(10e-6));
      continue;
    }
    const Gpu gpu = load_gpu(name);
    ++gpus;
    CHECK(gpu.name == name);
    CHECK(gpu.peaks.contains("bf16"));
    CHECK_FALSE(gpu.links.empty());
    for (const std::string& link : gpu.links) CHECK(load_link(link).bandwidth < gpu.hbm_bandwidth);
  }
  CHECK(gpus == 15);
}

TEST_CASE("peaks are dense: fp8 is twice bf16, tf32 half of it") {
  for (const char* name : {"h100_sxm", "h800_sxm", "h200_sxm", "gh200", "b200_sxm", "l20", "rtx_4090"}) {
    INFO(name);
    const Gpu gpu = load_gpu(name);
    CHECK_THAT(gpu.peak("fp8") / gpu.peak("bf16"), WithinRel(2.0, 0.002));
    CHECK_THAT(gpu.peak("tf32") / gpu.peak("bf16"), WithinRel(0.5, 0.03));
    CHECK(gpu.peak("fp16") == gpu.peak("bf16"));
  }
}

TEST_CASE("the peak of a Hopper is 4096 FLOP a clock on each of 132 SMs at 1.83 GHz") {
  const Gpu gpu = load_gpu("h200_sxm");
  CHECK_THAT(tflops(gpu.peak("bf16")), WithinRel(4096.0 * static_cast<double>(gpu.sms) * 1.83e9 / 1e12, 0.001));
}

TEST_CASE("the peak of an Ampere is 2048 FLOP a clock on each of 108 SMs at 1.41 GHz, whatever the board") {
  for (const char* name : {"a100_40_sxm", "a100_80_sxm", "a100_40_pcie", "a100_80_pcie", "a800_sxm"}) {
    const Gpu gpu = load_gpu(name);
    CHECK_THAT(tflops(gpu.peak("bf16")), WithinRel(2048.0 * static_cast<double>(gpu.sms) * 1.41e9 / 1e12, 0.001));
  }
}

TEST_CASE("memory bandwidth is the pins times their rate") {
  // HBM2 5120 bit, GDDR6 384 bit, GDDR6X 384 bit.
  CHECK_THAT(gbps(load_gpu("a100_40_sxm").hbm_bandwidth), WithinRel(5120 * 2.43 / 8, 0.001));
  CHECK_THAT(gbps(load_gpu("l20").hbm_bandwidth), WithinRel(384 * 18.0 / 8, 1e-12));
  CHECK_THAT(gbps(load_gpu("rtx_4090").hbm_bandwidth), WithinRel(384 * 21.0 / 8, 1e-12));
}

TEST_CASE("NVLink is one direction of all links: 25 GB/s each, 50 GB/s from the fifth generation on") {
  CHECK_THAT(gbps(load_link("nvlink3").bandwidth), WithinRel(12 * 25.0, 1e-12));
  CHECK_THAT(gbps(load_link("nvlink3_a800").bandwidth), WithinRel(8 * 25.0, 1e-12));
  CHECK_THAT(gbps(load_link("nvlink4").bandwidth), WithinRel(18 * 25.0, 1e-12));
  CHECK_THAT(gbps(load_link("nvlink4_h800").bandwidth), WithinRel(8 * 25.0, 1e-12));
  CHECK_THAT(gbps(load_link("nvlink5").bandwidth), WithinRel(18 * 50.0, 1e-12));
}

TEST_CASE("PCI Express is 16 lanes with 128 of 130 bits of use") {
  CHECK_THAT(gbps(load_link("pcie4_x16").bandwidth), WithinRel(16.0 * 16 * 128 / 130 / 8, 0.001));
  CHECK_THAT(gbps(load_link("pcie5_x16").bandwidth), WithinRel(32.0 * 16 * 128 / 130 / 8, 0.001));
}

TEST_CASE("InfiniBand is named in bits") {
  CHECK_THAT(gbps(load_link("infiniband_hdr").bandwidth), WithinRel(200.0 / 8, 1e-12));
  CHECK_THAT(gbps(load_link("infiniband_ndr").bandwidth), WithinRel(400.0 / 8, 1e-12));
}

TEST_CASE("the links of a TPU chip add up to what the system architecture says of a chip") {
  const LinkType ici = load_link("ici_v5e");
  // 400 GB/s counts both directions.
  CHECK_THAT(gbps(ici.bandwidth) * static_cast<double>(ici.links_per_gpu) * 2, WithinRel(400.0, 1e-12));
  CHECK(load_link("ici_v3").links_per_gpu == 2 * 2);
  CHECK(load_link("ici_v4").links_per_gpu == 2 * 3);
}

TEST_CASE("table 2 of Ring Attention: the least block hidden by compute is peak over bandwidth") {
  struct Row {
    const char *gpu, *link;
    double kilotokens;  // as printed
    double peak_of_table;
  };
  // The InfiniBand row prints 24.5 where peak over bandwidth gives 24.96.
  for (const Row& row :
       {Row{"a100_80_sxm", "ring_paper_a100_nvlink", 1.0, 312},
        Row{"a100_80_sxm", "ring_paper_a100_infiniband", 24.96, 312}, Row{"tpu_v3", "ring_paper_tpu_v3", 1.1, 123},
        Row{"tpu_v4", "ring_paper_tpu_v4", 1.0, 275}, Row{"tpu_v5e", "ring_paper_tpu_v5e", 1.1, 196}}) {
    INFO(row.link);
    const Gpu gpu = load_gpu(row.gpu);
    const double tokens = gpu.peak("bf16").si() / load_link(row.link).bandwidth.si();
    CHECK_THAT(tokens / 1000, WithinAbs(row.kilotokens, 0.06));
    CHECK_THAT(tflops(gpu.peak("bf16")), WithinRel(row.peak_of_table, 0.006));
  }
}

TEST_CASE("asking for a peak that the data sheet does not give is an error with those it gives") {
  CHECK_THROWS_WITH(load_gpu("a100_80_sxm").peak("fp8"),
                    "a100_80_sxm has no peak for \"fp8\" (its data sheet gives none), known: bf16, fp16, fp32, tf32");
}

TEST_CASE("a link where a GPU is expected is an error") {
  CHECK_THAT(message_of([] { load_gpu("nvlink4"); }),
             ContainsSubstring("nvlink4.toml:1:8: kind = \"link\" is not a choice, known: gpu"));
  CHECK_THAT(message_of([] { load_link("h200_sxm"); }),
             ContainsSubstring("kind = \"gpu\" is not a choice, known: link"));
}

TEST_CASE("a GPU of one's own is read by path, and strictly") {
  const ScratchFolder folder;
  const auto load = [&](const std::string& text) {
    folder.write("mine.toml", text);
    return message_of([&] { load_gpu("mine.toml", folder.path() / "scenario.toml"); });
  };
  CHECK(load(good_gpu) == "no error");
  CHECK_THAT(
      load(replaced(good_gpu, "1 TB/s", "4.8")),
      ContainsSubstring(
          "mine.toml:4:17: hbm_bandwidth = \"4.8\" has no unit (a bandwidth needs one); write e.g. \"450 GB/s\""));
  CHECK_THAT(load(replaced(good_gpu, "1 TB/s", "0 GB/s")), ContainsSubstring("mine.toml:4:17: hbm_bandwidth is 0"));
  CHECK_THAT(load(replaced(good_gpu, "108", "0")), ContainsSubstring("mine.toml:6:7: sms is 0"));
  CHECK_THAT(load(replaced(good_gpu, "bf16 ", "bf61 ")),
             ContainsSubstring("mine.toml:9:1: unknown key \"bf61\" in [peak]"));
  CHECK_THAT(load(replaced(good_gpu, "bf16 = \"312 TFLOP/s\"\n", "")),
             ContainsSubstring("mine.toml:8:1: [peak] is empty"));
  CHECK_THAT(
      load(replaced(good_gpu, "hbm_capacity", "hbm_capacty")),
      ContainsSubstring("mine.toml:5:1: unknown key \"hbm_capacty\" in the top level; did you mean \"hbm_capacity\"?"));
}

}  // namespace
}  // namespace orrery
