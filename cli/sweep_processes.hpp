// The processes of a sweep: those that mpirun started, or this one alone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace orrery {

/// What one process tells another. The leader, rank 0, sends `run` and `stop`, the others the rest.
enum class SweepTag : std::uint8_t {
  ready,    // number: how many cases at a time
  run,      // number: of the case
  result,   // bytes: a packed CaseResult
  failure,  // bytes: a sentence
  stop,     // no more cases follow
  bye       // no more messages follow
};

struct SweepMessage {
  int rank = 0;  // from or to
  SweepTag tag = SweepTag::stop;
  std::int64_t number = 0;
  std::vector<std::uint8_t> bytes = {};
};

/// MPI is started and ended with the object, if the environment says that a launcher of MPI started this process.
/// One object, used by one thread.
class SweepProcesses {
 public:
  /// Throws std::runtime_error if there is a launcher but the program was built without MPI.
  SweepProcesses();
  ~SweepProcesses();
  SweepProcesses(const SweepProcesses&) = delete;
  SweepProcesses& operator=(const SweepProcesses&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int on_this_machine() const { return on_this_machine_; }

  /// Every process calls it: the bytes of rank 0 come to all.
  void share(std::vector<std::uint8_t>& bytes) const;
  void send(const SweepMessage& message) const;
  std::optional<SweepMessage> poll() const;

 private:
  int rank_ = 0, size_ = 1, on_this_machine_ = 1;
};

/// Whether a launcher of MPI started this process.
bool launched_by_mpi();

}  // namespace orrery
