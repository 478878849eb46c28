// The picture of a reach: a data file, and a gnuplot script that goes to gnuplot through a pipe.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "cli/gnuplot.hpp"
#include "cli/reach_output.hpp"

namespace orrery {
namespace {

/// Text in lines of about `width` characters, as an expression of gnuplot.
std::string wrapped(const std::string& text, std::size_t width) {
  std::istringstream words(text);
  std::string line, lines;
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      lines += in_quotes(line) + " . \"\\n\" . ";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return lines + in_quotes(line);
}

// --- The data file. Blocks are apart by two blank lines, as gnuplot wants them; lags start at 1, for the log axis. ---

double share_of(const LayerReach& layer, const std::vector<Interval>& bands, std::size_t b) {
  return static_cast<double>(layer.earlier.in_bands[b]) / static_cast<double>(bands[b].last - bands[b].first + 1);
}

/// Boxes of lags and the share of each that is reached. Neighbours with equal shares are one box: seams would show.
std::string density_block(const ReachInput& input, const ReachPattern& pattern) {
  constexpr int parts_of_octave = 8;
  const ReachRun run =
      run_reach(make_problem(pattern, input.sequence, ReachView::lo), ReachEngine::automatic, parts_of_octave);
  std::string text = "# layer lag_first lag_last fraction_reached\n";
  for (const LayerReach& layer : run.layers) {
    for (std::size_t b = 0; b < run.bands.size();) {
      const double share = share_of(layer, run.bands, b);
      const Index first = run.bands[b].first;
      Index last = first;
      for (; b < run.bands.size() && share_of(layer, run.bands, b) == share; ++b) last = run.bands[b].last;
      if (share > 0) text += fmt::format("{} {} {} {:.6g}\n", layer.layer, first, last, share);
    }
  }
  return text + "\n\n";
}

/// Zero has no place on a log axis.
std::string on_log_axis(Index lag) {
  return lag > 0 ? fmt::format("{}", lag) : "NaN";
}

/// After all layers, for some input.
Index farthest_lag(const ReachReport& report) {
  return (report.up ? *report.up : report.lo).layers.back().earlier.max_lag;
}

std::string lines_block(const ReachResult& result, const std::optional<Index>& window) {
  const ReachReport& r = result.report;
  std::string text = fmt::format("# {}\n# layer contiguous max_lag bound window_kL\n", result.input.name);
  for (std::size_t l = 0; l < r.lo.layers.size(); ++l) {
    const LayerReach& layer = r.lo.layers[l];
    const Index farthest = r.up ? r.up->layers[l].earlier.max_lag : layer.earlier.max_lag;
    text += fmt::format(
        "{} {} {} {} {}\n", layer.layer, on_log_axis(layer.earlier.contiguous), on_log_axis(farthest),
        r.bounds.empty() ? "NaN" : on_log_axis(std::min(r.bounds[l], r.lo.earlier_tokens)),
        window ? on_log_axis(std::min(r.lo.earlier_tokens, checked_multiply(*window, layer.layer, "kL"))) : "NaN");
  }
  return text + "\n\n";
}

/// The window of a pattern, which is all of it that the paper's "RingAttention" has.
std::optional<ReachPattern> window_alone(const ReachPattern& pattern) {
  ReachPattern alone = pattern;
  std::erase_if(alone.primitives, [](const ReachPrimitive& p) {
    return p.kind != ReachPrimitive::Kind::window || p.layers.kind != LayerRule::Kind::all || p.stage != 1;
  });
  if (alone.primitives.empty() || alone.primitives.front().left == 0 ||
      alone.primitives.size() == pattern.primitives.size())
    return std::nullopt;
  return alone;
}

// --- The script ---

std::string heading(const std::string& file, double largest_lag, int layers, int panels) {
  std::string text =
      fmt::format("set terminal {}\nset output {}\nset encoding utf8\n", gnuplot_terminal(file), in_quotes(file));
  text += "set logscale y 2\nset format y '%.0f'\n";
  // A label for every second or fourth power of two where there are many.
  text += fmt::format("set ytics 1,{}\n", largest_lag > 1e9 ? 16 : largest_lag > 1e5 ? 4 : 2);
  if (layers <= 10) text += "set xtics 1\n";
  text += fmt::format("set xrange [0.5:{}.5]\nset yrange [0.7:{:.6g}]\n", layers, largest_lag * 1.5);
  text += fmt::format("set xlabel 'attention layer'\nset ylabel 'lag: distance to an earlier token [tokens]'\n");
  text += fmt::format(
      "set grid ytics lc rgb '#d8d8d8'\nset tics out nomirror\nset border 3 lc rgb '#555555'\n"
      "set key outside below center horizontal samplen 3\nset palette defined (0 '#e8f1fa', 0.25 "
      "'#b5d4ec', 0.6 '#6aaed6', 1 '#2171b5')\nset cbrange [0:1]\nset cblabel 'share of the lags reached'\n"
      "set format cb '%.1f'\nset style fill solid 1.0 noborder\n");
  if (panels > 1) text += "unset colorbox\n";
  return text;
}

/// A layer reaches a pixel or two into the next, which is drawn over it: else the seams would show.
std::string boxes(const std::string& data, int index, int layers) {
  return fmt::format(
      "{} index {} using 1:(sqrt($2*$3)):($1-0.5):($1+0.5+{:.4f}):($2-0.5):($3+0.5):4 with boxxyerror fc palette "
      "notitle",
      in_quotes(data), index, 0.004 * layers);
}

std::string line(const std::string& data, int index, int column, const char* style, const char* title) {
  return fmt::format("{} index {} using 1:{} with lines {} title '{}' noenhanced", in_quotes(data), index, column,
                     style, title);
}

/// What is not there is left out: gnuplot would complain.
struct PlotElement {
  bool any;
  std::string text;
};

std::string plot(const std::vector<PlotElement>& elements) {
  std::string text;
  for (const PlotElement& element : elements) {
    if (element.any) text += (text.empty() ? "plot " : ", ") + element.text;
  }
  return text + "\n";
}

std::string marked_line(const std::string& data, int index, int column, const std::string& style,
                        const std::string& title) {
  return fmt::format("{} index {} using 1:{} with linespoints {} title {} noenhanced", in_quotes(data), index, column,
                     style, in_quotes(title));
}

/// The parameters, as an expression of gnuplot.
std::string caption(const ReachInput& input) {
  const std::string documents =
      input.sequence.documents.empty() ? "" : fmt::format(" in {} documents", input.sequence.documents.size());
  const std::string sequence = fmt::format("n = {} tokens{}, L = {} layers, seen from token {}", input.sequence.tokens,
                                           documents, input.sequence.layers, input.sequence.query);
  return wrapped(fmt::format("{}: {}", input.name, input.pattern.describe()), 125) + " . \"\\n\" . " +
         in_quotes(sequence);
}

std::string one_mechanism(const ReachResult& result, const std::string& data, bool beside) {
  constexpr const char* front = "lw 3 lc rgb '#d95f02'";
  constexpr const char* farthest = "lw 2.5 lc rgb '#222222'";
  constexpr const char* bound = "lw 2.5 dt (9,5) lc rgb '#c2185b'";
  constexpr const char* local = "lw 3.5 dt (4,3) lc rgb '#12b04a'";
  const ReachReport& r = result.report;
  const LayerReach& last = r.lo.layers.back();
  const int layers = result.input.sequence.layers;
  std::string text;
  if (beside) {
    text += fmt::format("set multiplot title {} noenhanced\n", caption(result.input));
    text +=
        "set lmargin at screen 0.085\nset rmargin at screen 0.44\nset tmargin at screen 0.84\nset bmargin at screen "
        "0.2\nset title 'the window alone (called RingAttention in arXiv 2511.10696)' noenhanced\nset key off\n";
    text += plot({{true, boxes(data, 0, layers)}, {true, line(data, 1, 5, local, "")}});
    text += fmt::format(
        "set lmargin at screen 0.535\nset rmargin at screen 0.89\nset title {} noenhanced\nset colorbox\n"
        "unset ylabel\nset key on at screen 0.5,0.055 center center vertical maxrows 2 width 2\n",
        wrapped(result.input.description, 60));
  } else {
    text += fmt::format(
        "set title {} noenhanced\nset bmargin at screen 0.2\n"
        "set key at screen 0.5,0.055 center center vertical maxrows 2 width 2\n",
        caption(result.input));
  }
  text += plot(
      {{last.earlier.max_lag > 0, boxes(data, 2, layers)},
       {last.earlier.contiguous > 0, line(data, 3, 2, front, "contiguous front")},
       {farthest_lag(r) > 0, line(data, 3, 3, farthest, r.up ? "largest lag that some input creates" : "maximum lag")},
       {!r.bounds.empty() && r.bounds.back() > 0, line(data, 3, 4, bound, "claimed bound kL + π⌈log2 L⌉")},
       {beside, line(data, 3, 5, local, "window alone: kL")}});
  return text + (beside ? "unset multiplot\n" : "");
}

std::string several_mechanisms(const std::vector<ReachResult>& results, const std::string& data) {
  static constexpr const char* colors[] = {"#1f77b4", "#d95f02", "#1b7837", "#7b3294", "#c2185b", "#8c6d31", "#222222"};
  const ReachSequence& first = results.front().input.sequence;
  const bool alike = std::all_of(results.begin(), results.end(), [&](const ReachResult& r) {
    return r.input.sequence.tokens == first.tokens && r.input.sequence.layers == first.layers;
  });
  const std::size_t rows = (results.size() + 1) / 2;  // of the key: two columns fit
  const double height = 0.026 * static_cast<double>(rows);
  std::string text = fmt::format(
      "set title 'Contiguous front (solid) and largest lag (dashed){}' noenhanced\nset bmargin at screen {:.3f}\n"
      "set key at screen 0.5,{:.3f} center center vertical maxrows {}\n",
      alike ? fmt::format("; n = {} tokens, L = {} layers", first.tokens, first.layers) : "", 0.14 + height,
      0.015 + height / 2, rows);
  std::vector<PlotElement> elements;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const std::string color = colors[i % std::size(colors)];
    const ReachReport& r = results[i].report;
    const std::string resolution = r.resolution == 1 ? "" : fmt::format(" [{}]", resolution_text(r.resolution));
    const int index = static_cast<int>(2 * i + 1);
    const std::string keys =
        (results[i].cost ? fmt::format(", {:.0f} keys/token", results[i].cost->pairs_per_token) : "") +
        (alike ? "" : fmt::format(", n = {}", results[i].input.sequence.tokens));
    // Lines that coincide stay visible: later ones are thinner, and each has its own marks in its own layers.
    const double width = 2 + 3.0 * static_cast<double>(results.size() - 1 - i) / static_cast<double>(results.size());
    const auto style = [&](const char* dash) {
      return fmt::format("pt {} ps 1.2 pi {} lw {:.1f} {} lc rgb '{}'", i % 9 + 4,
                         results[i].input.sequence.layers / 8 + 1 + static_cast<int>(i % 3), width, dash, color);
    };
    elements.push_back({r.lo.layers.back().earlier.contiguous > 0,
                        marked_line(data, index, 2, style(""), results[i].input.name + resolution + keys)});
    elements.push_back({farthest_lag(r) > 0, marked_line(data, index, 3, style("dt (8,5)"), "")});
  }
  return text + plot(elements);
}

}  // namespace

