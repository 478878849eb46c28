// Times the engines of the simulator. One JSON line for each figure: name, value, unit, and what it must and should be.
//   bench_engine FOLDER_OF_SCENARIOS [ROW...]
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <queue>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "scenarios/scenario.hpp"
#include "sim/event_queue.hpp"
#include "sim/flows.hpp"
#include "sim/simulate.hpp"
#include "sim/topologies.hpp"

namespace {

using namespace orrery;

void print_row(const char* name, double value, const char* unit, double must, double aim) {
  fmt::print("{{\"name\": \"{}\", \"value\": {:.4g}, \"unit\": \"{}\", \"must\": {}, \"aim\": {}}}\n", name, value,
             unit, must, aim);
  std::fflush(stdout);
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) * 1e-6;
}

struct Measured {
  double seconds = 0;  // of one core, so that neighbours on the machine show less
  double megabytes = 0;
  double events = 0;
};

/// Runs in a process of its own, so that its memory is its own.
Measured apart(const std::function<std::uint64_t()>& work) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    Measured measured;
    const double start = cpu_seconds();
    measured.events = static_cast<double>(work());
    measured.seconds = cpu_seconds() - start;
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    measured.megabytes = static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
    if (write(pipe_ends[1], &measured, sizeof measured) != sizeof measured) _exit(1);
    _exit(0);
  }
  Measured measured;
  close(pipe_ends[1]);
  const bool came = read(pipe_ends[0], &measured, sizeof measured) == sizeof measured;
  close(pipe_ends[0]);
  waitpid(child, nullptr, 0);
  if (!came) throw std::runtime_error("a measurement failed");
  return measured;
}

/// Leaves of 8 ranks, every rank on another leaf than the one before, so that each hop of a ring crosses the trunks of
/// two leaves. 8 flows share a trunk, which carries 4 at full speed.
Cluster rails(const Cluster& like) {
  const Rank leaves = like.ranks() / 8;
  const BytesPerSecond bandwidth = BytesPerSecond::from_si(50e9);
  const Seconds latency = Seconds::from_si(1e-6);
  Cluster cluster(like.gpu());
  std::vector<Cluster::Node> switches;
  for (Rank rank = 0; rank < like.ranks(); ++rank) cluster.add_gpu(fmt::format("gpu{}", rank));
  for (Rank leaf = 0; leaf < leaves; ++leaf) switches.push_back(cluster.add_switch(fmt::format("leaf{}", leaf)));
  const Cluster::Node spine = cluster.add_switch("spine");
  for (Rank rank = 0; rank < like.ranks(); ++rank) {
    cluster.connect(static_cast<Cluster::Node>(rank), switches[static_cast<std::size_t>(rank % leaves)], bandwidth,
                    latency);
  }
  for (const Cluster::Node leaf : switches) cluster.connect(leaf, spine, 4 * bandwidth, latency);
  return cluster;
}

struct Options {
  Engine engine = Engine::event;
  bool jitter = true;
  bool on_rails = false;
  int times = 1;  // for what is too short to be timed once
};

/// Simulates the scenario's program; loading the scenario is not timed, everything else is.
Measured simulate_apart(const std::string& file, const Options& options) {
  Scenario scenario = load_scenario(file);
  const AttentionProgram program = build_program(scenario);
  if (options.on_rails) scenario.cluster = rails(scenario.cluster);
  const Perturbation noise(program.ranks(), {Noise::uniform, 0.065, 1}, {});
  return apart([&] {
    std::uint64_t events = 0;
    for (int i = 0; i < options.times; ++i) {
      const SimulationResult result = simulate(
          program, scenario.cluster, {.engine = options.engine, .perturbation = options.jitter ? &noise : nullptr});
      if (result.engine != options.engine) throw std::runtime_error("another engine ran");
      events += result.events;
    }
    return events;
  });
}

/// Pops the earliest event and pushes it back later, over and over; ns for each.
template <class Queue, class Pop>
double hold(std::size_t pending, std::size_t turns, Pop pop) {
  std::mt19937_64 random(1);
  std::vector<Ticks> ahead(1 << 16);  // exponential, mean 1 ms
  for (Ticks& ticks : ahead) {
    ticks = static_cast<Ticks>(-std::log((static_cast<double>(random() >> 11) + 0.5) / 9007199254740992.0) * 1e9);
  }
  Queue queue;
  std::size_t draw = 0;
  const auto next = [&] { return ahead[draw++ & 0xffff]; };
  for (std::size_t i = 0; i < pending; ++i) queue.push(Event::make(next(), 0, static_cast<std::uint32_t>(i), 0));
  double start = 0;
  for (std::size_t i = 0; i < turns + turns / 4; ++i) {
    if (i == turns / 4) start = cpu_seconds();
    const Event event = pop(queue);
    queue.push(Event::make(event.time + next(), 0, event.target, 0));
  }
  return (cpu_seconds() - start) / static_cast<double>(turns) * 1e9;
}

struct Later {
  bool operator()(const Event& a, const Event& b) const { return a.time > b.time; }
};

