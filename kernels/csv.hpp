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

  // Fields in any order; a missing column is left empty, an unknown one is an error.
  void write(const Fields& row);

 private:
  std::string path_;
  Fields header_;
  std::vector<std::string> columns_;
  std::FILE* file_ = nullptr;
};

}  // namespace orrery
