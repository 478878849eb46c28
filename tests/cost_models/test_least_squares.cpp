// Robust fits and conformal intervals on data made by hand.
#include "cost_models/least_squares.hpp"

#include "cost_models/intervals.hpp"
#include "tests/catch.hpp"

using namespace orrery;

namespace {

/// t = a + b * x at x = 1 ... n, with one measurement off by `outlier`.
LeastSquaresProblem line(int n, double a, double b, double outlier) {
  LeastSquaresProblem problem;
  problem.residuals = [=](const std::vector<double>& c) {
    std::vector<double> r;
    for (int x = 1; x <= n; ++x) {
      const double measured = (a + b * x) * (x == 3 ? outlier : 1 + 1e-4 * (x % 2 == 0 ? 1 : -1));
      r.push_back((c[0] + c[1] * x) / measured - 1);
    }
    return r;
  };
  problem.start = {1, 1};
  problem.lower = {0, 0};
  problem.upper = {100, 100};
  return problem;
}

}  // namespace

TEST_CASE("a robust fit finds the line in spite of a row that is off by a factor") {
  const LeastSquaresFit result = fit(line(20, 3, 0.5, 7));
  CHECK_THAT(result.values[0], WithinRel(3.0, 1e-3));
  CHECK_THAT(result.values[1], WithinRel(0.5, 1e-3));
  CHECK(result.undetermined.empty());
  CHECK(result.low[0] <= 3);
  CHECK(result.high[0] >= 3);
}

TEST_CASE("an interval is as wide as the rows beyond the constants allow, and there is none without such rows") {
  const auto width_of = [](int n) {
    const LeastSquaresFit result = fit(line(n, 3, 0.5, 1));
    return result.high[0] - result.low[0];
  };
  CHECK(width_of(2) == 0);
  CHECK(width_of(4) > 2 * width_of(40));  // by Student's t of 2 and 38, beside what the rows say
}

TEST_CASE("constants stay within their bounds") {
  LeastSquaresProblem problem = line(20, 3, 0.5, 1);
  problem.upper = {2, 100};
  CHECK(fit(problem).values[0] == 2);
}

TEST_CASE("a constant that the rows do not depend on is named") {
  LeastSquaresProblem problem;
  problem.residuals = [](const std::vector<double>& c) {
    return std::vector<double>{c[0] - 2, 2 * c[0] - 4.1, c[0] - 1.9};
  };
  problem.start = {1, 1};
  problem.lower = {0, 0};
  problem.upper = {9, 9};
  CHECK(fit(problem).undetermined == std::vector<int>{1});
}

TEST_CASE("a quantile is linear between order statistics") {
  CHECK(quantile({3, 1, 2}, 0.5) == 2);
  CHECK(quantile({1, 2}, 0.25) == 1.25);
  CHECK(quantile({4, 9}, 1) == 9);
}

TEST_CASE("the conformal half width is the ceil of share times n + 1 smallest error") {
  std::vector<double> errors;
  for (int i = 1; i <= 19; ++i) errors.push_back(i);
  CHECK(conformal_half_width(errors, 0.9) == 18);  // ceil(0.9 * 20)
  errors.push_back(20);
  CHECK(conformal_half_width(errors, 0.9) == 19);  // ceil(0.9 * 21): 18 of 20 would be 90 % of these, not of the next
  // Too few: the largest of three covers 3 / 4, and of a normal distribution 1.1503 standard deviations hold as many,
  // 1.6449 hold 90 %.
  CHECK_THAT(conformal_half_width({1, 2, 3}, 0.9), WithinRel(3 * 1.6449 / 1.1503, 1e-3));
}

TEST_CASE("machines weigh the same in a pooled half width, however many rows they have, and one alone is conformal") {
  std::vector<double> errors;
  for (int i = 1; i <= 20; ++i) errors.push_back(i);
  CHECK(pooled_half_width({{"a", errors}}, 0.9) == conformal_half_width(errors, 0.9));
  CHECK(pooled_half_width({{"a", {1, 2, 3}}}, 0.9) == conformal_half_width({1, 2, 3}, 0.9));
  // 100 errors up to 1 and 10 from 2 to 11. Of the second machine 1 - 2 * (1 - 0.9 * 111 / 110) = 0.816 have to be
  // within, so nine; were all rows alike, all of the first would be 91 % of them.
  std::vector<double> many(100), few;
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<double>(i + 1) / 100;
  for (int i = 2; i <= 11; ++i) few.push_back(i);
  CHECK(pooled_half_width({{"a", many}, {"b", few}}, 0.9) == 10);
}
