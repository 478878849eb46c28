#include "scenarios/box.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "scenarios/data_files.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

namespace pt = boost::property_tree;

int whole(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

/// Words of a line. nvidia-smi underlines the header even in a file: ESC [ 4 m ... ESC [ 0 m.
std::vector<std::string> words_of(const std::string& line) {
  std::string plain;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      i = std::min(line.find('m', i), line.size());
    } else {
      plain += line[i];
    }
  }
  std::istringstream stream(plain);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

/// Boost's parser goes down the stack with every tag.
bool is_too_deep(const std::string& xml) {
  constexpr int most = 64;
  int depth = 0;
  for (std::size_t i = 0; i + 1 < xml.size(); ++i) {
    if (xml[i] == '<' && xml[i + 1] != '/' && xml[i + 1] != '!' && xml[i + 1] != '?' && ++depth > most) return true;
    if ((xml[i] == '<' && xml[i + 1] == '/') || (xml[i] == '/' && xml[i + 1] == '>')) --depth;
  }
  return false;
}

/// For each GPU the first one that is as near as `near` says.
template <class Near>
std::vector<int> groups_of(int gpus, Near near) {
  std::vector<int> group;
  for (int g = 0; g < gpus; ++g) {
    int first = 0;
    while (first < g && !near(first, g)) ++first;
    group.push_back(first);
  }
  return group;
}

class MatrixReader {
 public:
  MatrixReader(const std::string& text, const std::filesystem::path& file) : file_(file) {
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) read_line(words_of(line));
  }

  Box box() const {
    const auto gpus = static_cast<int>(columns_.size());
    if (static_cast<int>(rows_.size()) != gpus)
      throw error(fmt::format("the matrix has {} columns of GPUs and {} rows", gpus, rows_.size()));
    Box box;
    if (gpus > 1) box.nvlinks = nvlinks(0, 1);
    for (int a = 0; a < gpus; ++a) {
      for (int b = 0; b < gpus; ++b) {
        if (relation(a, b) != relation(b, a)) {
          throw error(fmt::format("GPU{0} beside GPU{1} is {2}, GPU{1} beside GPU{0} is {3}", a, b, relation(a, b),
                                  relation(b, a)));
        }
        if (a != b && nvlinks(a, b) != box.nvlinks) {
          throw error(
              fmt::format("GPU{} and GPU{} are joined by {}, GPU0 and GPU1 by {} (no topology of this program has "
                          "both)",
                          a, b, relation(a, b), relation(0, 1)));
        }
      }
    }
    box.pcie_switch = groups_of(gpus, [&](int a, int b) { return relation(a, b) == "PIX" || relation(a, b) == "PXB"; });
    box.socket = groups_of(gpus, [&](int a, int b) { return relation(a, b) != "SYS"; });
    box.nics = nics_;
    return box;
  }

 private:
  InputError error(std::string_view message) const {
    return InputError(fmt::format("{}: {}, compare with the output of nvidia-smi topo -m", file_.string(), message));
  }

  void read_line(const std::vector<std::string>& words) {
    if (words.empty() || !words.front().starts_with("GPU") || whole(words.front().substr(3)) < 0) return;
    if (columns_.empty()) {
      for (const std::string& word : words) {
        if (word.starts_with("GPU") && whole(word.substr(3)) == static_cast<int>(columns_.size())) {
          columns_.push_back(word);
        } else if (word.starts_with("NIC") || word.starts_with("mlx")) {
          nics_.push_back(word);
        }
      }
      return;
    }
    if (rows_.size() == columns_.size()) return;
    if (words.front() != columns_[rows_.size()] || words.size() <= columns_.size())
      throw error(fmt::format("the row of {} is missing or too short", columns_[rows_.size()]));
    rows_.emplace_back(words.begin() + 1, words.begin() + 1 + static_cast<std::ptrdiff_t>(columns_.size()));
    for (std::size_t b = 0; b < columns_.size(); ++b) {
      const std::string& word = rows_.back()[b];
      static const std::set<std::string> known = {"PIX", "PXB", "PHB", "NODE", "SYS"};
      const bool self = b + 1 == rows_.size();
      const bool nvlink = word.starts_with("NV") && whole(word.substr(2)) > 0;
      if (self ? word != "X" : !nvlink && !known.contains(word))
        throw error(fmt::format("{} beside {} is \"{}\"", words.front(), columns_[b], in_one_line(word)));
    }
  }

  const std::string& relation(int a, int b) const {
    return rows_[static_cast<std::size_t>(a)][static_cast<std::size_t>(b)];
  }
  int nvlinks(int a, int b) const { return relation(a, b).starts_with("NV") ? whole(relation(a, b).substr(2)) : 0; }

  const std::filesystem::path& file_;
  std::vector<std::string> columns_, nics_;
  std::vector<std::vector<std::string>> rows_;
};

