// A report as text, JSON or CSV.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "scenarios/report.hpp"

namespace orrery {

/// For people: a page.
std::string text_report(const Scenario& scenario, const Report& report);

/// Stable keys with units; see the README. `wall_s` comes last and is all that differs between runs.
std::string json_report(const Scenario& scenario, const Report& report);

/// What was simulated: the first lines of the page, and the first keys of the JSON report.
std::string scenario_text(const Scenario& scenario);
nlohmann::ordered_json scenario_scalars(const Scenario& scenario);
/// The keys `variation` and `faults` of scenarios that have them.
nlohmann::ordered_json variation_json(const Variation& variation);
nlohmann::ordered_json faults_json(const FaultPlan& plan, const Cluster& cluster);

/// The numbers and names at the top of the JSON report, without `wall_s`; the same keys for every scenario.
nlohmann::ordered_json report_scalars(const Scenario& scenario, const Report& report);

/// A header and one row: the scalars of the JSON report.
std::string csv_report(const Scenario& scenario, const Report& report);

}  // namespace orrery
