// Group `links`: copies by the copy engines between GPUs (virtual ranks on one GPU copy inside it) and to the host.
// Bandwidths are per direction; `bytes` is one copy.
#include <cmath>
#include <cstring>

#include "kernels/cluster.hpp"
#include "kernels/links.hpp"
#include "kernels/table.hpp"

namespace orrery {

std::vector<int64_t> link_sizes() {
  std::vector<int64_t> sizes;
  for (int i = 0; i <= 36; ++i) {
    const double bytes = 4096 * std::pow(2.0, i / 2.0);
    sizes.push_back(static_cast<int64_t>(std::llround(bytes / 256)) * 256);
  }
  return sizes;
}

namespace {

constexpr int64_t kLargest = int64_t{1} << 30, kLargestToHost = int64_t{256} << 20;

struct Transfer {
  int from, to;  // ranks; -1 is the host
};

// Buffers, streams and events of all transfers of a pattern, made for one row; each is `repeats` copies in a row.
class Copies {
 public:
  Copies(const std::vector<Transfer>& transfers, int ranks, int64_t bytes, int repeats)
      : ranks_(ranks), bytes_(bytes), repeats_(repeats) {
    enable_peer_access();
    for (const Transfer& t : transfers) {
      Lane lane;
      lane.transfer = t;
      lane.device = ranks_.device(t.from < 0 ? t.to : t.from);
      OnDevice on(lane.device);
      lane.stream.reset(new Stream);
      lane.start.reset(new Event);
      lane.end.reset(new Event);
      lane.source = memory(t.from, lane.held);
      lane.target = memory(t.to, lane.held);
      lanes_.push_back(std::move(lane));
    }
    fill_and_check();
    // A copy inside a GPU can be shorter than the gap between two launches, which differs from process to process. Not
    // for single copies: of 1 GiB a graph's takes 1.5 times as long as one from a stream.
    for (Lane& lane : lanes_) {
      if (repeats_ == 1 || !inside_gpu(lane.transfer)) continue;
      OnDevice on(lane.device);
      lane.graph.reset(new Graph(*lane.stream, [&] { copy_all(lane); }));
    }
  }
  ~Copies() {
    for (Lane& lane : lanes_) {
      for (void* p : lane.held_host) cudaFreeHost(p);
    }
  }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  // The slowest lane's time per copy, all lanes released together.
  double run(StartGate& gate) {
    gate.reset();
    for (Lane& lane : lanes_) {
      OnDevice on(lane.device);
      gate.hold(*lane.stream);
      lane.start->record(*lane.stream);
      lane.graph ? lane.graph->launch(*lane.stream) : copy_all(lane);
      lane.end->record(*lane.stream);
    }
    gate.release();
    double slowest = 0;
    for (Lane& lane : lanes_) {
      OnDevice on(lane.device);
      lane.stream->sync();
      slowest = std::max(slowest, elapsed_us(*lane.start, *lane.end));
    }
    return slowest / repeats_;
  }

 private:
  struct Lane {
    Transfer transfer{};
    int device = 0;
    std::unique_ptr<Stream> stream;
    std::unique_ptr<Event> start, end;
    std::unique_ptr<Graph> graph;
    void *source = nullptr, *target = nullptr;
    std::vector<DeviceBuffer> held;
    std::vector<void*> held_host;
  };

  void* memory(int rank, std::vector<DeviceBuffer>& held) {
    if (rank < 0) {
      void* p = nullptr;
      ORRERY_CUDA(cudaHostAlloc(&p, static_cast<size_t>(bytes_), cudaHostAllocPortable));
      std::memset(p, 0x5a, static_cast<size_t>(bytes_));
      return p;
    }
    OnDevice on(ranks_.device(rank));
    held.emplace_back(static_cast<size_t>(bytes_));
    return held.back().get();
  }

  bool between_gpus(const Transfer& t) const {
    return t.from >= 0 && t.to >= 0 && ranks_.device(t.from) != ranks_.device(t.to);
  }
  bool inside_gpu(const Transfer& t) const { return t.from >= 0 && t.to >= 0 && !between_gpus(t); }

  void copy_all(const Lane& lane) const {
    for (int i = 0; i < repeats_; ++i) copy(lane);
  }
  void copy(const Lane& lane) const {
    const auto n = static_cast<size_t>(bytes_);
    const Transfer& t = lane.transfer;
    if (between_gpus(t)) {
      ORRERY_CUDA(
          cudaMemcpyPeerAsync(lane.target, ranks_.device(t.to), lane.source, ranks_.device(t.from), n, *lane.stream));
    } else {
      ORRERY_CUDA(cudaMemcpyAsync(lane.target, lane.source, n, cudaMemcpyDefault, *lane.stream));
    }
  }

  void fill_and_check() {
    const size_t probe = static_cast<size_t>(std::min<int64_t>(bytes_, 4096));
    for (Lane& lane : lanes_) {
      const Transfer& t = lane.transfer;
      if (t.from >= 0) {
        OnDevice on(ranks_.device(t.from));
        fill_normal_bf16(lane.source, static_cast<size_t>(bytes_) / 2, 40 + static_cast<uint64_t>(t.from), nullptr);
        ORRERY_CUDA(cudaDeviceSynchronize());
      }
      if (t.to >= 0) {
        OnDevice on(ranks_.device(t.to));
        ORRERY_CUDA(cudaMemset(lane.target, 0xff, static_cast<size_t>(bytes_)));
        ORRERY_CUDA(cudaDeviceSynchronize());
      }
      OnDevice on(lane.device);
      copy(lane);
      lane.stream->sync();
      for (size_t at : {size_t{0}, static_cast<size_t>(bytes_) - probe}) {
        std::vector<char> a(probe), b(probe);
        ORRERY_CUDA(cudaMemcpy(a.data(), static_cast<char*>(lane.source) + at, probe, cudaMemcpyDefault));
        ORRERY_CUDA(cudaMemcpy(b.data(), static_cast<char*>(lane.target) + at, probe, cudaMemcpyDefault));
        if (a != b) throw BenchError("the copy did not arrive");
      }
      if (t.from < 0) lane.held_host.push_back(lane.source);
      if (t.to < 0) lane.held_host.push_back(lane.target);
    }
  }

