// A measured file: CSV with `# key = value` lines before the column names, as orrery bench writes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace orrery {

/// "FILE:LINE: problem (why), suggestion".
struct MeasuredFileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// true and false, also as Python and R write them; nothing if it is neither.
std::optional<bool> boolean_of(std::string_view cell);

class MeasuredTable {
 public:
  static MeasuredTable read(const std::filesystem::path& file);
  static MeasuredTable parse(std::string_view text, const std::filesystem::path& file);

  const std::filesystem::path& file() const { return file_; }
  std::size_t rows() const { return cells_.size(); }
  bool has(std::string_view column) const;
  /// Of the header; empty if absent.
  std::string header(std::string_view key) const;
  const std::map<std::string, std::string>& headers() const { return headers_; }
  const std::vector<std::string>& columns() const { return columns_; }

  /// Empty if there is no such column or nothing in it.
  const std::string& text(std::size_t row, std::string_view column) const;
  std::optional<double> optional_number(std::size_t row, std::string_view column) const;
  double number(std::size_t row, std::string_view column) const;
  double positive(std::size_t row, std::string_view column) const;
  /// From 1 to `most`.
  std::int64_t whole_number(std::size_t row, std::string_view column, std::int64_t most) const;
  /// Whether the row holds a time (`ok`, or no status at all). Throws for a status that nobody writes.
  bool is_ok(std::size_t row) const;
  bool boolean(std::size_t row, std::string_view column) const;
  /// False if the cell is empty.
  bool optional_boolean(std::size_t row, std::string_view column) const;
  MeasuredFileError error(std::size_t row, std::string_view message) const;
  /// "FILE:LINE"
  std::string place(std::size_t row) const;

 private:
  /// What to write into a cell that a row needs.
  std::string empty_cell(std::string_view column, std::string_view wanted) const;

  std::filesystem::path file_;
  std::map<std::string, std::string> headers_;
  std::vector<std::string> columns_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::vector<std::vector<std::string>> cells_;
  std::vector<int> lines_;
};

}  // namespace orrery
