// orrery sweep as a user runs it: the same bytes from any number of threads and processes, nothing lost, and what it
// says when something is wrong.
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/progress_bar.hpp"
#include "cli/sweep_store.hpp"
#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;
namespace fs = std::filesystem;

namespace {

const std::string scenarios = std::string(ORRERY_SOURCE_DIR) + "/scenarios";

/// 24 cases, 8 of which cannot be built: 3 ranks do not divide the tokens.
std::string small_space() {
  return "base = \"" + scenarios + "/examples/llama3_8b_128k_zigzag_h200.toml\"\n" +
         "[grid]\nworkload.tokens = {from = \"8K\", to = \"64K\", factor = 2}\nparallelism.ranks = [2, 3, 4]\n"
         "workload.pass = [\"forward\", \"training_step\"]\n";
}

/// Reasons name the space by its path, which differs between tests.
std::string without_folder(std::string text, const fs::path& folder) {
  const std::string name = folder.string() + "/";
  for (std::size_t at = text.find(name); at != text.npos; at = text.find(name)) text.erase(at, name.size());
  return text;
}

std::vector<std::vector<std::string>> cells(const std::string& csv) {
  std::vector<std::vector<std::string>> rows(1, {""});
  bool quoted = false;
  for (const char c : csv) {
    if (c == '"') quoted = !quoted;
    if (!quoted && c == ',') {
      rows.back().emplace_back();
    } else if (!quoted && c == '\n') {
      rows.push_back({""});
    } else {
      rows.back().back() += c;
    }
  }
  rows.pop_back();
  return rows;
}

/// As another program might.
void change(const std::string& results, const std::string& sql) {
  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open(results.c_str(), &database) == SQLITE_OK);
  CHECK(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(database);
}

/// A folder with the space in it, and the command that runs it.
struct Sweep {
  ScratchFolder folder;
  std::string space = folder.write("space.toml", small_space()).string();
  std::string results = (folder.path() / "r.sqlite").string(), csv = (folder.path() / "r.csv").string();

  std::string command(const std::string& more = "") const { return "sweep " + space + " -o " + results + " " + more; }
  std::string table() const { return without_folder(read_file(csv), folder.path()); }
};

const std::string& expected_table() {
  static const std::string table = [] {
    const Sweep sweep;
    run_program(sweep.command("--threads 1 --csv " + sweep.csv));
    return sweep.table();
  }();
  return table;
}

}  // namespace

TEST_CASE("sweep: a case of every example says what simulate says of it") {
  for (const auto& entry : fs::directory_iterator(scenarios + "/examples")) {
    const std::string example = entry.path().string();
    INFO(example);
    const ScratchFolder folder;
    const std::string out = (folder.path() / "r").string();
    const std::string space =
        folder.write("space.toml", "base = \"" + example + "\"\n[grid]\ndescription = [\"as it is\"]\n").string();
    REQUIRE(run_program("sweep " + space + " -o " + out + ".sqlite --csv " + out + ".csv").exit_code == 0);
    auto swept = cells(read_file(out + ".csv")),
         simulated = cells(run_program("simulate --format csv " + example).output);
    REQUIRE(swept.size() == 2);
    CHECK(std::vector<std::string>(swept[1].begin(), swept[1].begin() + 4) ==
          std::vector<std::string>{"1", "done", "", "as it is"});
    swept[0].erase(swept[0].begin(), swept[0].begin() + 4);  // number, status, reason, description
    swept[1].erase(swept[1].begin(), swept[1].begin() + 4);
    simulated[0].pop_back();  // wall_s
    simulated[1].pop_back();
    REQUIRE(swept[0] == simulated[0]);
    for (std::size_t c = 0; c < swept[1].size(); ++c) {
      INFO(swept[0][c]);
      const std::string& found = swept[1][c];
      const std::string& expected = simulated[1][c];
      if (expected == "true" || expected == "false") {
        CHECK(found == (expected == "true" ? "1" : "0"));
      } else if (found != expected) {  // 5e-06 and 5e-6, 1.0 and 1
        CHECK(std::stod(found) == std::stod(expected));
      }
    }
  }
}

