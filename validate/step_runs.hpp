// A row of a whole step: a base scenario, and the keys in which the row differs from it.
#pragma once

#include "validate/runs.hpp"

namespace orrery {

/// Columns: `scenario` (a TOML file beside the CSV file), any number of keys of a scenario (their names hold a dot:
/// workload.tokens, parallelism.ranks, ...; an empty cell leaves the base's value), time_ms, and those that every run
/// file may have; `method` and `setting` name what is compared and what is the same. The prediction is what `orrery
/// simulate` says of that scenario. Throws MeasuredFileError if the row makes none.
Prediction predict_step(const MeasuredTable& table, std::size_t row);

}  // namespace orrery