void plot_reach(const std::vector<ReachResult>& results, const std::string& file) {
  const std::string data_file = file + ".dat";
  std::string data;
  bool beside = false;
  double largest = 1;
  int layers = 1;
  const auto reaches = [](const ReachResult& result) { return farthest_lag(result.report) > 0; };
  if (std::none_of(results.begin(), results.end(), reaches)) {
    throw std::invalid_argument(
        fmt::format("{} was not drawn (no earlier token is reached), use more tokens or a wider pattern", file));
  }
  for (const ReachResult& result : results) {
    const std::optional<ReachPattern> alone = window_alone(result.input.pattern);
    const auto window = alone ? std::optional(alone->primitives.front().left) : std::nullopt;
    if (results.size() == 1) {
      beside = alone.has_value();
      ReachResult local{result.input, result.report, {}, {}};
      if (alone) local.report = report_reach(*alone, result.input.sequence, ReachEngine::automatic);
      data += density_block(result.input, alone.value_or(result.input.pattern)) + lines_block(local, window);
      data += density_block(result.input, result.input.pattern);
    } else {
      data += fmt::format("# {}\n0 0\n\n\n", result.input.name);
    }
    data += lines_block(result, window);
    layers = std::max(layers, result.input.sequence.layers);
    largest = std::max(largest, static_cast<double>(result.report.lo.layers.back().earlier.max_lag));
    if (result.report.up) largest = std::max(largest, static_cast<double>(result.report.lo.earlier_tokens));
    if (!result.report.bounds.empty()) {
      largest = std::max(largest,
                         static_cast<double>(std::min(result.report.bounds.back(), result.report.lo.earlier_tokens)));
    }
  }
  write_file(data_file, data);
  const std::string script = heading(file, largest, layers, beside ? 2 : 1) +
                             (results.size() == 1 ? one_mechanism(results.front(), data_file, beside)
                                                  : several_mechanisms(results, data_file));
  draw(script, file, data_file);
}

}  // namespace orrery