class XmlReader {
 public:
  XmlReader(const std::string& text, const std::filesystem::path& file) : file_(file) {
    if (is_too_deep(text)) throw error("its tags are nested more than 64 deep");
    std::istringstream stream(text);
    pt::ptree root;
    try {
      pt::read_xml(stream, root);
    } catch (const pt::xml_parser_error& problem) {
      throw InputError(fmt::format("{}:{}: this is not valid XML ({}), let NCCL write NCCL_TOPO_DUMP_FILE again",
                                   file.string(), problem.line(), problem.message()));
    }
    const auto system = root.get_child_optional("system");
    if (!system) throw error("there is no <system>");
    int socket = 0;
    for (const auto& [name, cpu] : *system) {
      if (name != "cpu") continue;
      hosts_.insert(cpu.get("<xmlattr>.host_hash", ""));
      read(cpu, socket++, -1);
    }
  }

  Box box() const {
    if (gpus_.empty()) throw error("there is no <gpu>");
    if (hosts_.size() > 1) throw error(fmt::format("it describes {} hosts, dump one", hosts_.size()));
    std::vector<FoundGpu> gpus;
    for (const auto& [dev, gpu] : gpus_) gpus.push_back(gpu);
    Box box;
    box.nvlinks = gpus.front().nvlinks;
    for (const FoundGpu& gpu : gpus) {
      if (gpu.nvlinks != box.nvlinks || gpu.to_gpus != gpus.front().to_gpus)
        throw error("the GPUs have different NVLinks (no topology of this program has that)");
    }
    if (box.nvlinks > 0) box.ends = gpus.front().to_gpus ? Box::Ends::gpus : Box::Ends::switches;
    const auto at = [&](int g) -> const FoundGpu& { return gpus[static_cast<std::size_t>(g)]; };
    const auto count = static_cast<int>(gpus.size());
    box.pcie_switch = groups_of(count, [&](int a, int b) { return at(a).pcie_switch == at(b).pcie_switch; });
    box.socket = groups_of(count, [&](int a, int b) { return at(a).socket == at(b).socket; });
    box.nics = nics_;
    return box;
  }

 private:
  struct FoundGpu {
    int socket = 0, pcie_switch = 0, nvlinks = 0;
    bool to_gpus = false;
  };

  InputError error(std::string_view message) const {
    return InputError(
        fmt::format("{}: {} (what NCCL writes to NCCL_TOPO_DUMP_FILE is wanted)", file_.string(), message));
  }

  /// Everything below one <cpu>; `branch` is its <pci> child that all this is under.
  void read(const pt::ptree& parent, int socket, int branch) {
    for (const auto& [name, node] : parent) {
      if (name == "gpu") read_gpu(node, socket, branch);
      if (name == "net" && node.get("<xmlattr>.name", "") != "") read_nic(node);
      if (name == "pci" || name == "nic") read(node, socket, branch < 0 ? branches_++ : branch);
    }
  }

  void read_nic(const pt::ptree& node) {
    const std::string speed = node.get("<xmlattr>.speed", "0");
    const int megabits = whole(speed);
    if (megabits < 0)
      throw error(fmt::format("a <net> has speed=\"{}\", which is no number of Mbit/s", in_one_line(speed)));
    nics_.push_back(fmt::format("{} ({} Gbit/s)", node.get("<xmlattr>.name", ""), megabits / 1000.0));
  }

  int links_in(const std::string& count) const {
    constexpr int most = 1024;  // far more than any GPU has
    const int links = whole(count);
    if (links < 1 || links > most)
      throw error(fmt::format("an <nvlink> has count=\"{}\", which is no number of links", in_one_line(count)));
    return links;
  }

  void read_gpu(const pt::ptree& node, int socket, int branch) {
    FoundGpu gpu{socket, branch, 0, false};
    for (const auto& [name, link] : node) {
      if (name != "nvlink") continue;
      gpu.nvlinks += links_in(link.get("<xmlattr>.count", ""));
      gpu.to_gpus =
          gpu.to_gpus || link.get("<xmlattr>.tclass", "").starts_with("0x03");  // of PCI: a display controller
    }
    const int dev = node.get("<xmlattr>.dev", -1);
    if (dev < 0 || !gpus_.emplace(dev, gpu).second) throw error("a <gpu> has no dev of its own");
  }

  const std::filesystem::path& file_;
  std::map<int, FoundGpu> gpus_;  // by dev
  std::vector<std::string> nics_;
  std::set<std::string> hosts_;
  int branches_ = 0;
};

/// One direction of one NVLink: generation 1 (Pascal white paper), 2 to 4 (Volta, Ampere, Hopper), 5 (Blackwell).
constexpr std::array nvlink_rates = {20e9, 25e9, 50e9};

bool is_nvlink(double bytes_per_s) {
  return std::any_of(nvlink_rates.begin(), nvlink_rates.end(),
                     [&](double rate) { return std::abs(bytes_per_s / rate - 1) < 0.05; });
}

/// How many GPUs each group has, if all have as many and its members follow each other.
std::optional<int> size_of_groups(const std::vector<int>& group) {
  const auto size = static_cast<int>(std::count(group.begin(), group.end(), group.front()));
  for (std::size_t g = 0; g < group.size(); ++g) {
    if (group[g] != static_cast<int>(g) / size * size) return std::nullopt;
  }
  return static_cast<int>(group.size()) % size == 0 ? std::optional(size) : std::nullopt;
}

