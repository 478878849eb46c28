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

std::string CsvWriter::line(const Fields& row) const {
  std::vector<std::string> cells(columns_.size());
  for (const auto& [key, value] : row) {
    const auto at = std::find(columns_.begin(), columns_.end(), key);
    if (at == columns_.end()) throw std::logic_error("'" + key + "' is not a column of " + path_);
    cells[static_cast<size_t>(at - columns_.begin())] = value;
  }
  std::string text;
  for (size_t i = 0; i < cells.size(); ++i) text += (i ? "," : "") + quote_csv(cells[i]);
  return text + '\n';
}

void CsvWriter::put(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0)
    throw std::runtime_error("cannot write " + path_ + " (is the disk full?)");
}

size_t CsvWriter::write(const Fields& row) {
  rows_.push_back(line(row));
  if (file_) {
    put(rows_.back());
  } else {
    open(path_);
  }
  return rows_.size() - 1;
}

void CsvWriter::replace(size_t number, const Fields& row) {
  rows_.at(number) = line(row);
  const std::string next = path_ + ".next";
  std::fclose(file_);
  open(next);
  if (std::rename(next.c_str(), path_.c_str()) != 0) throw std::runtime_error("cannot replace " + path_);
}

void CsvWriter::open(const std::string& path) {
  file_ = std::fopen(path.c_str(), "w");
  if (!file_) throw std::runtime_error("cannot write " + path + " (does its folder exist?)");
  std::string text;
  for (const auto& [key, value] : header_) text += "# " + key + " = " + value + '\n';
  for (size_t i = 0; i < columns_.size(); ++i) text += (i ? "," : "") + columns_[i];
  text += '\n';
  for (const std::string& row : rows_) text += row;
  put(text);
}

}  // namespace orrery
