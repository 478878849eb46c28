#include "cli/memory_csv.hpp"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "cli/csv_cell.hpp"

namespace orrery {

void write_memory_csv(std::ostream& out, const StepProgram& program, const VisitTimes& times) {
  out << "stage,rank,start_s,end_s,visit,total_bytes";
  for (int i = 0; i < memory_parts; ++i) out << ',' << name_of(static_cast<MemoryPart>(i)) << "_bytes";
  out << '\n';
  for (int stage = 0; stage < program.stages(); ++stage) {
    const std::vector<MemoryPoint> points = memory_over_time(program, stage);
    for (std::size_t i = 0; i < points.size(); ++i) {
      const VisitTimes::Time& time = times.of(stage)[i];
      if (!time.ran) continue;
      out << fmt::format("{},{},{},{},{},{:.0f}", stage + 1, program.first_rank(stage), to_seconds(time.start).si(),
                         to_seconds(time.end).si(), csv_cell(points[i].what()), points[i].memory.peak().si());
      for (const double bytes : points[i].memory.bytes) out << fmt::format(",{:.0f}", bytes);
      out << '\n';
    }
  }
}

}  // namespace orrery
