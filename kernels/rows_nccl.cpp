// Group `collectives`: NCCL over all GPUs of this machine. `bytes` is what each rank sends in all (send/recv ring
// shift, all-to-all), the shard of a rank (all-gather, reduce-scatter) or the buffer (all-reduce), as in nccl-tests but
// for all-gather and reduce-scatter, whose size there is the whole buffer; `bus_gb_per_s` follows nccl-tests.
#include "kernels/links.hpp"
#include "kernels/table.hpp"

#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

#if ORRERY_HAVE_NCCL
namespace {

enum class Op { send_recv, all_gather, reduce_scatter, all_to_all, all_reduce };
const char* name_of(Op op) {
  static const char* names[] = {"send_recv", "all_gather", "reduce_scatter", "all_to_all", "all_reduce"};
  return names[static_cast<int>(op)];
}

struct Bandwidth {
  double algorithm, bus;  // bytes per microsecond over 1e3 = GB/s
};
Bandwidth bandwidth(Op op, double bytes, double us, int n) {
  const double rate = bytes / us * 1e-3, others = n - 1;
  switch (op) {
    case Op::send_recv:
      return {rate, rate};
    case Op::all_gather:
    case Op::reduce_scatter:
      return {rate * n, rate * others};
    case Op::all_to_all:
      return {rate, rate * others / n};
    case Op::all_reduce:
      return {rate, 2 * rate * others / n};
  }
  return {};
}

class Collective {
 public:
  Collective(Op op, int64_t bytes, int channels) : op_(op), bytes_(bytes), world_(NcclWorld::with_channels(channels)) {
    const int n = world_.size();
    const auto size = static_cast<size_t>(bytes);
    for (int r = 0; r < n; ++r) {
      OnDevice on(r);
      streams_.emplace_back();
      starts_.emplace_back();
      ends_.emplace_back();
      in_.emplace_back(op == Op::reduce_scatter ? size * static_cast<size_t>(n) : size);
      out_.emplace_back(op == Op::all_gather ? size * static_cast<size_t>(n) : size);
      fill_normal_bf16(in_.back().get(), in_.back().bytes() / 2, 70 + static_cast<uint64_t>(r), streams_.back());
      poison(out_.back().get(), out_.back().bytes(), streams_.back());
      streams_.back().sync();
    }
    queue();
    for (int r = 0; r < n; ++r) {
      OnDevice on(r);
      streams_[static_cast<size_t>(r)].sync();
    }
    check();
  }

  double run(StartGate& gate, int repeats) {
    const int n = world_.size();
    gate.reset();
    for (int r = 0; r < n; ++r) {
      OnDevice on(r);
      gate.hold(streams_[r]);
      starts_[r].record(streams_[r]);
    }
    for (int i = 0; i < repeats; ++i) queue();
    for (int r = 0; r < n; ++r) {
      OnDevice on(r);
      ends_[r].record(streams_[r]);
    }
    gate.release();
    double slowest = 0;
    for (int r = 0; r < n; ++r) {
      OnDevice on(r);
      streams_[r].sync();
      slowest = std::max(slowest, elapsed_us(starts_[r], ends_[r]));
    }
    return slowest / repeats;
  }

 private:
  void queue() {
    const int n = world_.size();
    const auto count = static_cast<size_t>(bytes_ / 2);
    NcclGroup group;
    for (int r = 0; r < n; ++r) {
      const ncclComm_t comm = world_.comm(r);
      const cudaStream_t stream = streams_[r];
      void *in = in_[r].get(), *out = out_[r].get();
      switch (op_) {
        case Op::send_recv:
          ORRERY_NCCL(ncclSend(in, count, ncclBfloat16, (r + 1) % n, comm, stream));
          ORRERY_NCCL(ncclRecv(out, count, ncclBfloat16, (r + n - 1) % n, comm, stream));
          break;
        case Op::all_gather:
          ORRERY_NCCL(ncclAllGather(in, out, count, ncclBfloat16, comm, stream));
          break;
        case Op::reduce_scatter:
          ORRERY_NCCL(ncclReduceScatter(in, out, count, ncclBfloat16, ncclSum, comm, stream));
          break;
        case Op::all_reduce:
          ORRERY_NCCL(ncclAllReduce(in, out, count, ncclBfloat16, ncclSum, comm, stream));
          break;
        case Op::all_to_all: {
          const size_t each = count / static_cast<size_t>(n);
          for (int peer = 0; peer < n; ++peer) {
            const size_t at = each * static_cast<size_t>(peer) * 2;
            ORRERY_NCCL(ncclSend(static_cast<char*>(in) + at, each, ncclBfloat16, peer, comm, stream));
            ORRERY_NCCL(ncclRecv(static_cast<char*>(out) + at, each, ncclBfloat16, peer, comm, stream));
          }
          break;
        }
      }
    }
    group.end();
  }

