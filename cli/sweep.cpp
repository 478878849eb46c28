// orrery sweep: many scenarios, in one process or in many, into one file.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "cli/commands.hpp"
#include "cli/output_file.hpp"
#include "cli/progress_bar.hpp"
#include "cli/sweep_processes.hpp"
#include "cli/sweep_store.hpp"
#include "cli/sweep_workers.hpp"

namespace orrery {
namespace {

struct SweepOptions {
  std::string space;
  std::string results;
  std::string csv;
  int threads = 0;  // by the machine
};

// Each poll takes time from the workers; they have a case in reserve to bridge the pause.
constexpr std::chrono::milliseconds between_polls{1};

/// What rank 0 reads, for all: another machine may not see the same files.
std::vector<std::uint8_t> packed(const SweepText& text) {
  return nlohmann::json::to_cbor({text.file.string(), text.base_file.string(), text.space, text.base});
}

SweepText unpacked(const std::vector<std::uint8_t>& bytes) {
  const nlohmann::json json = nlohmann::json::from_cbor(bytes);
  return {json[0].get<std::string>(), json[1].get<std::string>(), json[2], json[3]};
}

/// Hands out the cases that are not stored, to its own threads and to other processes, and stores what comes back.
class SweepLeader {
 public:
  SweepLeader(const SweepSpace& space, SweepStore& store, const SweepProcesses& processes, int threads)
      : space_(space),
        store_(store),
        processes_(processes),
        workers_(threads, processes.size() == 1, [&space](std::int64_t number) { return run_case(space, number); }),
        working_(processes.size() - 1),
        stored_(store.stored()),
        done_(std::count(stored_.begin(), stored_.end(), true)),
        bar_(done_, space.cases()) {}

  ~SweepLeader() {
    // Also after an error.
    for (int rank = 1; rank < processes_.size(); ++rank) processes_.send({rank, SweepTag::stop});
    while (working_ > 0) {
      const auto message = processes_.poll();
      if (!message) std::this_thread::sleep_for(between_polls);
      if (message && message->tag == SweepTag::bye) --working_;
    }
  }

  void run() {
    while (done_ < space_.cases()) {
      while (workers_.in_flight() < workers_.capacity()) {
        const std::int64_t number = next();
        if (number == 0) break;
        workers_.start(number);
      }
      if (processes_.size() == 1) {
        keep(workers_.wait());
      } else if (!answer_others() && !keep_own()) {
        std::this_thread::sleep_for(between_polls);
      }
    }
  }

 private:
  /// 0 if there is none left.
  std::int64_t next() {
    while (next_ < space_.cases() && stored_[static_cast<std::size_t>(next_)]) ++next_;
    return next_ < space_.cases() ? ++next_ : 0;
  }

  void keep(const CaseResult& result) {
    store_.put(result, space_.values(result.number));
    bar_.show(++done_);
  }

  bool keep_own() {
    const auto result = workers_.poll();
    if (result) keep(*result);
    return result.has_value();
  }

  bool answer_others() {
    const auto message = processes_.poll();
    if (!message) return false;
    if (message->tag == SweepTag::failure) {
      throw std::runtime_error(
          fmt::format("rank {}: {}", message->rank, std::string(message->bytes.begin(), message->bytes.end())));
    }
    if (message->tag == SweepTag::result) keep(CaseResult::unpacked(message->bytes));
    const std::int64_t wanted = message->tag == SweepTag::ready ? message->number : 1;
    for (std::int64_t i = 0; i < wanted; ++i) {
      const std::int64_t number = next();
      if (number != 0) processes_.send({message->rank, SweepTag::run, number});
    }
    return true;
  }

