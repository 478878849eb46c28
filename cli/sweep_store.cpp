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
constexpr int format_version = 2;

const std::vector<std::string> first_columns = {"number", "status", "reason"};
const std::vector<std::string> columns_of_space = {"version", "cases", "space", "base", "columns"};

/// As the table space has them.
std::string listed(const std::vector<std::string>& columns) {
  return nlohmann::json(columns).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// A name as SQL wants it.
std::string in_sql(const std::string& name) {
  std::string text = "\"";
  for (const char c : name) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + "\"";
}

/// The text is read when the statement runs.
void bind_text(sqlite3_stmt* statement, int place, const std::string& text) {
  sqlite3_bind_text64(statement, place, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
}

void bind_value(sqlite3_stmt* statement, int place, const CaseValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) bind_text(statement, place, *text);
  if (const auto* real = std::get_if<double>(&value)) sqlite3_bind_double(statement, place, *real);
  if (const auto* whole = std::get_if<std::int64_t>(&value)) sqlite3_bind_int64(statement, place, *whole);
  if (const auto* boolean = std::get_if<bool>(&value)) sqlite3_bind_int(statement, place, *boolean ? 1 : 0);
}

void bind_scalar(sqlite3_stmt* statement, int place, const nlohmann::ordered_json& value) {
  if (value.is_string()) bind_text(statement, place, value.get_ref<const std::string&>());
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
  run("PRAGMA synchronous = NORMAL");
  run("PRAGMA journal_mode = WAL");
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
  if (id != "0") check_tables();
}

std::vector<std::string> SweepStore::columns_of(const std::string& table) const {
  std::vector<std::string> columns;
  const Statement info = prepare(fmt::format("SELECT name FROM pragma_table_info('{}')", table));
  while (step(info)) columns.push_back(text_at(info.get(), 0));
  return columns;
}

/// That nobody else has changed what the file holds.
void SweepStore::check_tables() {
  const auto damaged = [&](const std::string& how) {
    return std::runtime_error(fmt::format("{}: these results are damaged ({}), name another file", file_, how));
  };
  columns_ = columns_of("cases");
  for (const char* table : {"space", "cases"}) {
    if (columns_of(table).empty()) throw damaged(fmt::format("the table {} is missing", table));
  }
  if (columns_of("space") != columns_of_space) throw damaged("columns of the table space are missing or new");
  if (text_of("SELECT count(*) FROM space") != "1") throw damaged("the table space has not one row");
  if (text_of("SELECT columns FROM space") != listed(columns_)) {
    throw damaged("columns of the table cases are missing or new");
  }
  const std::string number = text_of(
      "SELECT number FROM cases WHERE number NOT BETWEEN 1 AND (SELECT cases FROM space) OR status NOT IN ('done', "
      "'impossible')");
  if (!number.empty()) throw damaged(fmt::format("case {} is none of the space", number));
}

/// A new file, or one of a program that was killed before it had made the tables.
bool SweepStore::is_empty() const {
  return text_of("PRAGMA application_id") == "0" && text_of("SELECT count(*) FROM sqlite_schema") == "0";
}

void SweepStore::create(const SweepIdentity& identity) {
  columns_ = first_columns;
  columns_.insert(columns_.end(), identity.paths.begin(), identity.paths.end());
  run("PRAGMA synchronous = OFF");  // nothing is lost yet
  run("PRAGMA journal_mode = WAL");
  run("BEGIN");
  run("CREATE TABLE space (version TEXT NOT NULL, cases INTEGER NOT NULL, space TEXT NOT NULL, base TEXT NOT NULL, "
      "columns TEXT NOT NULL)");
  make_cases();
  const std::string columns = listed(columns_);
  const Statement insert = prepare("INSERT INTO space VALUES (?, ?, ?, ?, ?)");
  bind_text(insert.get(), 1, identity.version);
  sqlite3_bind_int64(insert.get(), 2, identity.cases);
  bind_text(insert.get(), 3, identity.space);
  bind_text(insert.get(), 4, identity.base);
  bind_text(insert.get(), 5, columns);
  step(insert);
  run(fmt::format("PRAGMA application_id = {}", application_id));
  run(fmt::format("PRAGMA user_version = {}", format_version));
  run("COMMIT");
}

void SweepStore::make_cases() const {
  std::string others;
  for (std::size_t c = first_columns.size(); c < columns_.size(); ++c) others += ", " + in_sql(columns_[c]);
  run("CREATE TABLE cases (number INTEGER PRIMARY KEY, status TEXT NOT NULL, reason TEXT" + others + ")");
}

void SweepStore::check(const SweepIdentity& identity) const {
  const Statement row = prepare("SELECT version, space, base, cases FROM space");
  step(row);
  const std::string version = text_at(row.get(), 0);
  if (version != identity.version) {
    throw std::runtime_error(
        fmt::format("{}: these results are of orrery {} (this is {}; they cannot be mixed), name "
                    "another file",
                    file_, version, identity.version));
  }
  const char* other = text_at(row.get(), 1) != identity.space                ? "space"
                      : text_at(row.get(), 2) != identity.base               ? "base scenario"
                      : sqlite3_column_int64(row.get(), 3) != identity.cases ? "number of cases"
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

/// Results come in the same order each time.
std::size_t SweepStore::place_of(const std::string& column, std::size_t guess) const {
  if (guess < columns_.size() && columns_[guess] == column) return guess;
  return static_cast<std::size_t>(std::find(columns_.begin(), columns_.end(), column) - columns_.begin());
}

void SweepStore::add_columns(const std::vector<std::string>& missing) {
  const std::size_t before = columns_.size();
  columns_.insert(columns_.end(), missing.begin(), missing.end());
  run("BEGIN");
  if (text_of("SELECT count(*) FROM cases") == "0") {
    // One statement for all; one for each takes as long as several cases.
    run("DROP TABLE cases");
    make_cases();
  } else {
    for (std::size_t c = before; c < columns_.size(); ++c) run("ALTER TABLE cases ADD COLUMN " + in_sql(columns_[c]));
  }
  const std::string columns = listed(columns_);
  const Statement update = prepare("UPDATE space SET columns = ?");
  bind_text(update.get(), 1, columns);
  step(update);
  run("COMMIT");
  prepare_insert();
}

void SweepStore::prepare_insert() {
  std::string names, places;
  for (const std::string& column : columns_) {
    names += (names.empty() ? "" : ", ") + in_sql(column);
    places += places.empty() ? "?" : ", ?";
  }
  insert_ = prepare(fmt::format("INSERT INTO cases ({}) VALUES ({})", names, places));
}

void SweepStore::put(const CaseResult& result, const std::vector<CaseValue>& values) {
  const std::size_t before = first_columns.size() + values.size();
  std::vector<std::string> missing;
  std::size_t guess = before;
  for (const auto& scalar : result.scalars.items()) {
    if (place_of(scalar.key(), guess++) == columns_.size()) missing.push_back(scalar.key());
  }
  if (!missing.empty()) add_columns(missing);
  sqlite3_stmt* insert = insert_.get();
  const auto place = [](std::size_t column) { return static_cast<int>(column) + 1; };
  sqlite3_bind_int64(insert, 1, result.number);
  const std::string status = result.impossible.empty() ? "done" : "impossible";
  bind_text(insert, 2, status);
  if (!result.impossible.empty()) bind_text(insert, 3, result.impossible);
  for (std::size_t v = 0; v < values.size(); ++v) bind_value(insert, place(first_columns.size() + v), values[v]);
  guess = before;
  for (const auto& scalar : result.scalars.items())
    bind_scalar(insert, place(place_of(scalar.key(), guess++)), scalar.value());
  step(insert_);
  sqlite3_reset(insert);
  sqlite3_clear_bindings(insert);
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
