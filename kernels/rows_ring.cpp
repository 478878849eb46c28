// Group `ring`: whole runs over ranks, exact ring attention and pi-Attention with a halo. The columns are those of a
// run that `orrery validate` reads. On one GPU the ranks are virtual: they share it, so their times check the order of
// things, not a cluster.
#include <chrono>
#include <map>

#include "kernels/table.hpp"
#if ORRERY_HAVE_CUDNN
#include "kernels/ring_check.hpp"
#endif

namespace orrery {
namespace {

std::vector<std::string> run_keys() {
  return {"implementation", "backend", "gpu",    "link",     "n_gpu", "seq_len",   "heads",    "kv_heads",
          "head_dim",       "causal",  "layout", "schedule", "pass",  "transport", "channels", "physical_gpus",
          "tokens_per_gpu", "window",  "period"};
}

#if ORRERY_HAVE_CUDNN
constexpr int64_t K = 1024;

Outcome timed_run(Rig& rig, const Difference& error, const std::vector<Fields>& keys_of_steps,
                  const std::function<double()>& once, const std::function<double(std::vector<RingSpan>&)>& stamped) {
  Outcome out;
  out.values = checked(error, kBf16Tolerance);
  const auto warm = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - warm).count() < rig.options.warmup_s) once();
  const Measurement m = measure_samples(rig, once, rig.options.cap_s / 2, rig.options.cap_s);
  for (auto& f : result_fields(m, "ms")) out.values.push_back(f);
  out.headline = m.us.median * 1e-3;
  out.headline_unit = "ms";
  // Three stamped runs; the one of middle length is kept.
  std::vector<std::pair<double, std::vector<RingSpan>>> runs(3);
  for (auto& run : runs) run.first = stamped(run.second);
  std::sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const RingSpan& span : runs[1].second) {
    Fields f = keys_of_steps.front();
    f.push_back({"rank", std::to_string(span.rank)});
    f.push_back({"step", std::to_string(span.step)});
    f.push_back({"op", span.op});
    f.push_back({"start_us", format_number(span.start_us)});
    f.push_back({"end_us", format_number(span.end_us)});
    f.push_back({"run_us", format_number(runs[1].first)});
    out.steps.push_back(std::move(f));
  }
  return out;
}

std::string transport_name(Transport t) {
  return t == Transport::nccl ? "nccl" : "copy_engine";
}

void compile(const std::vector<AttentionPlanKey>& keys, int ranks, int gpus) {
  for (int device = 0; device < std::min(ranks, gpus); ++device) {
    for (const AttentionPlanKey& key : keys) attention_plan(key, device);
  }
}

void add_ring(Table& table, const RingShape& s, const std::string& pass, bool quick) {
  const bool forward = pass != "backward", backward = pass != "forward";
  Row row;
  row.group = "ring";
  const std::string layout = s.layout == Layout::zigzag ? "zigzag" : "contiguous";
  const std::string channels = s.transport == Transport::nccl ? s.channels ? std::to_string(s.channels) : "auto" : "";
  row.name = "ring/" + pass + "/" + (s.causal ? "causal" : "full") + "/" + layout + "/" + transport_name(s.transport) +
             (channels.empty() ? "" : "/c" + channels) + "/p" + std::to_string(s.ranks) + "/h" +
             std::to_string(s.heads) + "x" + std::to_string(s.kv_heads) + "/n" + std::to_string(s.n);
  row.what = "exact ring attention, blocks by cuDNN";
  AttentionShape whole;
  whole.n_q = whole.n_k = s.n * s.ranks;
  whole.heads = s.heads;
  whole.mask = s.causal ? Mask::causal : Mask::full;
  row.flops = (forward ? whole.forward_flops() : 0) + (backward ? whole.backward_flops() : 0);
  row.quick = quick;
  row.expected_s = 1 + 30 * row.flops / 5e14 / std::max(1, std::min(table.gpus, s.ranks));
  row.keys = {{"implementation", "orrery_ring"},
              {"backend", "cudnn"},
              {"gpu", table.gpu},
              {"link", s.ranks > table.gpus ? "local" : table.link},
              {"n_gpu", std::to_string(s.ranks)},
              {"seq_len", std::to_string(s.n * s.ranks)},
              {"heads", std::to_string(s.heads)},
              {"kv_heads", std::to_string(s.kv_heads)},
              {"head_dim", std::to_string(s.head_dim)},
              {"causal", s.causal ? "true" : "false"},
              {"layout", layout},
              {"schedule", "ring"},
              {"pass", pass},
              {"transport", transport_name(s.transport)},
              {"channels", channels},
              {"physical_gpus", std::to_string(std::min(table.gpus, s.ranks))},
              {"tokens_per_gpu", std::to_string(s.n)}};
  const Fields keys = row.keys;
  row.run = [s, forward, backward, keys](Rig& rig) {
    static std::map<std::string, Difference> checks;
    const std::string kind = std::to_string(s.ranks) + std::to_string(s.causal) +
                             std::to_string(static_cast<int>(s.layout)) + transport_name(s.transport) +
                             std::to_string(s.channels) + std::to_string(s.head_dim);
    if (!checks.count(kind)) checks[kind] = check_ring(s, true);
    checked(checks[kind], kBf16Tolerance);
    Ring ring(s, backward);
    ring.fill_random(11);
    ring.warm_up(true, backward);
    return timed_run(
        rig, checks[kind], {keys}, [&] { return ring.run(forward, backward); },
        [&](std::vector<RingSpan>& spans) { return ring.run(forward, backward, &spans); });
  };
  row.prepare = [s, backward, gpus = table.gpus](int) {
    compile(ring_plans(small(s), true), s.ranks, gpus);
    compile(ring_plans(s, backward), s.ranks, gpus);
  };
  table.rows.push_back(std::move(row));
}

