// Boxes as nvidia-smi and NCCL describe them. The files in data/boxes are real; each says where it is from.
#include "scenarios/box.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/size_problem.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

namespace orrery {
namespace {

const std::filesystem::path boxes = std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/scenarios/data/boxes";

std::string cluster_of(const std::filesystem::path& file, const char* gpu) {
  return cluster_text(read_box(file), load_gpu(gpu));
}

/// Of a file with this text.
std::string cluster_of_text(const std::string& text, const char* gpu) {
  const ScratchFolder folder;
  return cluster_of(folder.write("box", text), gpu);
}
std::string refusal_of(const std::string& text, const char* gpu = "h100_sxm") {
  return message_of([&] { cluster_of_text(text, gpu); });
}

/// The cluster that a scenario reads from the text, with as many ranks as it has GPUs.
Scenario scenario_with(const std::string& cluster, int ranks) {
  const std::filesystem::path example =
      std::filesystem::path(ORRERY_SOURCE_DIR) / "scenarios/examples/llama3_8b_128k_zigzag_h200.toml";
  std::string text = replaced(read_text_file(example, "TOML"), "ranks = 8", "ranks = " + std::to_string(ranks));
  text.erase(text.find("[cluster]"));
  return read_scenario(Table::parse(text + cluster, "s.toml"));
}

/// A matrix with the relation of each pair.
template <class Relation>
std::string matrix(int gpus, Relation relation) {
  std::string text;
  for (int g = 0; g < gpus; ++g) text += "\tGPU" + std::to_string(g);
  text += "\tCPU Affinity\n";
  for (int a = 0; a < gpus; ++a) {
    text += "GPU" + std::to_string(a);
    for (int b = 0; b < gpus; ++b) text += a == b ? std::string("\t X ") : "\t" + relation(a, b);
    text += "\t0-31\n";
  }
  return text;
}

TEST_CASE("eight GPUs with the same NVLinks between every two are an NVSwitch box") {
  for (const char* file : {"h100_8_topo.txt", "h100_8_nccl.xml"}) {
    INFO(file);
    const Box box = read_box(boxes / file);
    CHECK(box.gpus() == 8);
    CHECK(box.nvlinks == 18);
    const std::string cluster = cluster_of(boxes / file, "h100_sxm");
    CHECK_THAT(cluster,
               ContainsSubstring("topology = \"nvswitch\"  # 18 NVLinks a GPU, 25 GB/s each\nlink = \"nvlink4\"\n"));
    const Scenario scenario = scenario_with(cluster, 8);
    CHECK(scenario.topology == "nvswitch");
    CHECK(scenario.cluster.ranks() == 8);
  }
}

TEST_CASE("NCCL names the NICs with their rate and nvidia-smi counts them") {
  const Box xml = read_box(boxes / "h100_8_nccl.xml");
  REQUIRE(xml.nics.size() == 8);
  CHECK(xml.nics.front() == "mlx5_7 (200 Gbit/s)");
  CHECK(xml.socket == std::vector<int>{0, 0, 0, 0, 4, 4, 4, 4});
  CHECK(read_box(boxes / "h100_8_topo.txt").nics.size() == 9);
}

TEST_CASE("GPUs without NVLink are a PCIe tree with as many sockets as the matrix says") {
  const Box box = read_box(boxes / "l40s_4_topo.txt");
  CHECK(box.gpus() == 4);
  CHECK(box.nvlinks == 0);
  CHECK(box.pcie_switch == std::vector<int>{0, 1, 2, 3});
  CHECK(box.socket == std::vector<int>{0, 0, 2, 2});
  const std::string cluster = cluster_text(box, load_gpu("l20"));
  CHECK_THAT(cluster, ContainsSubstring("gpus_per_switch = 1\nsockets = 2\n"));
  CHECK(scenario_with(cluster, 4).topology == "pcie_tree");
}

TEST_CASE("GPUs under the same PCIe switch are PIX or PXB of each other") {
  const std::string cluster = cluster_of_text(
      matrix(8, [](int a, int b) { return std::string(a / 2 == b / 2   ? "PIX"
                                                      : a / 4 == b / 4 ? "NODE"
                                                                       : "SYS"); }),
      "a100_80_pcie");
  CHECK_THAT(cluster, ContainsSubstring("gpus_per_switch = 2\nsockets = 2\n"));
  CHECK(scenario_with(cluster, 8).cluster.ranks() == 8);
  const std::string one_socket = matrix(4, [](int, int) { return std::string("PXB"); });
  CHECK_THAT(cluster_of_text(one_socket, "l20"), ContainsSubstring("gpus_per_switch = 4\nsockets = 1\n"));
}

TEST_CASE("a box has the profile of its GPU, else of the one that it is like, as size does; else the datasheet") {
  Gpu gpu = load_gpu("a100_80_pcie");
  const Box box = read_box(boxes / "l40s_4_topo.txt");
  const auto profile = [&] { return cluster_text(box, gpu); };
  CHECK_THAT(profile(), ContainsSubstring("profile = \"" + gpu.like + "\"  # assumed"));
  CHECK(scenario_with(profile(), 4).profile.name == gpu_option(gpu.name, "bf16", {}).profile.name);
  gpu.like.clear();
  CHECK_THAT(profile(), ContainsSubstring("profile = \"peak\"  # the datasheet's"));
}

TEST_CASE("the underlined header of nvidia-smi is read") {
  std::string text = matrix(2, [](int, int) { return std::string("NV18"); });
  text = "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\x1b[0m" + text.substr(text.find('\n'));
  CHECK_THAT(cluster_of_text(text, "h100_sxm"), ContainsSubstring("ranks = 2"));
}

TEST_CASE("NVLinks that are not those of the GPU or that join GPUs directly are refused") {
  const auto all = [](const std::string& relation) { return matrix(4, [=](int, int) { return relation; }); };
  // 300 GB/s of an A100 over 12 links are 25 GB/s each; over 18 they are no NVLink.
  CHECK_THAT(cluster_of_text(all("NV12"), "a100_80_sxm"), ContainsSubstring("12 NVLinks a GPU, 25 GB/s each"));
  CHECK_THAT(refusal_of(all("NV18"), "a100_80_sxm"), ContainsSubstring("name the right --gpu"));
  // 4 links to each of 3 others are 12 of 25 GB/s.
  CHECK_THAT(refusal_of(all("NV4"), "a100_80_sxm"), ContainsSubstring("joined to each other by NVLinks"));
  std::string direct = read_text_file(boxes / "h100_8_nccl.xml", "XML");
  for (std::size_t at = 0; (at = direct.find("0x068000", at)) != direct.npos;) direct.replace(at, 8, "0x030200");
  CHECK_THAT(refusal_of(direct), ContainsSubstring("joined to each other by NVLinks"));
}

TEST_CASE("a scenario may name the file of a box as its cluster, with as many ranks as the box has GPUs") {
  const std::string cluster =
      "[cluster]\ngpu = \"l20\"\nprofile = \"peak\"\nbox = \"" + (boxes / "l40s_4_topo.txt").string() + "\"\n";
  const Scenario named = scenario_with(cluster, 4);
  const Scenario written = scenario_with(cluster_text(read_box(boxes / "l40s_4_topo.txt"), load_gpu("l20")), 4);
  CHECK(named.topology == "pcie_tree");
  for (Rank rank = 1; rank < 4; ++rank)
    CHECK(named.cluster.route(0, rank).links.size() == written.cluster.route(0, rank).links.size());
  CHECK_THAT(message_of([&] { scenario_with(cluster, 8); }),
             ContainsSubstring("the box has 4 GPUs (parallelism.ranks = 8)"));
  CHECK_THAT(message_of([&] { scenario_with(replaced(cluster, "l40s_4_topo.txt", "none.txt"), 4); }),
             ContainsSubstring("s.toml:") && ContainsSubstring("there is no such file"));
}

TEST_CASE("part of a PCIe tree shares switches as far as it fills them, and sockets only if it must") {
  const LinkSpec link{BytesPerSecond::from_si(1e9), Seconds::from_si(1e-6)};
  const NodeShape eight{.link = "pcie4_x16", .gpus = 8, .gpus_per_switch = 2, .sockets = 2};
  struct Row {
    Rank ranks, per_switch, sockets;
  };
  for (const Row& row : {Row{8, 2, 2}, Row{6, 1, 2}, Row{4, 2, 1}, Row{3, 1, 1}, Row{2, 2, 1}, Row{1, 1, 1}}) {
    INFO(row.ranks);
    const PcieTree tree = tree_of(eight, row.ranks, link);
    CHECK(tree.gpus_per_switch == row.per_switch);
    CHECK(tree.sockets == row.sockets);
    CHECK(pcie_tree({108, BytesPerSecond::from_si(1e12)}, tree).ranks() == row.ranks);
    CHECK(is_even(eight, row.ranks));
  }
  CHECK_FALSE(is_even(eight, 5));
  CHECK_FALSE(is_even(eight, 7));
}

TEST_CASE("a damaged or uneven box is one sentence") {
  const std::string good = matrix(4, [](int, int) { return std::string("NV18"); });
  const std::string xml = read_text_file(boxes / "h100_8_nccl.xml", "XML");
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<a>";
  struct Row {
    std::string text, words;
  };
  for (const Row& row : {
           Row{"hello\n", "neither a matrix"},
           Row{good.substr(0, good.find("GPU2\t")), "2 columns of GPUs and 0 rows"},
           Row{good.substr(0, good.rfind("GPU3")), "4 columns of GPUs and 3 rows"},
           Row{replaced(good, "GPU1\tNV18", "GPU1"), "is \""},
           Row{replaced(good, "NV18", "NV17"), "GPU0 beside GPU1 is NV17, GPU1 beside GPU0 is NV18"},
           Row{matrix(3, [](int a, int b) { return std::string(a + b == 1 ? "NV17" : "NV18"); }),
               "GPU0 and GPU2 are joined by NV18, GPU0 and GPU1 by NV17"},
           Row{matrix(3, [](int a, int b) { return std::string(a + b == 1 ? "SYS" : "NV18"); }),
               "no topology of this program has both"},
           Row{replaced(good, "NV18", "NV"), "GPU0 beside GPU1 is \"NV\""},
           Row{replaced(good, " X ", "X!"), "GPU0 beside GPU0 is \"X!\""},
           Row{matrix(3, [](int a, int b) { return std::string(a + b == 1 ? "PIX" : "SYS"); }),
               "the PCIe tree is uneven"},
           Row{matrix(3, [](int, int) { return std::string("SYS"); }), "the PCIe tree is uneven"},
           Row{xml.substr(0, xml.size() / 2), "not valid XML"},
           Row{"<system></system>", "there is no <gpu>"},
           Row{"<a/>", "there is no <system>"},
           Row{deep, "more than 64 deep"},
           Row{replaced(xml, "dev=\"3\" sm", "dev=\"2\" sm"), "no dev of its own"},
           Row{replaced(xml, "count=\"5\"", "count=\"4\""), "different NVLinks"},
           Row{replaced(xml, "count=\"5\"", "count=\"-5\""), "count=\"-5\", which is no number of links"},
           Row{replaced(xml, "count=\"5\"", "count=\"many\""), "which is no number of links"},
           Row{replaced(xml, " count=\"5\"", ""), "which is no number of links"},
           Row{replaced(xml, "0xa5f3", "0xb5f3"), "describes 2 hosts"},
           Row{replaced(xml, "speed=\"200000\"", "speed=\"nan\""), "speed=\"nan\", which is no number of Mbit/s"},
       }) {
    INFO(row.words);
    const std::string message = refusal_of(row.text);
    CHECK_THAT(message, ContainsSubstring(row.words));
    CHECK(message.find('\n') == std::string::npos);
  }
}

}  // namespace
}  // namespace orrery
