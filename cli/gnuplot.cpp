#include "cli/gnuplot.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "cli/output_file.hpp"

namespace orrery {
namespace {

struct Terminal {
  const char* ending;
  const char* gnuplot;
};
constexpr Terminal terminals[] = {
    {".svg", "svg size 1200,720 font 'Helvetica,15' background rgb 'white'"},
    {".png", "pngcairo size 1200,720 font 'Sans,12'"},
    {".pdf", "pdfcairo size 12in,7.2in font 'Sans,13'"},
};

const Terminal* terminal_of(const std::string& file) {
  for (const Terminal& terminal : terminals) {
    if (file.ends_with(terminal.ending)) return &terminal;
  }
  return nullptr;
}

bool on_path(const char* program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}
}  // namespace

void check_plot(const std::string& file) {
  if (terminal_of(file) == nullptr) {
    throw std::invalid_argument(
        fmt::format("--plot {} has no known ending (it chooses the format), end it in .svg, .png or .pdf", file));
  }
  if (file.find('\n') != std::string::npos)
    throw std::invalid_argument("--plot: a line break cannot be in a file name");
  OutputFile picture(file), data(file + ".dat");  // opened, and left as they are
}

std::string gnuplot_terminal(const std::string& file) {
  return terminal_of(file)->gnuplot;
}

std::string in_quotes(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "''" : std::string(1, c);
  return result + "'";
}

void write_file(const std::string& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  out << text;
  out.close();
  if (!out) throw std::runtime_error(fmt::format("{}: cannot be written (does the folder exist?)", file));
}

void draw(const std::string& script, const std::string& file, const std::string& data) {
  if (!on_path("gnuplot")) {
    throw std::runtime_error(
        fmt::format("{} was not drawn (gnuplot is not installed; the data is in {}), install it, e.g. "
                    "apt-get install gnuplot-nox",
                    file, data));
  }
  std::signal(SIGPIPE, SIG_IGN);  // a gnuplot that dies early is an exit status, not our end
  std::FILE* gnuplot = ::popen("gnuplot", "w");
  if (gnuplot == nullptr)
    throw std::runtime_error(fmt::format("{} was not drawn (gnuplot could not be started)", file));
  std::fwrite(script.data(), 1, script.size(), gnuplot);
  if (::pclose(gnuplot) != 0) {
    throw std::runtime_error(
        fmt::format("{} was not drawn (gnuplot failed, see above; the data is in {})", file, data));
  }
}

}  // namespace orrery
