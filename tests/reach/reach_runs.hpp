// Short ways to a reach, for the tests.
#pragma once

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "scenarios/reach.hpp"

namespace orrery {

constexpr Index endless = Index{1} << 50;  // tokens: more than any fixture reaches

inline ReachRun reach_of(const ReachPattern& pattern, Index tokens, int layers,
                         ReachEngine engine = ReachEngine::intervals) {
  const ReachSequence sequence{tokens, default_query(pattern, tokens), layers, {}};
  return run_reach(make_problem(pattern, sequence, ReachView::lo), engine);
}

inline ReachPattern causal_pi(std::string_view rule, Index k, Index pi) {
  return pi_pattern(rule, {k, pi}, true, false);
}

/// A CSV file of this folder: rows of whole numbers by column name.
inline std::vector<std::map<std::string, Index>> read_csv(const std::string& name) {
  std::ifstream file(std::string(ORRERY_SOURCE_DIR) + "/tests/reach/" + name);
  std::string line, cell;
  std::vector<std::string> names;
  std::vector<std::map<std::string, Index>> rows;
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    if (names.empty()) {
      while (std::getline(cells, cell, ',')) names.push_back(cell);
      continue;
    }
    std::map<std::string, Index> row;
    for (const std::string& column : names) {
      std::getline(cells, cell, ',');
      row[column] = std::stoll(cell);
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace orrery