void print_hold() {
  using Standard = std::priority_queue<Event, std::vector<Event>, Later>;
  const double standard = hold<Standard>(1 << 16, 2'000'000, [](Standard& queue) {
    const Event first = queue.top();
    queue.pop();
    return first;
  });
  const double own = hold<EventQueue>(1 << 16, 10'000'000, [](EventQueue& queue) { return queue.pop(); });
  print_row("hold_64k_ratio", standard / own, "x", 5, 8);
}

/// A closed loop of random flows between random hosts of a fat tree with full bisection.
void print_maxmin() {
  const auto link = [](double gigabytes) { return LinkSpec{BytesPerSecond::from_si(gigabytes * 1e9), Seconds()}; };
  const Cluster cluster = fat_tree({}, {128, NvSwitch{8, link(450)}, link(50), 16, 1, Seconds()});
  std::mt19937_64 random(1);
  FlowNetwork network(cluster.links());
  std::priority_queue<std::pair<Ticks, FlowId>, std::vector<std::pair<Ticks, FlowId>>, std::greater<>> ends;
  std::vector<Ticks> end_of(4096, -1);
  const auto start_flow = [&](Ticks now) {
    const auto from = static_cast<Rank>(random() % 1024);
    const auto to = static_cast<Rank>((static_cast<std::uint64_t>(from) + 8 + random() % 1008) % 1024);
    network.add(cluster.route(from, to), Bytes::from_si(1e6 * static_cast<double>(1 + random() % 1000)), now);
  };
  const auto settle = [&](Ticks now) {
    for (const FlowNetwork::Change& change : network.solve(now)) {
      end_of[static_cast<std::size_t>(change.flow)] = now + std::llround(network.seconds_left(change.flow) * 1e12);
      ends.emplace(end_of[static_cast<std::size_t>(change.flow)], change.flow);
    }
  };
  for (int i = 0; i < 1024; ++i) start_flow(0);
  settle(0);
  constexpr int completions = 20'000;
  double begin = 0;
  for (int i = -completions / 4; i < completions;) {
    const auto [time, flow] = ends.top();
    ends.pop();
    if (end_of[static_cast<std::size_t>(flow)] != time) continue;
    end_of[static_cast<std::size_t>(flow)] = -1;
    network.remove(flow, time);
    start_flow(time);
    settle(time);
    if (++i == 0) begin = cpu_seconds();
  }
  print_row("maxmin_1k_us", (cpu_seconds() - begin) / completions * 1e6, "us", 10, 2.5);
}

void print_growth(const std::string& folder) {
  const Measured large = simulate_apart(folder + "/ring_16384x1.toml", {});
  const Measured small = simulate_apart(folder + "/ring_256x1.toml", {.times = 200});
  print_row("growth_ratio", large.seconds / large.events / (small.seconds / small.events), "x", 1.6, 1.3);
  print_row("peak_mb_16384x1", large.megabytes, "MB", 80, 20);
}

/// Rows that are measured together, by their names.
struct Rows {
  std::vector<std::string> names;
  std::function<void()> print;
};

std::vector<Rows> all_rows(const std::string& folder) {
  const std::string ring = folder + "/ring_1024x32.toml";
  return {
      {{"hold_64k_ratio"}, print_hold},
      {{"ring_1024x32_event_s", "peak_mb_1024x32"},
       [=] {
         const Measured events = simulate_apart(ring, {});
         print_row("ring_1024x32_event_s", events.seconds, "s", 8, 4);
         print_row("peak_mb_1024x32", events.megabytes, "MB", 65, 17);
       }},
      {{"ring_1024x32_dependency_s"},
       [=] {
         const Measured run = simulate_apart(ring, {.engine = Engine::dependency});
         print_row("ring_1024x32_dependency_s", run.seconds, "s", 1, 0.4);
       }},
      {{"ring_1024x32_lumped_s"},
       [=] {
         const Measured run = simulate_apart(ring, {.engine = Engine::lumped, .jitter = false});
         print_row("ring_1024x32_lumped_s", run.seconds, "s", 0.06, 0.01);
       }},
      {{"ring_1024x32_shared_s"},
       [=] { print_row("ring_1024x32_shared_s", simulate_apart(ring, {.on_rails = true}).seconds, "s", 20, 8); }},
      {{"ring_16384x1_dependency_s", "peak_mb_16384x1_dependency"},
       [=] {
         const Measured run = simulate_apart(folder + "/ring_16384x1.toml", {.engine = Engine::dependency});
         print_row("ring_16384x1_dependency_s", run.seconds, "s", 2, 0.8);
         print_row("peak_mb_16384x1_dependency", run.megabytes, "MB", 80, 20);
       }},
      {{"growth_ratio", "peak_mb_16384x1"}, [=] { print_growth(folder); }},
      {{"maxmin_1k_us"}, print_maxmin},
  };
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw std::runtime_error("usage: bench_engine FOLDER_OF_SCENARIOS [ROW...]");
    const std::vector<std::string> wanted(argv + 2, argv + argc);
    for (const Rows& rows : all_rows(argv[1])) {
      const bool is_wanted = std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
        return std::find(rows.names.begin(), rows.names.end(), name) != rows.names.end();
      });
      if (wanted.empty() || is_wanted) rows.print();
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_engine: {}\n", error.what());
    return 2;
  }
}
