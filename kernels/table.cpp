#include "kernels/table.hpp"

#include <cctype>

namespace orrery {

std::vector<std::string> result_columns(const std::string& unit) {
  return {"time_" + unit,  "p5_" + unit, "p95_" + unit, "samples",       "ci95_rel",     "launches_per_sample",
          "cache",         "regime",     "flops",       "bytes",         "sm_clock_mhz", "power_w",
          "temperature_c", "throttle",   "error_norm",  "error_row_max", "status",       "reason"};
}

Fields result_fields(const Measurement& m, const std::string& unit) {
  const double scale = unit == "ms" ? 1e-3 : 1;
  Fields f{{"time_" + unit, format_number(m.us.median * scale)},
           {"p5_" + unit, format_number(m.us.p5 * scale)},
           {"p95_" + unit, format_number(m.us.p95 * scale)},
           {"samples", std::to_string(m.us.samples)},
           {"ci95_rel", format_number(m.us.ci95_rel)},
           {"launches_per_sample", std::to_string(m.repeats)},
           {"cache", m.cache},
           {"regime", m.regime == Regime::burst ? "burst" : "sustained"}};
  if (m.sm_clock_mhz > 0) f.push_back({"sm_clock_mhz", format_number(m.sm_clock_mhz)});
  if (m.state.samples > 0) {
    f.push_back({"power_w", format_number(m.state.power_w)});
    f.push_back({"temperature_c", format_number(m.state.temperature_c)});
    f.push_back({"throttle", describe_reasons(m.state.reasons)});
  }
  return f;
}

Outcome both_regimes(Rig& rig, const Work& work, const std::string& unit, const Fields& check,
                     const std::function<double(double us)>& headline, const std::string& headline_unit) {
  Event start, end;
  work.launch(rig.stream, 0);
  start.record(rig.stream);
  work.launch(rig.stream, 0);
  end.record(rig.stream);
  rig.stream.sync();
  Outcome out;
  out.values = check;
  for (Regime regime : {Regime::burst, Regime::sustained}) {
    if (regime == Regime::burst && elapsed_us(start, end) > kLongestBurstUs) continue;
    const Measurement m = measure(rig, work, regime);
    out.rows.push_back(result_fields(m, unit));
    if (out.rows.size() == 1) out.headline = headline(m.us.median);
  }
  out.headline_unit = headline_unit;
  return out;
}

Fields checked(const Difference& difference, double tolerance) {
  if (!(difference.norm <= tolerance)) {
    throw BenchError("wrong result: ||out - ref|| / ||ref|| = " + format_number(difference.norm) + ", at most " +
                     format_number(tolerance) + " allowed");
  }
  return {{"error_norm", format_number(difference.norm)}, {"error_row_max", format_number(difference.row_max)}};
}

std::string gpu_key(const std::string& name) {
  std::string key;
  bool skipped = false;
  for (char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      skipped = false;
    } else if (!skipped && !key.empty()) {
      key += '_';
      skipped = true;
    }
  }
  while (!key.empty() && key.back() == '_') key.pop_back();
  if (key.rfind("nvidia_", 0) == 0) key.erase(0, 7);
  if (key == "h200" || key == "h100_80gb_hbm3" || key == "b200") key = key.substr(0, 4) + "_sxm";
  return key;
}

}  // namespace orrery
