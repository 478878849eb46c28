#include "cost_models/fit_clock.hpp"

#include <fmt/format.h>

#include <map>

#include "cost_models/intervals.hpp"

namespace orrery {
namespace {

using Kind = MeasuredKernel::Kind;

class ClockFit {
 public:
  ClockFit(const MeasuredRows& fitted, const GpuPeaks& peaks, Profile& profile)
      : fitted_(fitted), peaks_(peaks), profile_(profile), kernels_(*profile.kernels) {}

  void fit() {
    const auto of_chip = constants_of_clock();
    fit_clock("clock of bursts", std::span(of_chip).subspan(1, 1), constants_of_power()[0], Regime::burst);
    fit_clock("clock at the power limit", std::span(of_chip).subspan(4, 2), constants_of_power()[1], Regime::sustained);
  }

 private:
  const PowerModel& power_of(const MeasuredKernel& row) {
    return row.kind == Kind::gemm ? kernels_.gemm->power : model_of(row, kernels_).power;
  }
  void fit_clock(Unknowns& unknowns, const std::string& what, Kind kind, Regime regime) {
    const double limited = at_power_limit * kernels_.clock.power_limit.value;
    const MeasuredRows rows = those(fitted_, [&](const MeasuredKernel& row) {
      const bool at_limit = row.power == Watts() || row.power.si() > limited;
      // A kernel that goes through masked tiles multiplies zeros, which other ones do little of.
      return row.kind == kind && row.regime == regime && row.clock_hz > 0 && (regime == Regime::burst || at_limit) &&
             !row.attention.masked_rectangle();
    });
    std::map<const MeasuredKernel*, KernelLoad> loads;
    for (const MeasuredKernel* row : rows) loads[row] = load_of(*row, peaks_, profile_);
    unknowns.fit_to(rows, what, [&](const MeasuredKernel& row) {
      return run_kernel(loads.at(&row), kernels_.clock, power_of(row), regime).clock_hz / row.clock_hz - 1;
    });
  }

  /// The chip's constants and those of its kernels from attention, which products then share.
  void fit_clock(const std::string& what, std::span<const ConstantOf<ClockModel>> of_chip,
                 const ConstantOf<PowerModel>& of_kind, Regime regime) {
    Unknowns attention;
    for (const auto& constant : of_chip) attention.add(kernels_.clock, constant, "clock");
    for (AttentionModel& model : kernels_.attention) {
      attention.add(model.power, of_kind, fmt::format("attention.{}.d{}", name_of(model.phase), model.head_dim));
    }
    fit_clock(attention, what, Kind::attention, regime);
    if (!kernels_.gemm) return;
    // From there: where a start is so far off that no limit is met, nothing shows the way.
    Constant& of_products = kernels_.gemm->power.*of_kind.member;
    of_products.value = (kernels_.attention.front().power.*of_kind.member).value;
    Unknowns products;
    products.add(kernels_.gemm->power, of_kind, "gemm");
    fit_clock(products, what + ", products", Kind::gemm, regime);
  }

  const MeasuredRows& fitted_;
  const GpuPeaks& peaks_;
  Profile& profile_;
  MeasuredKernels& kernels_;
};

}  // namespace

void fit_clocks(const MeasuredRows& fitted, const GpuPeaks& peaks, Profile& profile) {
  ClockFit(fitted, peaks, profile).fit();
}

void spread_in_time(const MeasuredRows& fitted, ClockModel& clock) {
  const auto spread = [&](Constant& constant, const char* name, bool longer) {
    const MeasuredRows rows = those(fitted, [&](const MeasuredKernel& row) {
      return row.kind == Kind::attention && row.regime == Regime::sustained && row.spread > 0 &&
             row.power.si() > at_power_limit * clock.power_limit.value &&
             (row.time.si() > clock.power_lag.value) == longer;
    });
    if (rows.empty()) return;
    std::vector<double> values;
    for (const MeasuredKernel* row : rows) values.push_back(row->spread);
    constant = {
        std::string("clock.") + name, quantile(values, 0.5), "1", Provenance::measured,
        "median over sustained attention rows at the power limit of (p95 - p5) / 3.29 / median; " + files_of(rows)};
    if (rows.size() == 1) constant.provenance = Provenance::assumed;  // how far others would be is not known
    constant.rows = static_cast<int>(rows.size());
    constant.low = quantile(values, 0.05);
    constant.high = quantile(values, 0.95);
  };
  spread(clock.wander, "wander", false);
  spread(clock.swing, "swing", true);
}

}  // namespace orrery
