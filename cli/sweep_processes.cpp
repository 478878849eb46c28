// Without MPI: one process. sweep_processes_mpi.cpp is compiled instead where MPI is found.
#include "cli/sweep_processes.hpp"

#include <stdexcept>

namespace orrery {

SweepProcesses::SweepProcesses() {
  if (launched_by_mpi()) {
    throw std::runtime_error(
        "this orrery was built without MPI (every process would run the whole sweep), build it where MPI is installed "
        "or start it without mpirun");
  }
}
SweepProcesses::~SweepProcesses() = default;
void SweepProcesses::share(std::vector<std::uint8_t>&) const {}
void SweepProcesses::send(const SweepMessage&) const {}
std::optional<SweepMessage> SweepProcesses::poll() const {
  return std::nullopt;
}

}  // namespace orrery
