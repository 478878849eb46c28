// Quantiles, and the half width of a prediction interval from errors of rows that were not fitted on.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace orrery {

/// Linear between order statistics; 0 is the smallest, 1 the largest. Precondition: not empty.
double quantile(std::vector<double> values, double share);

/// Split conformal prediction (Vovk, Gammerman, Shafer 2005; Lei et al. 2018, arXiv 1604.04173): with n exchangeable
/// errors a further one is at most the ceil((n + 1) * share)-th smallest of them with probability `share`, whatever
/// their distribution. With too few errors for that, the largest, widened as a normal distribution goes on beyond it.
double conformal_half_width(std::vector<double> errors, double share);

/// The same where groups are exchangeable and not rows (those of one machine share its clock, its memory and its host):
/// each group weighs the same, however many rows it has (Dunn, Wasserman, Ramdas 2018, arXiv 1809.07441: pooled CDFs);
/// of a single group it is the half width above. Precondition: no group is empty.
double pooled_half_width(const std::map<std::string, std::vector<double>>& groups, double share);

}  // namespace orrery
