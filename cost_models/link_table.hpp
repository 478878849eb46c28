// How long a message takes alone on an idle link, by a table of measured sizes.
#pragma once

#include <string>
#include <vector>

#include "sim/units.hpp"

namespace orrery {

/// Times at sizes ("knots") that grow, and straight lines between them: protocols switch at certain sizes, so no
/// formula of two constants follows the curve (an alpha-beta line through 1 KB to 1 GB of NCCL is off by a third).
/// Below the first knot the time stays, above the last one the last line goes on.
struct LinkTable {
  std::string link;       // name of the link type
  std::string mechanism;  // copy_engine or nccl
  std::string op;         // peer_copy, send_recv, all_gather, ...
  std::vector<double> bytes;
  std::vector<double> seconds;
  std::string source;

  Seconds time(Bytes size) const;
  /// Of the last line: the rate that size beyond the table adds at.
  BytesPerSecond last_rate() const;
  bool measured(Bytes size) const { return size.si() >= bytes.front() && size.si() <= bytes.back(); }
};

}  // namespace orrery
