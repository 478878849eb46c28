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

/// The numbers and names at the top of the JSON report, without `wall_s`; the same keys for every scenario.
nlohmann::ordered_json report_scalars(const Scenario& scenario, const Report& report);

/// A header and one row: the scalars of the JSON report.
std::string csv_report(const Scenario& scenario, const Report& report);

}  // namespace orrery
