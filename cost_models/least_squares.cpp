#include "cost_models/least_squares.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

constexpr int most_iterations = 60;
constexpr double huber_threshold = 1.5;  // 96 % efficient on Gaussian errors
constexpr double least_scatter = 1e-5;

using Vector = Eigen::VectorXd;
using Matrix = Eigen::MatrixXd;

/// Constants in units of their start values, so that all are of order one.
class Scaled {
 public:
  explicit Scaled(const LeastSquaresProblem& problem) : problem_(problem) {
    for (std::size_t i = 0; i < problem.start.size(); ++i) {
      unit_.push_back(problem.start[i] != 0 ? std::abs(problem.start[i]) : 1);
    }
  }
  Eigen::Index size() const { return static_cast<Eigen::Index>(unit_.size()); }
  double unit(Eigen::Index i) const { return unit_[static_cast<std::size_t>(i)]; }
  Vector start() const {
    Vector x(size());
    for (Eigen::Index i = 0; i < size(); ++i) x[i] = problem_.start[static_cast<std::size_t>(i)] / unit(i);
    return x;
  }
  std::vector<double> plain(const Vector& x) const {
    std::vector<double> values;
    for (Eigen::Index i = 0; i < size(); ++i) values.push_back(x[i] * unit(i));
    return values;
  }
  Vector clipped(Vector x) const {
    for (Eigen::Index i = 0; i < size(); ++i) {
      const auto j = static_cast<std::size_t>(i);
      x[i] = std::clamp(x[i], problem_.lower[j] / unit(i), problem_.upper[j] / unit(i));
    }
    return x;
  }
  bool at_bound(const Vector& x, Eigen::Index i) const {
    const auto j = static_cast<std::size_t>(i);
    return x[i] * unit(i) <= problem_.lower[j] || x[i] * unit(i) >= problem_.upper[j];
  }
  Vector residuals(const Vector& x) const {
    const std::vector<double> r = problem_.residuals(plain(x));
    return Eigen::Map<const Vector>(r.data(), static_cast<Eigen::Index>(r.size()));
  }
  Matrix jacobian(const Vector& x, const Vector& at_x) const {
    Matrix j(at_x.size(), size());
    for (Eigen::Index i = 0; i < size(); ++i) {
      Vector moved = x;
      // Makespans are only piecewise smooth: a step that is too small sees nothing of other orders of finishing.
      const double step = 1e-3 * std::max(std::abs(x[i]), 0.1);
      moved[i] += x[i] + step > problem_.upper[static_cast<std::size_t>(i)] / unit(i) ? -step : step;
      j.col(i) = (residuals(moved) - at_x) / (moved[i] - x[i]);
    }
    return j;
  }

 private:
  const LeastSquaresProblem& problem_;
  std::vector<double> unit_;
};

double scatter_of(const Vector& residuals) {
  std::vector<double> sizes(residuals.data(), residuals.data() + residuals.size());
  for (double& r : sizes) r = std::abs(r);
  const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
  std::nth_element(sizes.begin(), middle, sizes.end());
  return std::max(1.4826 * *middle, least_scatter);
}

Vector weights_of(const Vector& residuals, double scatter) {
  return residuals.unaryExpr([&](double r) {
    const double size = std::abs(r) / (huber_threshold * scatter);
    return size > 1 ? 1 / size : 1.0;
  });
}

double loss_of(const Vector& residuals, double scatter) {
  const double limit = huber_threshold * scatter;
  return residuals
      .unaryExpr([&](double r) {
        const double size = std::abs(r);
        return size > limit ? limit * (2 * size - limit) : size * size;
      })
      .sum();
}

/// Student's t, 90 % within: of scatter that comes from so many residuals more than there are constants. Exact for one
/// and two, else by the expansion around the normal quantile (Abramowitz and Stegun 26.7.5).
double t_quantile(double freedom) {
  constexpr double share = 0.9, z = 1.645;
  if (freedom <= 1) return std::tan(std::acos(-1.0) * share / 2);
  if (freedom <= 2) return share * std::sqrt(2 / (1 - share * share));
  const double z3 = z * z * z, z5 = z3 * z * z;
  return z + (z3 + z) / (4 * freedom) + (5 * z5 + 16 * z3 + 3 * z) / (96 * freedom * freedom);
}

}  // namespace

LeastSquaresFit fit(const LeastSquaresProblem& problem) {
  const Scaled scaled(problem);
  Vector x = scaled.clipped(scaled.start());
  Vector r = scaled.residuals(x);
  double scatter = scatter_of(r), damping = 1e-3;
  for (int i = 0; i < most_iterations; ++i) {
    const Matrix j = scaled.jacobian(x, r);
    const Vector w = weights_of(r, scatter);
    const Matrix normal = j.transpose() * w.asDiagonal() * j;
    const Vector gradient = j.transpose() * w.asDiagonal() * r;
    bool improved = false;
    for (; damping < 1e6; damping *= 10) {
      Matrix damped = normal;
      for (Eigen::Index k = 0; k < scaled.size(); ++k) damped(k, k) += damping * std::max(normal(k, k), 1e-12);
      const Vector trial = scaled.clipped(x - damped.ldlt().solve(gradient));
      const Vector at_trial = scaled.residuals(trial);
      if (loss_of(at_trial, scatter) >= loss_of(r, scatter)) continue;
      const double moved = (trial - x).norm() / std::max(x.norm(), 1e-12);
      x = trial;
      r = at_trial;
      improved = moved > 1e-6;
      damping /= 10;
      break;
    }
    const double next = scatter_of(r);
    const bool settled = std::abs(next - scatter) < 1e-3 * scatter;
    scatter = next;
    if (!improved && settled) break;
    damping = std::clamp(damping, 1e-9, 1e3);
  }

  LeastSquaresFit result;
  result.values = scaled.plain(x);
  result.scatter = scatter;
  Matrix j = scaled.jacobian(x, r);
  const Vector root_weights = weights_of(r, scatter).cwiseSqrt();
  j = root_weights.asDiagonal() * j;
  Eigen::ColPivHouseholderQR<Matrix> qr(j);
  qr.setThreshold(1e-5);
  const Eigen::Index rank = std::min(qr.rank(), j.rows());
  for (Eigen::Index k = rank; k < scaled.size(); ++k) {
    const auto column = qr.colsPermutation().indices()[k];
    if (!scaled.at_bound(x, column)) result.undetermined.push_back(static_cast<int>(column));
  }
  const Matrix covariance = (j.transpose() * j).completeOrthogonalDecomposition().pseudoInverse() * scatter * scatter;
  // As many constants as rows leave nothing to tell their scatter by: no interval.
  const auto freedom = static_cast<double>(r.size() - scaled.size());
  const double widths = freedom > 0 ? t_quantile(freedom) * std::sqrt(static_cast<double>(r.size()) / freedom) : 0;
  for (Eigen::Index k = 0; k < scaled.size(); ++k) {
    const double half = widths * std::sqrt(std::max(covariance(k, k), 0.0)) * scaled.unit(k);
    const auto i = static_cast<std::size_t>(k);
    result.low.push_back(std::max(result.values[i] - half, problem.lower[i]));
    result.high.push_back(std::min(result.values[i] + half, problem.upper[i]));
  }
  return result;
}

}  // namespace orrery