  // The first and the last numbers of every rank's result.
  void check() {
    const int n = world_.size();
    const auto count = static_cast<size_t>(bytes_ / 2), probe = std::min<size_t>(count / static_cast<size_t>(n), 256);
    auto input = [&](int rank, size_t at) {
      OnDevice on(rank);
      return download_bf16(in_[static_cast<size_t>(rank)].as<char>() + 2 * at, probe);
    };
    for (int r = 0; r < n; ++r) {
      for (const bool last : {false, true}) {
        const size_t at = last ? count - probe : 0;
        Doubles expected;
        size_t out_at = at;
        switch (op_) {
          case Op::send_recv:
            expected = input((r + n - 1) % n, at);
            break;
          case Op::all_gather: {
            const int from = last ? n - 1 : 0;
            expected = input(from, at);
            out_at = static_cast<size_t>(from) * count + at;
            break;
          }
          case Op::all_to_all: {
            const size_t each = count / static_cast<size_t>(n);
            const int from = last ? n - 1 : 0;
            const size_t within = last ? each - probe : 0;
            expected = input(from, static_cast<size_t>(r) * each + within);
            out_at = static_cast<size_t>(from) * each + within;
            break;
          }
          case Op::reduce_scatter:
          case Op::all_reduce:
            expected.assign(probe, 0.0);
            for (int from = 0; from < n; ++from) {
              const size_t shard = op_ == Op::reduce_scatter ? static_cast<size_t>(r) * count : 0;
              const Doubles part = input(from, shard + at);
              for (size_t i = 0; i < probe; ++i) expected[i] += part[i];
            }
            break;
        }
        OnDevice on(r);
        const Doubles got = download_bf16(out_[static_cast<size_t>(r)].as<char>() + 2 * out_at, probe);
        checked(difference(got, expected, static_cast<int64_t>(probe)), kBf16Tolerance);
      }
    }
  }

  Op op_;
  int64_t bytes_;
  NcclWorld& world_;
  std::vector<Stream> streams_;
  std::vector<Event> starts_, ends_;
  std::vector<DeviceBuffer> in_, out_;
};

void add(Table& table, Op op, int64_t bytes, int channels) {
  Row row;
  row.group = "collectives";
  const std::string c = channels ? std::to_string(channels) : "auto";
  row.name = std::string("collectives/") + name_of(op) + "/c" + c + "/" + std::to_string(bytes);
  row.what = "NCCL, " + (channels ? c + " channels" : std::string("channels left to NCCL"));
  row.bytes = static_cast<double>(bytes);
  row.quick = channels == 0 && (bytes == (1 << 20) || bytes == (1 << 28));
  row.expected_s = 0.08 + 60e-12 * static_cast<double>(bytes) * table.gpus;
  row.keys = {{"gpu", table.gpu},
              {"link", table.link},
              {"mechanism", "nccl"},
              {"op", name_of(op)},
              {"pattern", "all"},
              {"n_gpu", std::to_string(table.gpus)},
              {"ranks", std::to_string(table.gpus)},
              {"channels", c}};
  row.run = [op, bytes, channels](Rig& rig) {
    Collective collective(op, bytes, channels);
    const int repeats = bytes <= (1 << 20) ? 20 : bytes <= (16 << 20) ? 5 : 1;
    const Measurement m = measure_samples(
        rig, [&] { return collective.run(rig.gate, repeats); }, 0.01, 0.05);
    Outcome out;
    for (auto& f : result_fields(m, "us")) {
      if (f.first != "launches_per_sample" && f.first != "cache" && f.first != "regime") out.values.push_back(f);
    }
    out.values.push_back({"launches_per_sample", std::to_string(repeats)});
    const Bandwidth rate = bandwidth(op, static_cast<double>(bytes), m.us.median, gpu_count());
    out.values.push_back({"algorithm_gb_per_s", format_number(rate.algorithm)});
    out.values.push_back({"bus_gb_per_s", format_number(rate.bus)});
    out.headline = rate.bus;
    out.headline_unit = "GB/s";
    return out;
  };
  table.rows.push_back(std::move(row));
}

}  // namespace
#endif

void add_nccl_rows(Table& table) {
  Group group{"collectives", "NCCL send/recv and collectives over all GPUs", link_columns(), ""};
#if ORRERY_HAVE_NCCL
  if (table.gpus < 2) {
    group.missing = "NCCL needs at least two GPUs (it refuses two ranks on one)";
  } else {
    // Channels swept where they matter to overlap, the choice of NCCL for everything.
    for (Op op : {Op::send_recv, Op::all_gather, Op::reduce_scatter, Op::all_to_all, Op::all_reduce}) {
      for (int64_t bytes : link_sizes()) add(table, op, bytes, 0);
    }
    for (int channels : {1, 2, 4, 8, 16, 32}) {
      for (Op op : {Op::send_recv, Op::all_gather, Op::reduce_scatter, Op::all_to_all, Op::all_reduce}) {
        for (size_t i = 0; i < link_sizes().size(); ++i) {
          // Every size for the ring's own transport, every fourth one for the others.
          if (op == Op::send_recv || i % 4 == 0) add(table, op, link_sizes()[i], channels);
        }
      }
    }
  }
#else
  group.missing = "built without NCCL; its rows of overlap and ring as well";
#endif
  table.groups.push_back(std::move(group));
}

}  // namespace orrery