  const SweepSpace& space_;
  SweepStore& store_;
  const SweepProcesses& processes_;
  SweepWorkers workers_;
  int working_;               // other processes that have not said bye
  std::vector<bool> stored_;  // when the run began
  std::int64_t next_ = 0, done_;
  ProgressBar bar_;
};

/// Runs the cases that rank 0 sends, until it says stop.
void follow(const SweepProcesses& processes, const SweepSpace& space, int threads) {
  SweepWorkers workers(threads, false, [&space](std::int64_t number) { return run_case(space, number); });
  processes.send({0, SweepTag::ready, workers.capacity()});
  bool stopped = false;
  while (!stopped || workers.in_flight() > 0) {
    const auto message = processes.poll();
    if (message && message->tag == SweepTag::run) workers.start(message->number);
    if (message && message->tag == SweepTag::stop) stopped = true;
    try {
      const auto result = workers.poll();
      if (result) processes.send({0, SweepTag::result, 0, result->packed()});
      if (!message && !result) std::this_thread::sleep_for(between_polls);
    } catch (const std::exception& error) {
      const std::string what = error.what();
      processes.send({0, SweepTag::failure, 0, {what.begin(), what.end()}});
    }
  }
  processes.send({0, SweepTag::bye});
}

void check_csv_name(const SweepOptions& options) {
  if (options.csv.empty()) return;
  std::error_code error;  // that one of them does not exist is not a mistake here
  for (const std::string& input : {options.space, options.results}) {
    if (std::filesystem::equivalent(options.csv, input, error)) {
      throw std::runtime_error(
          fmt::format("--csv {} names an input (it would be overwritten), name another file", options.csv));
    }
  }
  const std::filesystem::path folder = std::filesystem::path(options.csv).parent_path();
  if ((!folder.empty() && !std::filesystem::is_directory(folder, error)) ||
      std::filesystem::is_directory(options.csv, error))
    throw std::runtime_error(
        fmt::format("{}: cannot be written (does the folder exist, or is it one?), name a file", options.csv));
}

void export_csv(const SweepStore& store, const SweepOptions& options) {
  if (options.csv.empty()) return;
  OutputFile file(options.csv);
  store.write_csv(file.stream());
  file.keep();
}

void lead(const SweepOptions& options, const SweepProcesses& processes, int threads) {
  std::vector<std::uint8_t> bytes;  // empty: the others are not needed
  std::unique_ptr<SweepSpace> space;
  std::unique_ptr<SweepStore> store;
  try {
    check_csv_name(options);
    const SweepText text = SweepText::read(options.space);
    space = std::make_unique<SweepSpace>(text);
    space->check();
    store = std::make_unique<SweepStore>(
        options.results, SweepIdentity{text.space, text.base, ORRERY_VERSION, space->cases(), space->paths()});
    bytes = packed(text);
  } catch (...) {
    processes.share(bytes);
    throw;
  }
  processes.share(bytes);
  fmt::print("{}: {} cases = {}; {} of them in {}\n", options.space, space->cases(), space->describe(),
             store->counts().done + store->counts().impossible, options.results);
  std::fflush(stdout);
  SweepLeader(*space, *store, processes, threads).run();
  const SweepStore::Counts counts = store->counts();
  fmt::print("{}: {} cases are done, {} are impossible{}\n", options.results, counts.done, counts.impossible,
             counts.impossible > 0 ? fmt::format(", the first since {}", counts.first_reason) : "");
  export_csv(*store, options);
  store->close();
}

void run(const SweepOptions& options) {
  if (options.results.empty())
    throw std::runtime_error("--output is empty (results would be in a file that goes away), name a file");
  std::error_code error;
  if (std::filesystem::is_other(options.results, error))
    throw std::runtime_error(
        fmt::format("{}: is no plain file (results are read from it again), name a file", options.results));
  // A file at its largest allowed size is an error to report, not our end.
  std::signal(SIGXFSZ, SIG_IGN);
  if (options.space.empty()) {
    if (options.csv.empty())
      throw std::runtime_error("there is nothing to do (neither a SPACE nor --csv is given), see orrery sweep --help");
    check_csv_name(options);
    return export_csv(SweepStore(options.results), options);
  }
  const SweepProcesses processes;
  const int threads = options.threads > 0 ? options.threads : default_threads(processes.on_this_machine());
  if (processes.rank() == 0) return lead(options, processes, threads);
  std::vector<std::uint8_t> bytes;
  processes.share(bytes);
  if (bytes.empty()) return;  // rank 0 says why; mpirun would end it first if this were a failure too
  follow(processes, SweepSpace(unpacked(bytes)), threads);
}

}  // namespace

bool launched_by_mpi() {
  // Open MPI; MPICH and Intel MPI; launchers that speak PMIx, e.g. srun.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

void add_sweep(CLI::App& app) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* command =
      app.add_subcommand("sweep", "Simulate every case of a space, resumably, on all cores or with mpirun");
  command->add_option("space", options->space, "Space file, e.g. scenarios/spaces/context_and_layout.toml");
  command->add_option("-o,--output", options->results, "Results, an SQLite file; continued if it is there")->required();
  command->add_option("--csv", options->csv, "Also write the results as CSV (without a space: what is in the file)");
  command->add_option("--threads", options->threads, "Threads of each process (default: its share of the cores)")
      ->check(CLI::Range(1, 4096));
  command->callback([options] { run(*options); });
}

}  // namespace orrery
