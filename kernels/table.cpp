#include "kernels/table.hpp"

#include <algorithm>
#include <cctype>

namespace orrery {

std::vector<std::string> result_columns(const std::string& unit, std::vector<std::string> keys) {
  for (const std::string& column :
       {"time_" + unit, "p5_" + unit, "p95_" + unit, std::string("samples"), std::string("ci95_rel"),
        std::string("launches_per_sample"), std::string("cache"), std::string("regime"), std::string("flops"),
        std::string("bytes"), std::string("sm_clock_mhz"), std::string("power_w"), std::string("temperature_c"),
        std::string("throttle"), std::string("error_norm"), std::string("error_row_max"), std::string("status"),
        std::string("reason")}) {
    if (std::find(keys.begin(), keys.end(), column) == keys.end()) keys.push_back(column);
  }
  return keys;
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
                     const std::function<double(double us)>& headline, const std::string& headline_unit,
                     std::optional<Window> sustained) {
  constexpr Window kBurst{0.05};  // after their warm-up bursts differ by some tenths of a percent
  Event start, end;
  work.launch(rig.stream, 0);
  start.record(rig.stream);
  work.launch(rig.stream, 0);
  end.record(rig.stream);
  rig.stream.sync();
  Outcome out;
  out.values = check;
  for (Regime regime : {Regime::burst, Regime::sustained}) {
    const bool burst = regime == Regime::burst;
    if (burst ? sustained && elapsed_us(start, end) > kLongestBurstUs : !sustained) continue;
    const Measurement m = measure(rig, work, regime, burst ? kBurst : *sustained);
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

Outcome checked_and_timed(Rig& rig, const Work& work, const Difference& error, double tolerance, double bytes) {
  Outcome out;
  out.values = checked(error, tolerance);
  const Measurement m = measure(rig, work);
  for (auto& f : result_fields(m, "us")) out.values.push_back(f);
  out.headline = bytes / m.us.median * 1e-3;
  out.headline_unit = "GB/s";
  return out;
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

Table make_table(int gpus, const std::string& gpu, const std::string& link) {
  Table table;
  table.gpus = gpus;
  table.gpu = gpu;
  table.link = link;
  for (const auto& add :
       {add_overhead_rows, add_link_rows, add_nccl_rows, add_attention_rows, add_pi_attention_rows, add_merge_rows,
        add_elementwise_rows, add_gemm_rows, add_overlap_rows, add_ring_rows, add_power_rows}) {
    add(table);
  }
  return table;
}

}  // namespace orrery
