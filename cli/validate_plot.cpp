#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "cli/gnuplot.hpp"
#include "cli/output_file.hpp"
#include "cli/validate_output.hpp"

namespace orrery {
namespace {

bool is_compared(const Prediction& p) {
  return p.reason.empty() && !p.fitted && p.is_measured();
}

/// What was measured, without the folder it was measured in: colours for the same thing everywhere.
std::string kind_of(const std::string& group) {
  const std::size_t colon = group.find(": ");
  return colon == std::string::npos ? group : group.substr(colon + 2);
}

}  // namespace

void plot_validation(const std::vector<Prediction>& rows, const std::string& file) {
  std::map<std::string, std::string> data_of;  // by kind
  double largest = 0.3;                        // deviation
  for (const Prediction& p : rows) {
    if (!is_compared(p)) continue;
    largest = std::max(largest, std::abs(p.deviation()));
    data_of[kind_of(p.group)] +=
        fmt::format("{:.6g} {:.6g} {:.4g}\n", p.measured.si(), p.predicted.si(), 100 * p.deviation());
  }
  if (data_of.empty())
    throw std::runtime_error(fmt::format("{}: nothing to draw (no row is measured, predicted and held out)", file));
  std::string data, points, deviations;
  int drawn = 0;
  for (const auto& [kind, lines] : data_of) {
    data += fmt::format("# {}\n# measured_s predicted_s deviation_percent\n{}\n\n", kind, lines);
    const std::string source = fmt::format("{} index {} using ", in_quotes(file + ".dat"), drawn);
    const std::string style = fmt::format("pt {} ps 0.6 lc {}", drawn % 12 + 4, drawn + 1);
    points += fmt::format(", {}1:2 with points {} notitle", source, style);
    deviations += fmt::format(", {}1:3 with points {} title {} noenhanced", source, style, in_quotes(kind));
    ++drawn;
  }
  write_file(file + ".dat", data);
  std::string script = fmt::format("set terminal {}\nset output {}\n", gnuplot_terminal(file), in_quotes(file));
  script +=
      "set multiplot\nset logscale x\nset format x '10^{%T}'\nset grid lc rgb '#d8d8d8'\nset tics out nomirror\n"
      "set tmargin at screen 0.96\nset bmargin at screen 0.12\nset lmargin at screen 0.07\nset rmargin at screen 0.37\n"
      "set xlabel 'measured [s]'\nset logscale y\nset format y '10^{%T}'\nset ylabel 'predicted [s]'\n"
      "plot x with lines lc rgb '#888888' notitle" +
      points +
      "\nset lmargin at screen 0.46\nset rmargin at screen 0.75\n"
      "set key at screen 0.99, screen 0.96 right top Left reverse font ',10'\n"
      "unset logscale y\nset format y '%+.0f %%'\nset ylabel 'predicted / measured - 1' offset -1.5\n" +
      fmt::format("set yrange [{0}:{1}]\n", -std::min(100.0, 110 * largest), 110 * largest) +
      "plot 0 with lines lc rgb '#888888' notitle" + deviations + "\nunset multiplot\n";
  draw(script, file, file + ".dat");
}

}  // namespace orrery