void add_pi(Table& table, const PiShape& s, const std::string& pass, bool quick) {
  const bool backward = pass != "forward";
  Row row;
  row.group = "ring";
  const std::string channels = s.transport == Transport::nccl ? s.channels ? std::to_string(s.channels) : "auto" : "";
  row.name = "ring/pi_halo/" + pass + "/" + transport_name(s.transport) + "/p" + std::to_string(s.ranks) + "/h" +
             std::to_string(s.heads) + "x" + std::to_string(s.kv_heads) + "/n" + std::to_string(s.n) + "/w" +
             std::to_string(s.window) + "/s" + std::to_string(s.period);
  row.what = "pi-Attention: window, gated skip of one key, halo from the previous rank";
  AttentionShape whole = s.attention(true);
  whole.n_q = whole.n_k = s.n * s.ranks;
  row.flops = whole.forward_flops() + (backward ? whole.backward_flops() : 0);
  row.quick = quick;
  row.expected_s = 1;
  row.keys = {{"implementation", "orrery_pi"},
              {"backend", "cudnn"},
              {"gpu", table.gpu},
              {"link", s.ranks > table.gpus ? "local" : table.link},
              {"n_gpu", std::to_string(s.ranks)},
              {"seq_len", std::to_string(s.n * s.ranks)},
              {"heads", std::to_string(s.heads)},
              {"kv_heads", std::to_string(s.kv_heads)},
              {"head_dim", std::to_string(s.head_dim)},
              {"causal", "true"},
              {"layout", "contiguous"},
              {"schedule", "halo"},
              {"pass", pass},
              {"transport", transport_name(s.transport)},
              {"channels", channels},
              {"physical_gpus", std::to_string(std::min(table.gpus, s.ranks))},
              {"tokens_per_gpu", std::to_string(s.n)},
              {"window", std::to_string(s.window)},
              {"period", std::to_string(s.period)}};
  const Fields keys = row.keys;
  row.run = [s, backward, keys](Rig& rig) {
    const Difference error = check_pi(s);
    checked(error, kBf16Tolerance);
    PiHalo pi(s, backward);
    pi.fill_random(13);
    pi.warm_up(true, backward);
    return timed_run(
        rig, error, {keys}, [&] { return pi.run(true, backward); },
        [&](std::vector<RingSpan>& spans) { return pi.run(true, backward, &spans); });
  };
  row.prepare = [s, gpus = table.gpus](int) {
    for (const PiShape& shape : {small(s), s}) {
      for (const bool first : {true, false}) {
        for (Pass p : {Pass::forward, Pass::backward}) compile({{shape.attention(first), p}}, s.ranks, gpus);
      }
    }
  };
  table.rows.push_back(std::move(row));
}

void add_shapes(Table& table) {
  const bool real = table.gpus > 1;
  std::vector<Transport> transports{Transport::copy_engine};
#if ORRERY_HAVE_NCCL
  if (real) transports.push_back(Transport::nccl);
#endif
  const std::vector<int> rank_counts = real ? std::vector<int>{table.gpus} : std::vector<int>{2, 4};
  for (int ranks : rank_counts) {
    for (Transport transport : transports) {
      std::vector<int64_t> tokens =
          real ? std::vector<int64_t>{K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K} : std::vector<int64_t>{4 * K};
      for (int64_t n : tokens) {
        for (const auto& [causal, layout] :
             {std::pair<bool, Layout>{false, Layout::contiguous}, {true, Layout::contiguous}, {true, Layout::zigzag}}) {
          for (const char* pass : {"forward", "backward", "forward_backward"}) {
            if (n > 8 * K && std::string(pass) == "backward") continue;  // long, and inside forward_backward as well
            RingShape s;
            s.ranks = ranks;
            s.n = n;
            s.causal = causal;
            s.layout = layout;
            s.transport = transport;
            add_ring(table, s, pass, n == 4 * K && layout == Layout::zigzag && std::string(pass) == "forward_backward");
            if (n == 4 * K && std::string(pass) != "backward") {  // a grouped-query layer: a quarter of the traffic
              s.kv_heads = 8;
              add_ring(table, s, pass, false);
            }
          }
        }
      }
      if (transport == Transport::nccl) {  // the channels, where they cost most
        for (int channels : {2, 8, 32}) {
          RingShape s;
          s.ranks = ranks;
          s.n = 4 * K;
          s.transport = transport;
          s.channels = channels;
          add_ring(table, s, "forward", false);
        }
      }
      for (int64_t n : {4 * K, 16 * K}) {
        PiShape s;
        s.ranks = ranks;
        s.n = n;
        s.transport = transport;
        for (const char* pass : {"forward", "forward_backward"}) add_pi(table, s, pass, n == 4 * K);
      }
    }
  }
}
#endif

}  // namespace

void add_ring_rows(Table& table) {
  Group group{"ring", "ring attention and pi-Attention over all ranks, with time stamps of every step",
              result_columns("ms", run_keys()), "", run_keys()};
  for (const char* c : {"rank", "step", "op", "start_us", "end_us", "run_us"}) group.step_columns.push_back(c);
#if ORRERY_HAVE_CUDNN
  add_shapes(table);
#else
  group.missing = "built without cuDNN";
#endif
  table.groups.push_back(std::move(group));
}

}  // namespace orrery