  Ranks ranks_;
  int64_t bytes_;
  int repeats_;
  std::vector<Lane> lanes_;
};

struct Pattern {
  std::string name, what;
  int ranks;
  std::vector<Transfer> transfers;
  std::string link;
};

std::vector<Pattern> patterns(const Table& table) {
  const bool real = table.gpus > 1;
  const int ranks = real ? table.gpus : 4;
  const std::string link = real ? table.link : "local";
  std::vector<Pattern> out;
  out.push_back({"one", "one copy, pushed by its source", 2, {{0, 1}}, link});
  out.push_back({"both", "two ranks, one copy each way", 2, {{0, 1}, {1, 0}}, link});
  Pattern ring{"ring", "every rank to the next", ranks, {}, link};
  for (int r = 0; r < ranks; ++r) ring.transfers.push_back({r, (r + 1) % ranks});
  if (ranks > 2) out.push_back(ring);
  Pattern fan{"fan_out", "rank 0 to every other at once", ranks, {}, link};
  for (int r = 1; r < ranks; ++r) fan.transfers.push_back({0, r});
  if (ranks > 2) out.push_back(fan);
  Pattern all{"all_pairs", "every rank to every other at once", ranks, {}, link};
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if (from != to) all.transfers.push_back({from, to});
    }
  }
  if (real && ranks > 2) out.push_back(all);
  out.push_back({"to_host", "to pinned memory of the host", 1, {{0, -1}}, "host"});
  out.push_back({"from_host", "from pinned memory of the host", 1, {{-1, 0}}, "host"});
  return out;
}

void add(Table& table, const Pattern& pattern, int64_t bytes) {
  Row row;
  row.group = "links";
  row.name = "links/copy_engine/" + pattern.name + "/" + std::to_string(bytes);
  row.what = pattern.what;
  row.bytes = static_cast<double>(bytes);
  row.quick = pattern.name == "one" && (bytes == (1 << 20) || bytes == (1 << 28));
  row.expected_s = 0.07 + 25e-12 * static_cast<double>(bytes);
  row.keys = {{"gpu", table.gpu},
              {"link", pattern.link},
              {"mechanism", "copy_engine"},
              {"op", "peer_copy"},
              {"pattern", pattern.name},
              {"n_gpu", std::to_string(std::min(pattern.ranks, table.gpus))},
              {"ranks", std::to_string(pattern.ranks)},
              {"channels", ""}};
  const bool host = pattern.link == "host";
  if (host) row.rounds = 5;
  row.run = [pattern, bytes, host, rounds = std::make_shared<std::vector<double>>()](Rig& rig) {
    rig.rest_after_load(0.5);
    const int repeats = bytes <= (1 << 20) ? 20 : bytes <= (16 << 20) ? 5 : 1;
    Copies copies(pattern.transfers, pattern.ranks, bytes, repeats);
    const Measurement m = measure_samples(
        rig, [&] { return copies.run(rig.gate); }, host ? 0.02 : 0.04, host ? 0.02 : 0.1, rounds.get());
    Outcome out;
    for (auto& f : result_fields(m, "us")) {
      if (f.first != "launches_per_sample" && f.first != "cache" && f.first != "regime") out.values.push_back(f);
    }
    out.values.push_back({"launches_per_sample", std::to_string(repeats)});
    const double rate = static_cast<double>(bytes) / m.us.median * 1e-3;
    out.values.push_back({"algorithm_gb_per_s", format_number(rate)});
    out.values.push_back({"bus_gb_per_s", format_number(rate)});
    out.headline = rate;
    out.headline_unit = "GB/s";
    return out;
  };
  table.rows.push_back(std::move(row));
}

}  // namespace

std::vector<std::string> link_columns() {
  return result_columns("us", {"gpu", "link", "mechanism", "op", "pattern", "n_gpu", "ranks", "channels",
                               "algorithm_gb_per_s", "bus_gb_per_s"});
}

void add_link_rows(Table& table) {
  table.groups.push_back({"links", "copy-engine copies between ranks and with the host", link_columns(), ""});
  for (const Pattern& pattern : patterns(table)) {
    const std::vector<int64_t> sizes = link_sizes();
    const size_t step = pattern.link == table.link ? 1 : 4;  // inside a GPU and to the host: no link to know in detail
    const int64_t largest = pattern.link == "host" ? kLargestToHost : kLargest;
    for (size_t i = 0; i < sizes.size() && sizes[i] <= largest; i += step) add(table, pattern, sizes[i]);
  }
  if (table.gpus <= 2) return;
  for (int from = 0; from < table.gpus; ++from) {  // whether all pairs are alike
    for (int to = 0; to < table.gpus; ++to) {
      const std::string name = "from_" + std::to_string(from) + "_to_" + std::to_string(to);
      if (from != to) add(table, {name, "one copy, pushed by its source", 2, {{from, to}}, table.link}, 64 << 20);
    }
  }
}

}  // namespace orrery
