// Text as a cell of a CSV file.
#pragma once

#include <string>

namespace orrery {

/// Quoted if it has to be (RFC 4180).
std::string csv_cell(const std::string& text);

}  // namespace orrery
