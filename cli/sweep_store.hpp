// The results of a sweep: one SQLite file, which holds every stored case whatever happens to the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/sweep_case.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace orrery {

/// What a file of results must agree with to be continued.
struct SweepIdentity {
  std::string space, base;  // texts
  std::string version;      // of the program
  std::int64_t cases = 0;
  std::vector<std::string> paths;
};

/// Nobody else can open the file meanwhile. Everything throws std::runtime_error in one sentence, and leaves what is
/// stored.
class SweepStore {
 public:
  /// Opens the file, or makes it. Refuses a file of another space, base or version, what is no file of results, and
  /// results that somebody has changed.
  SweepStore(std::string file, const SweepIdentity& identity);
  /// Opens a file that is there, to export it.
  explicit SweepStore(std::string file);

  /// By case number - 1.
  std::vector<bool> stored() const;
  /// Returns when the case will survive the end of the process.
  void put(const CaseResult& result, const std::vector<CaseValue>& values);
  /// Leaves a single plain file.
  void close();

  struct Counts {
    std::int64_t done = 0, impossible = 0;
    std::string first_reason;
  };
  Counts counts() const;
  /// Rows in the order of their numbers: number, status, reason, the keys that vary, the results.
  void write_csv(std::ostream& out) const;

 private:
  struct CloseDatabase {
    void operator()(sqlite3* database) const;
  };
  struct FinishStatement {
    void operator()(sqlite3_stmt* statement) const;
  };
  using Statement = std::unique_ptr<sqlite3_stmt, FinishStatement>;

  void open(bool make);
  bool is_empty() const;
  void create(const SweepIdentity& identity);
  void check(const SweepIdentity& identity) const;
  std::vector<std::string> columns_of(const std::string& table) const;
  void check_tables();
  void make_cases() const;
  std::size_t place_of(const std::string& column, std::size_t guess) const;  // columns_.size(): it is new
  void add_columns(const std::vector<std::string>& missing);
  void prepare_insert();
  void run(const std::string& sql) const;
  Statement prepare(const std::string& sql) const;
  bool step(const Statement& statement) const;
  std::string text_of(const std::string& sql) const;
  [[noreturn]] void fail() const;

  std::string file_;
  std::unique_ptr<sqlite3, CloseDatabase> database_;
  std::vector<std::string> columns_;  // of the table cases, in order
  Statement insert_;
};

}  // namespace orrery
