// Group `overhead`: what the host and the dependencies cost, without any work.
#include <chrono>

#include "kernels/cluster.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

constexpr int kCount = 200;  // well under the 1024 launches a stream may have pending

double host_us_per(int count, const std::function<void()>& once) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) once();
  return 1e6 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / count;
}

// Time on the GPU of what `queue` puts into the stream, nothing of it started before all is queued.
double queued_us(Rig& rig, const std::function<void(cudaStream_t)>& queue) {
  static Event start, end;
  rig.gate.reset();
  rig.gate.hold(rig.stream);
  start.record(rig.stream);
  queue(rig.stream);
  end.record(rig.stream);
  rig.gate.release();
  rig.stream.sync();
  return elapsed_us(start, end);
}

const Graph& graph_of_empty_kernels(cudaStream_t stream) {
  static const Graph graph(stream, [stream] {
    for (int i = 0; i < kCount; ++i) empty_kernel(stream);
  });
  return graph;
}

// Hops between two streams: each launch waits for the other stream's last one. Per hop, the kernel included.
double hops_us(Rig& rig, cudaStream_t other, int other_device) {
  static std::vector<Event> events;
  static int events_device = -1;
  if (events.empty() || events_device != other_device) {
    events.clear();
    for (int i = 0; i < 2 * kCount; ++i) {
      OnDevice on(i % 2 ? other_device : rig.device);
      events.emplace_back(false);
    }
    events_device = other_device;
  }
  return queued_us(rig,
                   [&](cudaStream_t stream) {
                     for (int i = 0; i < kCount; ++i) {
                       empty_kernel(stream);
                       events[2 * i].record(stream);
                       {
                         OnDevice on(other_device);
                         ORRERY_CUDA(cudaStreamWaitEvent(other, events[2 * i], 0));
                         empty_kernel(other);
                         events[2 * i + 1].record(other);
                       }
                       ORRERY_CUDA(cudaStreamWaitEvent(stream, events[2 * i + 1], 0));
                     }
                   }) /
         (2 * kCount);
}

void add(Table& table, const std::string& name, const std::string& what, std::function<double(Rig&)> once) {
  Row row;
  row.group = "overhead";
  row.name = "overhead/" + name;
  row.what = what;
  row.quick = true;
  row.rounds = 5;
  row.expected_s = 0.4;
  row.keys = {{"gpu", table.gpu}, {"cost", name}, {"what", what}};
  row.run = [once, rounds = std::make_shared<std::vector<double>>()](Rig& rig) {
    rig.rest_after_load(0.5);
    Outcome out;
    const Measurement m = measure_samples(
        rig, [&] { return once(rig); }, 0.05, 0.05, rounds.get());
    for (auto& f : result_fields(m, "us")) {
      if (f.first != "cache" && f.first != "regime") out.values.push_back(f);
    }
    out.headline = m.us.median;
    out.headline_unit = "us";
    return out;
  };
  table.rows.push_back(std::move(row));
}

}  // namespace

void add_overhead_rows(Table& table) {
  table.groups.push_back(
      {"overhead", "launch, dependency and gap costs", result_columns("us", {"gpu", "cost", "what"}), ""});

  add(table, "launch_host", "host time of one kernel launch into an idle stream", [](Rig& s) {
    const double us = host_us_per(kCount, [&] { empty_kernel(s.stream); });
    s.stream.sync();
    return us;
  });
  add(table, "launch_to_done", "host time from a launch to the end of the empty kernel (launch, run, synchronize)",
      [](Rig& s) {
        return host_us_per(20, [&] {
          empty_kernel(s.stream);
          s.stream.sync();
        });
      });
  add(table, "gap_in_stream", "an empty kernel behind another in one stream, all queued before", [](Rig& s) {
    return queued_us(s,
                     [](cudaStream_t stream) {
                       for (int i = 0; i < kCount; ++i) empty_kernel(stream);
                     }) /
           kCount;
  });
  add(table, "gap_in_graph", "an empty kernel behind another in one graph", [](Rig& s) {
    const Graph& graph = graph_of_empty_kernels(s.stream);
    return queued_us(s, [&](cudaStream_t stream) { graph.launch(stream); }) / kCount;
  });
  add(table, "graph_launch_host", "host time to launch a graph of 200 kernels", [](Rig& s) {
    const Graph& graph = graph_of_empty_kernels(s.stream);
    const double us = host_us_per(1, [&] { graph.launch(s.stream); });
    s.stream.sync();
    return us;
  });
  add(table, "event_pair", "two events with nothing between: the floor of every timing",
      [](Rig& s) { return queued_us(s, [](cudaStream_t) {}); });
  add(table, "dependency_event", "one hop between two streams of one GPU by an event, the empty kernel included",
      [](Rig& s) {
        static Stream other;
        return hops_us(s, other, s.device);
      });
  if (table.gpus > 1) {
    add(table, "dependency_event_peer", "one hop between streams of two GPUs by an event, the empty kernel included",
        [](Rig& s) {
          static std::unique_ptr<Stream> other;
          if (!other) {
            OnDevice on(1);
            other.reset(new Stream);
          }
          return hops_us(s, *other, 1);
        });
  }
  add(table, "event_record_host", "host time of recording an event", [](Rig& s) {
    static Event event(false);
    const double us = host_us_per(kCount, [&] { event.record(s.stream); });
    s.stream.sync();
    return us;
  });
  add(table, "stream_wait_host", "host time of making a stream wait for an event", [](Rig& s) {
    static Event event(false);
    event.record(s.stream);
    const double us = host_us_per(kCount, [&] { ORRERY_CUDA(cudaStreamWaitEvent(s.stream, event, 0)); });
    s.stream.sync();
    return us;
  });
  add(table, "copy_host", "host time of queueing one copy of 4 KiB", [](Rig& s) {
    static DeviceBuffer a(4096), b(4096);
    const double us = host_us_per(
        kCount, [&] { ORRERY_CUDA(cudaMemcpyAsync(b.get(), a.get(), 4096, cudaMemcpyDeviceToDevice, s.stream)); });
    s.stream.sync();
    return us;
  });
}

}  // namespace orrery