NodeShape switched(const Box& box, const Gpu& gpu) {
  const LinkType link = load_link(gpu.links.front());
  const double each = link.bandwidth.si() / box.nvlinks;
  const bool meshed =
      box.ends == Box::Ends::gpus || (box.gpus() > 2 && !is_nvlink(each) && is_nvlink(each / (box.gpus() - 1)));
  if (meshed) {
    throw InputError(
        "the GPUs are joined to each other by NVLinks, without switches (no link file has the part of them that joins "
        "two), write one with the bandwidth of a pair and use topology = \"full_mesh\"");
  }
  if (!is_nvlink(each)) {
    throw InputError(
        fmt::format("{} NVLinks would have {} each in a {} with {} (no generation has that), name the right --gpu",
                    box.nvlinks, format(BytesPerSecond::from_si(each)), gpu.name, link.name));
  }
  return {.link = link.name, .gpus = box.gpus()};
}

NodeShape tree(const Box& box, const Gpu& gpu) {
  const auto per_switch = size_of_groups(box.pcie_switch), per_socket = size_of_groups(box.socket);
  if (!per_switch || !per_socket || *per_socket % *per_switch != 0 || box.gpus() / *per_socket > 2) {
    throw InputError(
        "the PCIe tree is uneven (pcie_tree has the same number of GPUs under each switch and on one or two sockets, "
        "numbered switch by switch), write [cluster] by hand");
  }
  return {gpu.links.back(), box.gpus(), *per_switch, box.gpus() / *per_socket};
}

}  // namespace

Box read_box(const std::filesystem::path& file) {
  const std::string text = read_text_file(file, "nvidia-smi topo -m or NCCL topology");
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin != text.npos && text[begin] == '<') return XmlReader(text, file).box();
  const Box box = MatrixReader(text, file).box();
  if (box.gpus() > 0) return box;
  throw InputError(fmt::format(
      "{}: this is neither a matrix of nvidia-smi topo -m nor XML of NCCL_TOPO_DUMP_FILE, write one of these "
      "into it",
      file.string()));
}

NodeShape shape_of(const Box& box, const Gpu& gpu) {
  return box.nvlinks > 0 ? switched(box, gpu) : tree(box, gpu);
}

namespace {

Rank sockets_of(const NodeShape& shape, Rank ranks) {
  return shape.sockets == 2 && ranks > shape.gpus / 2 ? 2 : 1;
}

}  // namespace

bool is_even(const NodeShape& shape, Rank ranks) {
  return ranks % sockets_of(shape, ranks) == 0;
}

PcieTree tree_of(const NodeShape& shape, Rank ranks, const LinkSpec& link) {
  const Rank sockets = sockets_of(shape, ranks);
  Rank per_switch = std::min(shape.gpus_per_switch, ranks / sockets);
  while (per_switch > 1 && (ranks / sockets) % per_switch != 0) --per_switch;
  PcieTree part{ranks, per_switch, link, link, sockets, std::nullopt};
  if (sockets == 2) part.inter_socket = link;
  return part;
}

namespace {

std::string profile_line(const Gpu& gpu) {
  const std::vector<std::string> known = known_names("profiles");
  if (contains(known, gpu.name)) return fmt::format("profile = \"{}\"\n", gpu.name);
  if (contains(known, gpu.like))
    return fmt::format("profile = \"{}\"  # assumed: at its fractions of the peaks\n", gpu.like);
  return "profile = \"peak\"  # the datasheet's, which kernels stay below\n";
}

}  // namespace

std::string cluster_text(const Box& box, const Gpu& gpu) {
  std::string text = fmt::format("# {} GPUs: ranks = {}\n", box.gpus(), box.gpus());
  if (!box.nics.empty())
    text += fmt::format("# {} NICs, for a fat_tree of such nodes: {}\n", box.nics.size(), fmt::join(box.nics, ", "));
  text += fmt::format("[cluster]\ngpu = \"{}\"\n{}", gpu.name, profile_line(gpu));
  const NodeShape shape = shape_of(box, gpu);
  if (!shape.is_tree()) {
    const double each = load_link(shape.link).bandwidth.si() / box.nvlinks;
    return text + fmt::format("topology = \"nvswitch\"  # {} NVLinks a GPU, {} each\nlink = \"{}\"\n", box.nvlinks,
                              format(BytesPerSecond::from_si(each)), shape.link);
  }
  text += fmt::format(
      "topology = \"pcie_tree\"\ngpus_per_switch = {}\nsockets = {}\nlink = \"{}\"\nuplink = \"{}\"  # assumed: as "
      "wide as a "
      "GPU's\n",
      shape.gpus_per_switch, shape.sockets, shape.link, shape.link);
  if (shape.sockets > 1) text += fmt::format("inter_socket = \"{}\"  # assumed: the tools do not say\n", shape.link);
  return text;
}

}  // namespace orrery
