// How fast a rank's compute op runs beside communication that holds SMs and takes HBM bandwidth.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "sim/cluster.hpp"

namespace orrery {

/// The compute side of one rank. A compute stream is in order, so there is at most one op.
class ComputeRate {
 public:
  void hold_sms(double sms) {
    held_sms_ += sms;
    ++holders_;
  }
  void release_sms(double sms) {
    held_sms_ -= sms;
    if (--holders_ == 0) held_sms_ = 0;  // fractions of SMs need not add up to zero again
  }
  /// Sums of rates are kept in units of 1/256 byte per second, so that they are exact and end at zero again.
  void change_traffic(double old_rate, double new_rate) { traffic_ += fixed(new_rate) - fixed(old_rate); }

  void start(Ticks now, Ticks duration, double hbm_demand, double lost_sms = 0) {
    running_ = true;
    left_ = duration;
    since_ = now;
    hbm_demand_ = hbm_demand;
    lost_sms_ = lost_sms;
    rate_ = 0;
  }
  void stop() {
    running_ = false;
    ++generation_;
  }
  bool running() const { return running_; }
  /// All SMs stand still from now on, or no longer.
  void pause(bool begins) { is_paused_ = begins; }
  bool is_paused() const { return is_paused_; }
  std::uint32_t generation() const { return generation_; }

  /// True if the op goes at another speed from now on, and so ends at another time.
  bool update(const GpuResources& gpu, Ticks now) {
    const double rate = speed(gpu);
    if (rate == rate_) return false;
    if (now != since_) left_work_ = std::max(0.0, work_left() - rate_ * static_cast<double>(now - since_));
    if (now != since_) left_ = -1;
    since_ = now;
    rate_ = rate;
    ++generation_;
    return true;
  }

  /// Ticks from the last change of speed to the end; exact if the op had the whole GPU since it started.
  double ticks_left() const { return work_left() / rate_; }
  bool exact() const { return left_ >= 0 && rate_ == 1; }
  Ticks exact_ticks_left() const { return left_; }

 private:
  // Communication cannot take a compute op's last SM or the last hundredth of HBM: slow, but never stuck.
  static constexpr double least_hbm_share = 0.01;

  // Links given as practically infinite must not overflow the sum; the cap is far above any HBM.
  static constexpr double most_traffic = 1e14;
  static std::int64_t fixed(double rate) { return std::llround(std::min(rate, most_traffic) * 256.0); }
  double work_left() const { return left_ >= 0 ? static_cast<double>(left_) : left_work_; }

  double speed(const GpuResources& gpu) const {
    if (is_paused_) return 0;
    double speed = 1;
    if (gpu.sms > 0 && held_sms_ > 0) {
      speed = std::min(1.0, std::max(gpu.sms - std::max(held_sms_, lost_sms_), 1.0) / gpu.sms);
    }
    const double hbm = gpu.hbm_bandwidth.si();
    // An op that asks for no more than half of the HBM has slack to hide the traffic of others; one that saturates HBM
    // loses what they take; in between, in proportion. Linear in the traffic, so that of a transfer that lies beside
    // the op the bytes decide and not how fast they come.
    const double exposed = std::clamp(2.0 * hbm_demand_ / hbm - 1.0, 0.0, 1.0);
    if (exposed > 0 && traffic_ > 0) {
      speed = std::min(speed, std::max(1.0 - exposed * static_cast<double>(traffic_) / 256.0 / hbm, least_hbm_share));
    }
    return speed;
  }

  double held_sms_ = 0;
  double rate_ = 0;
  double left_work_ = 0;  // ticks at full speed; in use once the speed has changed
  double hbm_demand_ = 0;
  double lost_sms_ = 0;  // while any are held, if more than these
  Ticks left_ = -1;      // the whole duration while the speed has not changed, else -1
  Ticks since_ = 0;
  std::int64_t traffic_ = 0;
  std::int32_t holders_ = 0;
  std::uint32_t generation_ = 0;
  bool running_ = false;
  bool is_paused_ = false;
};

}  // namespace orrery
