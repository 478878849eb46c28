#include "cli/sweep_store.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <ostream>
#include <stdexcept>
#include <utility>

#include "cli/csv_cell.hpp"

namespace orrery {
namespace {

constexpr int application_id = 0x4f525259;  // "ORRY", in the header of the file
constexpr int format_version = 1;

/// A name as SQL wants it.
std::string quoted(const std::string& name) {
  std::string text = "\"";
  for (const char c : name) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + "\"";
}

void bind_text(sqlite3_stmt* statement, int place, const std::string& text) {
  sqlite3_bind_text64(statement, place, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

void bind_value(sqlite3_stmt* statement, int place, const CaseValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) bind_text(statement, place, *text);
  if (const auto* real = std::get_if<double>(&value)) sqlite3_bind_double(statement, place, *real);
  if (const auto* whole = std::get_if<std::int64_t>(&value)) sqlite3_bind_int64(statement, place, *whole);
  if (const auto* boolean = std::get_if<bool>(&value)) sqlite3_bind_int(statement, place, *boolean ? 1 : 0);
}

void bind_scalar(sqlite3_stmt* statement, int place, const nlohmann::ordered_json& value) {
  if (value.is_string()) bind_text(statement, place, value.get<std::string>());
  if (value.is_boolean()) sqlite3_bind_int(statement, place, value.get<bool>() ? 1 : 0);
  if (value.is_number_float()) sqlite3_bind_double(statement, place, value.get<double>());
  if (value.is_number_integer()) sqlite3_bind_int64(statement, place, value.get<std::int64_t>());
}

std::string text_at(sqlite3_stmt* statement, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return text != nullptr ? text : "";
}

}  // namespace

void SweepStore::CloseDatabase::operator()(sqlite3* database) const {
  sqlite3_close_v2(database);
}
void SweepStore::FinishStatement::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

SweepStore::SweepStore(std::string file, const SweepIdentity& identity) : file_(std::move(file)) {
  open(true);
  if (is_empty()) create(identity);
  check(identity);
  // The log is written before a case counts as stored; it survives the process, and a power cut costs its end at most.
  run("PRAGMA journal_mode = WAL");
  run("PRAGMA synchronous = NORMAL");
  prepare_insert();
}

SweepStore::SweepStore(std::string file) : file_(std::move(file)) {
  if (!std::filesystem::exists(file_)) {
    throw std::runtime_error(
        fmt::format("{}: there is no such file (nothing can be exported), name a SPACE to run", file_));
  }
  open(false);
}

void SweepStore::open(bool make) {
  sqlite3* database = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | (make ? SQLITE_OPEN_CREATE : 0);
  const int status = sqlite3_open_v2(file_.c_str(), &database, flags, nullptr);
  database_.reset(database);
  if (status != SQLITE_OK) fail();
  // One process at a time; then a write-ahead log also works on network file systems, which cannot share memory.
  run("PRAGMA locking_mode = EXCLUSIVE");
  const std::string id = text_of("PRAGMA application_id");
  if (id != std::to_string(application_id) && !(make && is_empty())) {
    throw std::runtime_error(
        fmt::format("{}: this is a database of another program (it would be changed), name another file", file_));
  }
  if (id != "0" && text_of("PRAGMA user_version") != std::to_string(format_version)) {
    throw std::runtime_error(fmt::format("{}: these results have format {} (this program writes {}), name another file",
                                         file_, text_of("PRAGMA user_version"), format_version));
  }
  const Statement info = prepare("SELECT name FROM pragma_table_info('cases')");
  while (step(info)) columns_.push_back(text_at(info.get(), 0));
}

/// A new file, or one of a program that was killed before it had made the tables.
bool SweepStore::is_empty() const {
  return text_of("PRAGMA application_id") == "0" && text_of("SELECT count(*) FROM sqlite_schema") == "0";
}

void SweepStore::create(const SweepIdentity& identity) {
  columns_ = {"number", "status", "reason"};
  columns_.insert(columns_.end(), identity.paths.begin(), identity.paths.end());
  std::string keys;
  for (const std::string& path : identity.paths) keys += ", " + quoted(path);
  run("BEGIN");
  run("CREATE TABLE space (version TEXT NOT NULL, cases INTEGER NOT NULL, space TEXT NOT NULL, base TEXT NOT NULL)");
  run("CREATE TABLE cases (number INTEGER PRIMARY KEY, status TEXT NOT NULL, reason TEXT" + keys + ")");
  const Statement insert = prepare("INSERT INTO space VALUES (?, ?, ?, ?)");
  bind_text(insert.get(), 1, identity.version);
  sqlite3_bind_int64(insert.get(), 2, identity.cases);
  bind_text(insert.get(), 3, identity.space);
  bind_text(insert.get(), 4, identity.base);
  step(insert);
  run(fmt::format("PRAGMA application_id = {}", application_id));
  run(fmt::format("PRAGMA user_version = {}", format_version));
  run("COMMIT");
}

void SweepStore::check(const SweepIdentity& identity) const {
  const Statement row = prepare("SELECT version, space, base FROM space");
  if (!step(row)) throw std::runtime_error(fmt::format("{}: the table space is empty, name another file", file_));
  const std::string version = text_at(row.get(), 0);
  if (version != identity.version) {
    throw std::runtime_error(
        fmt::format("{}: these results are of orrery {} (this is {}; they cannot be mixed), name "
                    "another file",
                    file_, version, identity.version));
  }
  const char* other = text_at(row.get(), 1) != identity.space  ? "space"
                      : text_at(row.get(), 2) != identity.base ? "base scenario"
                                                               : nullptr;
  if (other == nullptr) return;
  throw std::runtime_error(fmt::format(
      "{}: these results are of another {} (its text differs from today's), name another file", file_, other));
}

std::vector<bool> SweepStore::stored() const {
  std::vector<bool> stored(std::stoul(text_of("SELECT cases FROM space")));
  const Statement numbers = prepare("SELECT number FROM cases");
  while (step(numbers)) {
    const std::int64_t number = sqlite3_column_int64(numbers.get(), 0);
    if (number >= 1 && number <= static_cast<std::int64_t>(stored.size()))
      stored[static_cast<std::size_t>(number - 1)] = true;
  }
  return stored;
}

void SweepStore::add_columns(const nlohmann::ordered_json& scalars) {
  std::vector<std::string> missing;
  for (const auto& [key, value] : scalars.items()) {
    if (std::find(columns_.begin(), columns_.end(), key) == columns_.end()) missing.push_back(key);
  }
  if (missing.empty()) return;
  run("BEGIN");
  for (const std::string& key : missing) run("ALTER TABLE cases ADD COLUMN " + quoted(key));
  run("COMMIT");
  columns_.insert(columns_.end(), missing.begin(), missing.end());
  prepare_insert();
}

void SweepStore::prepare_insert() {
  std::string names, places;
  for (const std::string& column : columns_) {
    names += (names.empty() ? "" : ", ") + quoted(column);
    places += places.empty() ? "?" : ", ?";
  }
  insert_ = prepare(fmt::format("INSERT INTO cases ({}) VALUES ({})", names, places));
}

void SweepStore::put(const CaseResult& result, const std::vector<CaseValue>& values) {
  add_columns(result.scalars);
  sqlite3_reset(insert_.get());
  sqlite3_clear_bindings(insert_.get());
  sqlite3_bind_int64(insert_.get(), 1, result.number);
  bind_text(insert_.get(), 2, result.impossible.empty() ? "done" : "impossible");
  if (!result.impossible.empty()) bind_text(insert_.get(), 3, result.impossible);
  constexpr int before = 3;
  for (std::size_t v = 0; v < values.size(); ++v)
    bind_value(insert_.get(), static_cast<int>(v) + before + 1, values[v]);
  for (const auto& [key, value] : result.scalars.items()) {
    const auto column = std::find(columns_.begin(), columns_.end(), key);
    bind_scalar(insert_.get(), static_cast<int>(column - columns_.begin()) + 1, value);
  }
  step(insert_);
}

void SweepStore::close() {
  insert_.reset();
  run("PRAGMA journal_mode = DELETE");
  database_.reset();
}

SweepStore::Counts SweepStore::counts() const {
  return {std::stoll(text_of("SELECT count(*) FROM cases WHERE status = 'done'")),
          std::stoll(text_of("SELECT count(*) FROM cases WHERE status = 'impossible'")),
          text_of("SELECT reason FROM cases WHERE status = 'impossible' ORDER BY number LIMIT 1")};
}

void SweepStore::write_csv(std::ostream& out) const {
  std::string line;
  for (const std::string& column : columns_) line += (line.empty() ? "" : ",") + csv_cell(column);
  out << line << '\n';
  const Statement rows = prepare("SELECT * FROM cases ORDER BY number");
  while (step(rows)) {
    line.clear();
    for (int c = 0; c < sqlite3_column_count(rows.get()); ++c) {
      if (c > 0) line += ',';
      // Digits of a double as everywhere else, the fewest that say which one it is.
      if (sqlite3_column_type(rows.get(), c) == SQLITE_FLOAT) {
        line += fmt::format("{}", sqlite3_column_double(rows.get(), c));
      } else {
        line += csv_cell(text_at(rows.get(), c));
      }
    }
    out << line << '\n';
  }
}

void SweepStore::run(const std::string& sql) const {
  if (sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

SweepStore::Statement SweepStore::prepare(const std::string& sql) const {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database_.get(), sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) fail();
  return Statement(statement);
}

/// Whether there is a row.
bool SweepStore::step(const Statement& statement) const {
  const int status = sqlite3_step(statement.get());
  if (status != SQLITE_ROW && status != SQLITE_DONE) fail();
  return status == SQLITE_ROW;
}

/// The first value of the first row.
std::string SweepStore::text_of(const std::string& sql) const {
  const Statement statement = prepare(sql);
  return step(statement) ? text_at(statement.get(), 0) : "";
}

void SweepStore::fail() const {
  const int status = sqlite3_errcode(database_.get()) & 0xff;
  const char* why = sqlite3_errmsg(database_.get());
  switch (status) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      throw std::runtime_error(fmt::format("{}: this is no file of results ({}), name another file", file_, why));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw std::runtime_error(
          fmt::format("{}: another program has this file open ({}), wait for it or name another file", file_, why));
    case SQLITE_FULL:
    case SQLITE_IOERR:
      throw std::runtime_error(
          fmt::format("{}: could not be written ({}{}), what is stored stays: make room and repeat the command", file_,
                      why, status == SQLITE_FULL ? "" : "; is the disk full?"));
    default:
      throw std::runtime_error(
          fmt::format("{}: cannot be written ({}), check the folder and its permissions", file_, why));
  }
}

}  // namespace orrery
