// What one least-squares fit looks for in measured rows: where its constants live, what they are called in messages,
// and what to measure if the rows do not determine them.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/kernel_models.hpp"
#include "cost_models/least_squares.hpp"
#include "cost_models/measured_kernels.hpp"
#include "sim/contains.hpp"

namespace orrery {

using MeasuredRows = std::vector<const MeasuredKernel*>;

/// Their files, for sources of constants.
std::string files_of(const MeasuredRows& rows);

/// Rows that leave a constant free.
struct Undetermined : FitError {
  using FitError::FitError;
};

class Unknowns {
 public:
  template <class Model>
  void add(Model& model, const ConstantOf<Model>& constant, const std::string& owner) {
    Constant& c = model.*constant.member;
    c.name = fmt::format("{}.{}", owner, constant.name);
    c.unit = constant.unit;
    if (c.value == 0) c.value = constant.start;
    problem_.start.push_back(c.value);
    problem_.lower.push_back(constant.lower);
    problem_.upper.push_back(constant.upper);
    places_.push_back(&c);
    determined_by_.emplace_back(constant.determined_by);
  }

  void set(const std::vector<double>& values) {
    for (std::size_t i = 0; i < places_.size(); ++i) places_[i]->value = values[i];
  }

  /// Ends the source of a constant that the rows would have beyond what is possible.
  static constexpr const char* at_bound = " (at its bound)";

  static constexpr double contradicting_scatter = 0.25;  // robust; beyond it rows do not belong to one model

  /// `residual(row)` is the relative error with the constants as they are set.
  template <class Residual>
  void fit_to(const MeasuredRows& rows, const std::string& what, Residual residual,
              double contradicting = contradicting_scatter) {
    if (rows.size() < places_.size()) {
      throw FitError(fmt::format("{}: {} rows to fit {} constants ({}), measure {}", what, rows.size(), places_.size(),
                                 names(),
                                 fmt::join(std::set<std::string>(determined_by_.begin(), determined_by_.end()), ", ")));
    }
    problem_.residuals = [&](const std::vector<double>& values) {
      set(values);
      std::vector<double> residuals;
      for (const MeasuredKernel* row : rows) residuals.push_back(residual(*row));
      return residuals;
    };
    const LeastSquaresFit result = fit(problem_);
    set(result.values);
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const bool anything = result.low[i] <= problem_.lower[i] && result.high[i] >= problem_.upper[i];
      const auto& list = result.undetermined;
      if (!anything && !contains(list, static_cast<int>(i))) continue;
      refuse_misfit(rows, what, places_[i]->name, residual);
      throw Undetermined(fmt::format("{}: the rows do not determine {} (they leave it free), measure {}", what,
                                     places_[i]->name, determined_by_[i]));
    }
    if (result.scatter > contradicting) refuse(rows, what, result.scatter, residual);
    for (std::size_t i = 0; i < places_.size(); ++i) {
      places_[i]->provenance = Provenance::fitted;
      places_[i]->source = files_of(rows);
      if (result.values[i] <= problem_.lower[i] || result.values[i] >= problem_.upper[i])
        places_[i]->source += at_bound;
      places_[i]->low = result.low[i];
      places_[i]->high = result.high[i];
      places_[i]->rows = static_cast<int>(rows.size());
    }
  }

 private:
  static constexpr double misfit = 0.1;  // of half of the rows: far beyond what any of the models here is off by

  /// Throws if a constant is free because the rows are far from anything the others allow: more rows would not help.
  template <class Residual>
  static void refuse_misfit(const MeasuredRows& rows, const std::string& what, const std::string& name,
                            Residual residual) {
    std::vector<double> off;
    for (const MeasuredKernel* row : rows) off.push_back(std::abs(residual(*row)));
    const double median = quantile(off, 0.5);
    if (median <= misfit) return;
    throw FitError(fmt::format(
        "{}: the rows are off by {:.0f} % in the median from what the constants fitted before allow, whatever {} is "
        "(their times, clocks and powers contradict each other), are those of {} in the units of their columns, and of "
        "one GPU?",
        what, 100 * median, name, files_of(rows)));
  }

  std::string names() const {
    std::string list;
    for (const Constant* place : places_) list += (list.empty() ? "" : ", ") + place->name;
    return list;
  }

  template <class Residual>
  [[noreturn]] void refuse(const MeasuredRows& rows, const std::string& what, double scatter, Residual residual) const {
    const auto worst = std::max_element(rows.begin(), rows.end(), [&](const auto* a, const auto* b) {
      return std::abs(residual(*a)) < std::abs(residual(*b));
    });
    throw FitError(
        fmt::format("{}: rows contradict each other (they scatter by {:.0f} % around the best constants, "
                    "most of all {}: {}), fit files of one GPU and one build of the kernels",
                    what, 100 * scatter, (*worst)->place, (*worst)->shape));
  }

  LeastSquaresProblem problem_;
  std::vector<Constant*> places_;
  std::vector<std::string> determined_by_;
};

}  // namespace orrery
