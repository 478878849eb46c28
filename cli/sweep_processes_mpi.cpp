#include <mpi.h>

#include <cstdlib>
#include <cstring>

#include "cli/sweep_processes.hpp"

namespace orrery {

SweepProcesses::SweepProcesses() {
  if (!launched_by_mpi()) return;
  // Open MPI spins while it waits, and binds a process of two to one core, which its workers need.
  ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  int provided = 0;  // threads that run cases never call MPI
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  MPI_Comm here = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
  MPI_Comm_size(here, &on_this_machine_);
  MPI_Comm_free(&here);
}

SweepProcesses::~SweepProcesses() {
  if (launched_by_mpi()) MPI_Finalize();
}

void SweepProcesses::share(std::vector<std::uint8_t>& bytes) const {
  if (size_ == 1) return;
  auto size = static_cast<std::int64_t>(bytes.size());
  MPI_Bcast(&size, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
  bytes.resize(static_cast<std::size_t>(size));
  MPI_Bcast(bytes.data(), static_cast<int>(size), MPI_BYTE, 0, MPI_COMM_WORLD);
}

void SweepProcesses::send(const SweepMessage& message) const {
  std::vector<std::uint8_t> packed(sizeof message.number);
  std::memcpy(packed.data(), &message.number, packed.size());
  packed.insert(packed.end(), message.bytes.begin(), message.bytes.end());
  MPI_Send(packed.data(), static_cast<int>(packed.size()), MPI_BYTE, message.rank, static_cast<int>(message.tag),
           MPI_COMM_WORLD);
}

std::optional<SweepMessage> SweepProcesses::poll() const {
  if (size_ == 1) return std::nullopt;
  int there = 0;
  MPI_Status status;
  MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there, &status);
  if (there == 0) return std::nullopt;
  int size = 0;
  MPI_Get_count(&status, MPI_BYTE, &size);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(size));
  MPI_Recv(packed.data(), size, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  SweepMessage message{status.MPI_SOURCE, static_cast<SweepTag>(status.MPI_TAG)};
  std::memcpy(&message.number, packed.data(), sizeof message.number);
  message.bytes.assign(packed.begin() + sizeof message.number, packed.end());
  return message;
}

}  // namespace orrery
