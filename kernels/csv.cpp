#include "kernels/csv.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace orrery {

std::string format_number(double value) {
  if (std::isnan(value)) return "";
  char text[64];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string format_count(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.0f", value);
  return text;
}

std::string quote_csv(const std::string& s) {
  if (s.find_first_of(",\"\n\r") == std::string::npos) return s;
  std::string out = "\"";
  for (char c : s) {
    if (c == '"') out += '"';
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out + "\"";
}

CsvWriter::CsvWriter(std::string path, Fields header, std::vector<std::string> columns)
    : path_(std::move(path)), header_(std::move(header)), columns_(std::move(columns)) {}

CsvWriter::~CsvWriter() {
  if (file_) std::fclose(file_);
}

void CsvWriter::write(const Fields& row) {
  std::vector<std::string> cells(columns_.size());
  for (const auto& [key, value] : row) {
    const auto at = std::find(columns_.begin(), columns_.end(), key);
    if (at == columns_.end()) throw std::logic_error("'" + key + "' is not a column of " + path_);
    cells[static_cast<size_t>(at - columns_.begin())] = value;
  }
  if (!file_) {
    file_ = std::fopen(path_.c_str(), "w");
    if (!file_) throw std::runtime_error("cannot write " + path_ + " (does its folder exist?)");
    for (const auto& [key, value] : header_) std::fprintf(file_, "# %s = %s\n", key.c_str(), value.c_str());
    for (size_t i = 0; i < columns_.size(); ++i) std::fprintf(file_, "%s%s", i ? "," : "", columns_[i].c_str());
    std::fputc('\n', file_);
  }
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i ? "," : "") + quote_csv(cells[i]);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), file_);
  std::fflush(file_);
}

}  // namespace orrery
