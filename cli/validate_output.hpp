// What orrery validate prints and draws.
#pragma once

#include <string>
#include <vector>

#include "validate/runs.hpp"

namespace orrery {

std::string validation_text(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups,
                            bool summary_only);
std::string validation_json(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups);
/// Columns that are carried along come last, in the order in which files bring them.
std::string validation_csv(const std::vector<Prediction>& rows);

/// The groups and rows beyond their tolerance, as lines for people.
std::string beyond_tolerance(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups,
                             double tolerance);

/// Predicted over measured times, and beside it the deviations.
void plot_validation(const std::vector<Prediction>& rows, const std::string& file);

}  // namespace orrery