TEST_CASE("sweep: cases that contradict themselves are stored with the reason and do not stop the others") {
  const auto rows = cells(expected_table());
  REQUIRE(rows.size() == 1 + 4 * 3 * 2);
  for (std::size_t r = 1; r < rows.size(); ++r) {
    CHECK(rows[r][0] == std::to_string(r));
    const bool divides = rows[r][4] != "3";
    CHECK(rows[r][1] == (divides ? "done" : "impossible"));
    if (!divides) CHECK_THAT(rows[r][2], ContainsSubstring("space.toml:4:25: "));
  }
}

TEST_CASE("sweep: any number of threads gives the same bytes") {
  for (const char* threads : {"1", "2", "5"}) {
    const Sweep sweep;
    const ProgramRun run = run_program(sweep.command("--csv " + sweep.csv + " --threads " + threads));
    CHECK(run.exit_code == 0);
    CHECK(run.error.empty());
    CHECK_THAT(run.output, ContainsSubstring("24 cases = 4 workload.tokens x 3 parallelism.ranks x 2 workload.pass"));
    CHECK_THAT(run.output, ContainsSubstring("16 cases are done, 8 are impossible"));
    CHECK(sweep.table() == expected_table());
    CHECK(std::distance(fs::directory_iterator(sweep.folder.path()), fs::directory_iterator()) == 3);
  }
}

TEST_CASE("sweep: a finished file can be exported again without its space") {
  const Sweep sweep;
  run_program(sweep.command());
  const ProgramRun run = run_program("sweep -o " + sweep.results + " --csv " + sweep.csv);
  CHECK(run.exit_code == 0);
  CHECK(sweep.table() == expected_table());
}

TEST_CASE("sweep: four MPI processes give the bytes of one") {
  const std::string mpirun = ORRERY_MPIRUN;
  if (mpirun.empty()) {
    WARN("skipped: built without MPI");
    return;
  }
  // Open MPI refuses root and more processes than cores unless told; others ignore these.
  const std::string environment =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 ";
  const fs::path program = environment + mpirun + " -n 4 " + ORRERY_PROGRAM;
  const Sweep sweep;
  const ProgramRun run = run_program(sweep.command("--csv " + sweep.csv), program);
  INFO(run.error);
  CHECK(run.exit_code == 0);
  CHECK(std::count(run.output.begin(), run.output.end(), '\n') == 2);  // one of them speaks
  CHECK(sweep.table() == expected_table());

  const ProgramRun wrong = run_program("sweep /nowhere.toml -o " + sweep.results, program);
  CHECK(wrong.exit_code == 2);
  CHECK_THAT(wrong.error, ContainsSubstring("orrery: /nowhere.toml: there is no such file"));
  const ProgramRun full = run_program("sweep " + sweep.space + " -o /dev/full", program);
  CHECK(full.exit_code == 2);
}

TEST_CASE("sweep: killed at any moment it goes on where it was") {
  for (const int milliseconds : {1, 20, 60, 120}) {
    INFO(milliseconds);
    const Sweep sweep;
    const pid_t child = fork();
    if (child == 0) {
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, 1);
      ::dup2(null, 2);
      ::execl(ORRERY_PROGRAM, ORRERY_PROGRAM, "sweep", sweep.space.c_str(), "-o", sweep.results.c_str(), nullptr);
      ::_exit(127);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    const ProgramRun run = run_program(sweep.command("--csv " + sweep.csv));
    CHECK(run.exit_code == 0);
    CHECK(sweep.table() == expected_table());
  }
}

