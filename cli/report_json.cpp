#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "cli/csv_cell.hpp"
#include "cli/report_writers.hpp"

namespace orrery {

using Json = nlohmann::ordered_json;

Json scenario_scalars(const Scenario& s) {
  Json json;
  json["scenario"] = s.name;
  json["model"] = s.model.name;
  json["layers"] = s.layers;
  json["tokens"] = s.tokens;
  json["batch"] = s.batch;
  json["dtype"] = s.dtype;
  json["pass"] = s.backward ? "training_step" : s.decode ? "decode" : "forward";
  json["scope"] = s.whole_step ? "step" : s.whole_layers ? "layers" : "attention";
  json["causal"] = s.causal;
  json["pattern"] = s.pattern().describe();
  json["schedule"] = s.schedule->name;
  json["layout"] = s.layout;
  json["implementation"] = s.implementation.name;
  json["profile"] = s.profile.name;
  json["gpu"] = s.gpu.name;
  json["topology"] = s.topology;
  json["ranks_count"] = s.ranks();
  return json;
}

Json report_scalars(const Scenario& s, const Report& r) {
  Json json = scenario_scalars(s);
  json["step_time_s"] = r.step_time.si();
  const auto bound = [&](int sign) {
    return r.interval ? Json(r.step_time.si() * (1 + sign * std::min(r.interval->half_width, 1.0))) : Json();
  };
  json["step_time_low_s"] = bound(-1);
  json["step_time_high_s"] = bound(1);
  json["step_time_extrapolated"] = r.interval ? Json(r.interval->extrapolated) : Json();
  json["compute_s"] = r.compute.si();
  json["comm_s"] = r.comm.si();
  json["exposed_comm_s"] = r.exposed_comm.si();
  json["idle_s"] = r.idle.si();
  json["overlap_fraction"] = r.overlap_fraction;
  json["bytes_sent_per_rank"] = r.sent_by_busiest_rank.si();
  json["bytes_sent_total"] = r.sent_in_all.si();
  json["useful_flops"] = r.useful.si();
  json["executed_flops"] = r.executed.si();
  json["mfu"] = r.mfu;
  json["imbalance"] = r.imbalance;
  json["energy_j"] = r.power ? Json(r.power->energy.si()) : Json();
  json["mean_power_w"] = r.power ? Json(r.power->mean.si()) : Json();
  json["highest_power_w"] = r.power ? Json(r.power->highest.si()) : Json();
  json["clock_cap_hz"] = r.power && r.power->clock_cap_hz > 0 ? Json(r.power->clock_cap_hz) : Json();
  json["memory_peak_bytes"] = r.memory ? Json(r.memory->peak().si()) : Json();
  json["memory_fits"] = r.memory ? Json(r.memory->fits(s.gpu.hbm_capacity)) : Json();
  json["engine"] = r.engine;
  json["engine_reason"] = r.engine_reason;
  json["events"] = r.events;
  return json;
}

Json variation_json(const Variation& variation) {
  Json json = Json::object();
  json["slow_ranks"] = Json::array();
  for (const auto& slow : variation.slow_ranks) {
    json["slow_ranks"].push_back({{"rank", slow.rank}, {"speed", slow.speed}});
  }
  json["jitter"] = nullptr;
  if (const auto& jitter = variation.jitter)
    json["jitter"] = {{"distribution", name_of(jitter->noise)}, {"sigma", jitter->sigma}, {"seed", jitter->seed}};
  return json;
}

Json faults_json(const FaultPlan& plan, const Cluster& cluster) {
  Json json = {{"links", Json::array()}, {"pauses", Json::array()}};
  for (std::size_t i = 0; i < plan.faults->links.size(); ++i) {
    const LinkFault& fault = plan.faults->links[i];
    Json entry = {{"link", cluster.links()[static_cast<std::size_t>(fault.link)].name},
                  {"at_s", to_seconds(fault.at).si()}};
    const bool ends = fault.until < std::numeric_limits<Ticks>::max();
    entry["until_s"] = ends ? Json(to_seconds(fault.until).si()) : Json(nullptr);
    entry["bandwidth_bytes_per_s"] = plan.stated[i].si();
    entry["then"] = fault.reroutes ? "reroute" : "stall";
    if (!fault.is_dead()) entry["then"] = nullptr;
    json["links"].push_back(std::move(entry));
  }
  for (const Pause& pause : plan.faults->pauses) {
    json["pauses"].push_back({{"rank", pause.rank},
                              {"at_s", to_seconds(pause.at).si()},
                              {"for_s", to_seconds(pause.until - pause.at).si()}});
  }
  return json;
}

namespace {

Json intensities(const Scenario& s, const Report& r) {
  if (r.intensity.hops.empty()) return nullptr;
  Json list = Json::array();
  for (const Intensity& i : r.intensity.hops) {
    list.push_back(
        {{"phase", i.phase == Phase::forward ? "forward" : "backward"},
         {"hop", i.outer ? "outer_ring" : "block"},
         {"tokens_per_group", i.tokens},
         {"needed_tokens", s.full_pattern() && s.documents.empty() ? Json(i.needed_tokens()) : Json(nullptr)},
         {"bytes", i.bytes.si()},
         {"link_rate_bytes_per_s", i.link_rate.si()},
         {"hop_s", i.hop().si()},
         {"flops", i.flops.si()},
         {"compute_rate_flop_per_s", i.compute_rate.si()},
         {"attention_s", i.attention().si()},
         {"hides_communication", i.holds()}});
  }
  return list;
}

Json memory_of(const Scenario& s, const Report& r) {
  const Memory& memory = *r.memory;
  Json json = {{"peak_bytes", memory.peak().si()},          {"peak_at", r.memory_peak},
               {"capacity_bytes", s.gpu.hbm_capacity.si()}, {"allowance", memory_allowance},
               {"fits", memory.fits(s.gpu.hbm_capacity)},   {"stage", memory.stage + 1}};
  for (int i = 0; i < memory_parts; ++i) {
    json[fmt::format("{}_bytes", name_of(static_cast<MemoryPart>(i)))] = memory.bytes[static_cast<std::size_t>(i)];
  }
  return json;
}

Json degrees_of(const Scenario& s) {
  const Degrees& d = s.degrees;
  return {{"data", d.data},
          {"tensor", d.tensor},
          {"pipeline", d.pipeline},
          {"context", d.context},
          {"virtual_stages", d.virtual_stages},
          {"zero", d.zero},
          {"sequence_parallel", d.sequence_parallel},
          {"microbatches", s.microbatches},
          {"recompute", recompute_names()[static_cast<std::size_t>(s.recompute)]}};
}

Json rank_list(const Report& r) {
  Json list = Json::array();
  for (std::size_t rank = 0; rank < r.ranks.size(); ++rank) {
    const RankReport& x = r.ranks[rank];
    Json entry = {{"rank", rank},
                  {"compute_s", x.compute.si()},
                  {"comm_s", x.comm.si()},
                  {"exposed_comm_s", x.exposed_comm.si()},
                  {"idle_s", x.idle.si()},
                  {"bytes_sent", x.sent.si()},
                  {"bytes_received", x.received.si()},
                  {"useful_flops", x.useful.si()},
                  {"executed_flops", x.executed.si()}};
    for (std::size_t s = 0; s < x.stream_busy.size(); ++s) {
      entry[fmt::format("{}_busy_s", name_of(static_cast<Stream>(s)))] = x.stream_busy[s].si();
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

std::string json_report(const Scenario& s, const Report& r) {
  Json json = report_scalars(s, r);
  json["intensity"] = intensities(s, r);
  json["no_intensity"] = r.intensity.without;
  if (r.memory) {
    json["degrees"] = degrees_of(s);
    json["memory"] = memory_of(s, r);
  }
  if (s.variation.perturbation) json["variation"] = variation_json(s.variation);
  if (s.fault_plan.faults) json["faults"] = faults_json(s.fault_plan, s.cluster);
  json["phases"] = Json::array();
  for (const PhaseReport& p : r.phases) {
    json["phases"].push_back({{"phase", p.name},
                              {"start_s", p.start.si()},
                              {"end_s", p.end.si()},
                              {"compute_busy_s", p.compute.si()},
                              {"comm_busy_s", p.comm.si()}});
  }
  json["critical_path"] = Json::array();
  for (const Share& share : r.critical_path) {
    json["critical_path"].push_back({{"kind", share.name}, {"time_s", share.time.si()}, {"fraction", share.fraction}});
  }
  json["links"] = Json::array();
  for (const LinkReport& link : r.links) {
    json["links"].push_back({{"link", link.name},
                             {"bytes", link.bytes.si()},
                             {"busy_s", link.busy.si()},
                             {"utilisation", link.utilisation}});
  }
  json["ranks"] = rank_list(r);
  json["constants"] = Json::array();
  for (const ConstantReport& c : r.constants) {
    json["constants"].push_back(
        {{"name", c.name}, {"value", c.value}, {"provenance", c.provenance}, {"source", c.source}});
  }
  json["left_out"] = r.left_out;
  json["wall_s"] = r.wall_s;
  // File names may hold bytes that are not UTF-8; JSON may not.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string csv_report(const Scenario& s, const Report& r) {
  Json json = report_scalars(s, r);
  json["wall_s"] = r.wall_s;
  std::string header, row;
  for (const auto& [key, value] : json.items()) {
    header += (header.empty() ? "" : ",") + key;
    const std::string cell = value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
    row += (row.empty() ? "" : ",") + csv_cell(cell);
  }
  return header + "\n" + row + "\n";
}

}  // namespace orrery
