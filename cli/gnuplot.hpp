// Pictures by gnuplot: a data file, and a script that goes to gnuplot through a pipe.
#pragma once

#include <string>

namespace orrery {

/// Throws std::invalid_argument unless the name ends in .svg, .png or .pdf, which chooses the format, and
/// std::runtime_error if FILE or its data FILE.dat cannot be written. Call it before the work is begun.
void check_plot(const std::string& file);

/// For `set terminal`, by the ending of the file's name.
std::string gnuplot_terminal(const std::string& file);

/// In single quotes gnuplot reads nothing but two quotes.
std::string in_quotes(const std::string& text);

void write_file(const std::string& file, const std::string& text);

/// Throws std::runtime_error naming the data file if gnuplot is not there or fails.
void draw(const std::string& script, const std::string& file, const std::string& data);

}  // namespace orrery