TEST_CASE("sweep: what is stored is there after kill -9 of the process that stored it") {
  const ScratchFolder folder;
  const std::string file = (folder.path() / "r.sqlite").string();
  const SweepIdentity identity{"space", "base", "1", 1000, {"a.b"}};
  const auto put = [](SweepStore& store, std::int64_t number) {
    store.put({number, number % 2 == 0 ? "why" : "", number % 2 == 0 ? nullptr : nlohmann::ordered_json{{"x_s", 0.5}}},
              {CaseValue(number)});
  };
  for (const std::int64_t count : {0, 1, 100}) {
    INFO(count);
    fs::remove(file);
    const pid_t child = fork();
    if (child == 0) {
      SweepStore store(file, identity);
      for (std::int64_t n = 1; n <= count; ++n) put(store, n);
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    SweepStore store(file, identity);
    const std::vector<bool> stored = store.stored();
    CHECK(stored.size() == 1000);
    CHECK(std::count(stored.begin(), stored.end(), true) == count);
    CHECK(store.counts().impossible == count / 2);
    for (std::int64_t n = 0; n < count; ++n) CHECK(stored[static_cast<std::size_t>(n)]);
  }
}

TEST_CASE("sweep: values of every type come back as they went in") {
  const ScratchFolder folder;
  SweepStore store((folder.path() / "r.sqlite").string(), {"s", "b", "1", 3, {"whole", "real", "yes", "text"}});
  store.put({2, "a \"reason\"", nullptr}, {std::int64_t{1} << 52, 0.1, true, std::string("1,5\n")});
  store.put({1, "", {{"time_s", 1e-9}, {"nothing", nullptr}}}, {std::int64_t{-1}, 1.0, false, std::string()});
  std::ostringstream csv;
  store.write_csv(csv);
  CHECK(csv.str() ==
        "number,status,reason,whole,real,yes,text,time_s,nothing\n"
        "1,done,,-1,1,0,,1e-09,\n"
        "2,impossible,\"a \"\"reason\"\"\",4503599627370496,0.1,1,\"1,5\n\",,\n");
}

TEST_CASE("sweep: a full disk is one sentence and what is stored stays") {
  // Blocks of 512 or 1024 bytes; the database and its log need more.
  for (const int blocks : {8, 40, 100}) {
    INFO(blocks);
    const Sweep sweep;
    const fs::path limited = "ulimit -f " + std::to_string(blocks) + "; " + ORRERY_PROGRAM;
    const ProgramRun run = run_program(sweep.command(), limited);
    CHECK(run.exit_code == 2);
    CHECK_THAT(run.error, ContainsSubstring("is the disk full?"));
    CHECK(std::count(run.error.begin(), run.error.end(), '\n') == 1);
    CHECK(run_program(sweep.command("--csv " + sweep.csv)).exit_code == 0);
    CHECK(sweep.table() == expected_table());
  }
}

TEST_CASE("sweep: a file of something else is refused and left as it is") {
  const Sweep sweep;
  run_program(sweep.command());
  const std::string finished = read_file(sweep.results);
  struct Row {
    std::string content, words;
  };
  std::string noise(5000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i * i * 7 + 1);
  std::string damaged = finished;
  for (std::size_t i = 4096; i < damaged.size(); i += 3) damaged[i] = static_cast<char>(~damaged[i]);
  std::string foreign = finished;
  foreign[68] = 'X';  // the application id, bytes 68 to 71 of an SQLite header
  std::string future = finished;
  future[63] = 3;  // the user version, bytes 60 to 63
  for (const Row& row : {Row{noise, "is no file of results"}, Row{damaged, "is no file of results"},
                         Row{small_space(), "is no file of results"}, Row{foreign, "database of another program"},
                         Row{future, "these results have format 3"}}) {
    const std::string file = sweep.folder.write("other.sqlite", row.content).string();
    check_refused("sweep " + sweep.space + " -o " + file, row.words);
    check_refused("sweep -o " + file + " --csv " + sweep.csv, row.words);
    CHECK((read_file(file) == row.content));  // not printed if it is not
    CHECK(!fs::exists(sweep.csv));
  }
}

TEST_CASE("sweep: results that somebody has changed are refused, and left as they are") {
  const Sweep sweep;
  run_program(sweep.command());
  const std::string finished = read_file(sweep.results);
  struct Row {
    std::string sql, words;
  };
  for (const Row& row :
       {Row{"DROP TABLE cases", "the table cases is missing"}, Row{"DROP TABLE space", "the table space is missing"},
        Row{"DELETE FROM space", "the table space has not one row"},
        Row{"ALTER TABLE space DROP COLUMN base", "columns of the table space are missing or new"},
        Row{"ALTER TABLE cases DROP COLUMN step_time_s", "columns of the table cases are missing or new"},
        Row{"ALTER TABLE cases ADD COLUMN mine", "columns of the table cases are missing or new"},
        Row{"UPDATE cases SET number = number + 100", "case 101 is none of the space"},
        Row{"UPDATE cases SET status = 'maybe' WHERE number = 3", "case 3 is none of the space"}}) {
    INFO(row.sql);
    std::ofstream(sweep.results, std::ios::binary) << finished;
    change(sweep.results, row.sql);
    const std::string changed = read_file(sweep.results);
    check_refused(sweep.command(), row.words);
    check_refused("sweep -o " + sweep.results + " --csv " + sweep.csv, row.words);
    CHECK((read_file(sweep.results) == changed));
    CHECK(!fs::exists(sweep.csv));
  }
}

TEST_CASE("sweep: results of another space or base or version are refused and left as they are") {
  const Sweep sweep;
  run_program(sweep.command());
  const std::string finished = read_file(sweep.results);
  const std::string other = sweep.folder.write("other.toml", small_space() + "workload.batch = [1]\n").string();
  check_refused("sweep " + other + " -o " + sweep.results, "these results are of another space");
  CHECK((read_file(sweep.results) == finished));

  const std::string file = (sweep.folder.path() / "s.sqlite").string();
  SweepStore(file, {"space", "base", "1.0", 1, {}});
  const auto refusal = [&](const SweepIdentity& identity) -> std::string {
    try {
      SweepStore(file, identity);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refusal({"space", "base", "1.0", 1, {}}).empty());
  CHECK_THAT(refusal({"space", "base", "1.1", 1, {}}),
             ContainsSubstring("these results are of orrery 1.0 (this is 1.1"));
  CHECK_THAT(refusal({"space", "bass", "1.0", 1, {}}), ContainsSubstring("another base scenario"));
}

TEST_CASE("sweep: two at once on one file are refused") {
  const Sweep sweep;
  SweepStore store(sweep.results, {"s", "b", "1", 1, {}});
  check_refused(sweep.command(), "another program has this file open");
}

TEST_CASE("sweep: what is mistyped is said before anything is written") {
  const Sweep sweep;
  const auto space = [&](const std::string& text) { return "sweep " + sweep.folder.write("s.toml", text).string(); };
  const std::string out = " -o " + sweep.results;
  check_refused("sweep " + sweep.space, "--output is required");
  check_refused("sweep" + out, "nothing to do");
  check_refused("sweep " + sweep.space + " -o ''", "--output is empty");
  check_refused(sweep.command("--csv " + sweep.folder.path().string()), "name a file");
  check_refused("sweep" + out + " --csv " + sweep.csv, "there is no such file");
  check_refused(sweep.command("--threads 0"), "--threads");
  check_refused("sweep nowhere.toml" + out, "there is no such file");
  check_refused(space(small_space() + "workload.tokns = [1]\n") + out,
                "s.toml:6:10: unknown key \"tokns\" in [workload]; did you mean \"tokens\"?");
  check_refused(space("\xff") + out, "not UTF-8");
  check_refused("sweep " + sweep.space + " -o " + sweep.folder.path().string(), "unable to open");
  check_refused("sweep " + sweep.space + " -o /nowhere/r.sqlite", "unable to open");
  check_refused("sweep " + sweep.space + " -o /dev/null", "/dev/null: is no plain file");
  CHECK(!fs::exists(sweep.results));
}

TEST_CASE("sweep: the progress bar says share and count and rate and remaining time") {
  // 60 of the 80 were done in 30 s: 2/s, and the other 120 take 60 s.
  CHECK(progress_line(80, 20, 200, 30) == "[############                  ]  40 %  80/200  2/s  1:00 left");
  CHECK(progress_line(20, 20, 200, 30) == "[###                           ]  10 %  20/200");
  CHECK_THAT(progress_line(1, 0, 7201, 1), ContainsSubstring("2:00:00 left"));
}

TEST_CASE("sweep: a CSV that would overwrite the space or the results is refused") {
  const Sweep sweep;
  run_program(sweep.command());
  for (const std::string& file : {sweep.space, sweep.results}) {
    const std::string before = read_file(file);
    check_refused(sweep.command("--csv " + file), "names an input");
    CHECK(read_file(file) == before);
  }
  check_refused(sweep.command("--csv /nowhere/r.csv"), "does the folder exist");
}
