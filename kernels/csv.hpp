// The CSV files of the bench: `# key = value` lines, one line of column names, then rows. Every row is flushed as it
// comes, so that a crash or Ctrl-C keeps what was measured.
#pragma once
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace orrery {

using Fields = std::vector<std::pair<std::string, std::string>>;

std::string format_number(double value);      // 6 significant digits, no trailing zeros; empty for NaN
std::string format_count(double value);       // all digits: bytes and operations are exact
std::string quote_csv(const std::string& s);  // quotes only where RFC 4180 asks for them

class CsvWriter {
 public:
  // Opens on the first row, so a group without rows leaves no file.
  CsvWriter(std::string path, Fields header, std::vector<std::string> columns);
  ~CsvWriter();
  CsvWriter(const CsvWriter&) = delete;
  CsvWriter& operator=(const CsvWriter&) = delete;

  // Fields in any order; a missing column is left empty, an unknown one is an error. Returns the number of the row.
  size_t write(const Fields& row);
  // Row `number` says something new, e.g. with more samples. The file is replaced whole by a rename, so that a crash
  // leaves the old one or the new one.
  void replace(size_t number, const Fields& row);

 private:
  std::string line(const Fields& row) const;
  void open(const std::string& path);  // with all rows so far
  void put(const std::string& text);

  std::string path_;
  Fields header_;
  std::vector<std::string> columns_;
  std::vector<std::string> rows_;
  std::FILE* file_ = nullptr;
};

}  // namespace orrery
