#include "scenarios/reader.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <random>

#include "scenarios/nearest.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

namespace orrery {
namespace {

Table read(std::string_view text) {
  return Table::parse(text, "f.toml");
}

/// The message of what happens when `ask` asks a file for something.
template <class Ask>
std::string complaint(std::string_view text, Ask ask) {
  return message_of([&] { ask(read(text)); });
}

TEST_CASE("every type is read as it is written") {
  const Table t = read(R"(
name = "ring"
on = true
half = 0.5
whole = 2
tokens = 4096
context = "1M"
batch = "4e6"
latency = "1.5 us"
memory = "80 GiB"
link = "450 GB/s"
peak = "989.4 TFLOP/s"
board = "700 W"
sizes = [1, "2K", "1e6"]
shares = [0.5, 1]
names = ["a", "b"]
[below.deeper]
x = 1
[[runs]]
x = 1
[[runs]]
x = 2
)");
  CHECK(t.string("name") == "ring");
  CHECK(t.boolean("on"));
  CHECK(t.number("half") == 0.5);
  CHECK(t.number("whole") == 2);
  CHECK(t.count("tokens") == 4096);
  CHECK(t.count("context") == 1 << 20);
  CHECK(t.count("batch") == 4'000'000);
  CHECK(t.seconds("latency") == parse_seconds("1.5 us"));
  CHECK(t.bytes("memory") == Bytes::from_si(80.0 * (1 << 30)));
  CHECK(t.bandwidth("link") == parse_bandwidth("450 GB/s"));
  CHECK(t.flop_rate("peak") == parse_flop_rate("989.4 TFLOP/s"));
  CHECK(t.power("board") == Watts::from_si(700));
  CHECK(t.choice("name", {"all_gather", "ring"}) == "ring");
  CHECK(t.counts("sizes") == std::vector<std::int64_t>{1, 2048, 1'000'000});
  CHECK(t.numbers("shares") == std::vector<double>{0.5, 1});
  CHECK(t.strings("names") == std::vector<std::string>{"a", "b"});
  CHECK(t.table("below").table("deeper").count("x") == 1);
  REQUIRE(t.tables("runs").size() == 2);
  CHECK(t.tables("runs")[0].count("x") == 1);
  CHECK(t.tables("runs")[1].count("x") == 2);
  CHECK(t.tables("runs")[1].name() == "[[runs]] #2");
  CHECK(t.table("below").table("deeper").name() == "[below.deeper]");
  CHECK_NOTHROW(t.finish());
}

TEST_CASE("an absent key gives nothing, never a default") {
  const Table t = read("x = 1\n");
  CHECK(t.optional_count("x") == 1);
  CHECK_FALSE(t.has("y"));
  CHECK_FALSE(t.optional_count("y").has_value());
  CHECK_FALSE(t.optional_string("y").has_value());
  CHECK_FALSE(t.optional_number("y").has_value());
  CHECK_FALSE(t.optional_boolean("y").has_value());
  CHECK_FALSE(t.optional_flop_rate("y").has_value());
  CHECK_FALSE(t.optional_power("y").has_value());
  CHECK_FALSE(t.optional_table("y").has_value());
}

TEST_CASE("a present optional key is as strict as a required one") {
  CHECK(complaint("x = true\n", [](const Table& t) { t.optional_count("x"); }) ==
        "f.toml:1:5: x in the top level is a boolean (true), expected a count, e.g. 4096, \"1M\" (2^20) or \"1e6\"");
}

TEST_CASE("a key may take several types, told apart before it is read") {
  const Table t = read("a = \"all\"\nb = [1]\n[c]\n");
  CHECK(t.is_string("a"));
  CHECK(t.is_table("c"));
  CHECK_FALSE(t.is_string("b"));
  CHECK_FALSE(t.is_table("absent"));
}

TEST_CASE("the keys of a table of free names come in the order of the file") {
  CHECK(read("zeta = 1\nalpha = 2\nmu = 3\n").keys() == std::vector<std::string>{"zeta", "alpha", "mu"});
}

TEST_CASE("a quantity without a unit is an error at its position") {
  CHECK(complaint("\n\nhbm_bandwidth = \"4.8\"\n", [](const Table& t) { t.bandwidth("hbm_bandwidth"); }) ==
        "f.toml:3:17: hbm_bandwidth = \"4.8\" has no unit (a bandwidth needs one); write e.g. \"450 GB/s\"");
  CHECK(complaint("latency = 5\n", [](const Table& t) { t.seconds("latency"); }) ==
        "f.toml:1:11: latency has no unit (a time needs one), write it as a string in quotes with its unit");
}

TEST_CASE("a unit of something else is an error") {
  CHECK_THAT(complaint("x = \"4 GB\"", [](const Table& t) { t.bandwidth("x"); }),
             ContainsSubstring("f.toml:1:5: x = \"4 GB\": \"GB\" is not a unit of a bandwidth"));
}

TEST_CASE("an unknown key is an error that names the nearest known one") {
  const auto ask = [](const Table& t) {
    t.table("workload").optional_count("tokens");
    t.finish();
  };
  CHECK(complaint("[workload]\ntokns = 3\n", ask) ==
        "f.toml:2:1: unknown key \"tokns\" in [workload]; did you mean \"tokens\"?");
  CHECK(complaint("[workload]\nzzz = 3\n", ask) == "f.toml:2:1: unknown key \"zzz\" in [workload]; known keys: tokens");
  CHECK(complaint("[workload]\n[extra]\n", ask) ==
        "f.toml:2:2: unknown key \"extra\" in the top level; known keys: workload");
}

TEST_CASE("a mistyped required key is reported where it stands, not as missing") {
  CHECK(complaint("[workload]\ntokns = 3\n", [](const Table& t) { t.table("workload").count("tokens"); }) ==
        "f.toml:2:1: unknown key \"tokns\" in [workload]; did you mean \"tokens\"?");
  CHECK(complaint("[node]\ngpu = 3\n", [](const Table& t) { t.table("node").count("gpus"); }) ==
        "f.toml:2:1: unknown key \"gpu\" in [node]; did you mean \"gpus\"?");
  CHECK_THAT(complaint("tp = 3\n", [](const Table& t) { t.count("dp"); }), ContainsSubstring("missing key \"dp\""));
}

TEST_CASE("of several unknown keys the first in the file is reported") {
  CHECK_THAT(complaint("zz = 1\naa = 2\n", [](const Table& t) { t.finish(); }),
             ContainsSubstring("f.toml:1:1: unknown key \"zz\""));
}

TEST_CASE("unknown keys are found in every table that was read") {
  CHECK(complaint("[[runs]]\nx = 1\n[[runs]]\ny = 1\n", [](const Table& t) {
          for (const Table& run : t.tables("runs")) run.has("x");
          t.finish();
        }) == "f.toml:4:1: unknown key \"y\" in [[runs]] #2; known keys: x");
}

TEST_CASE("a missing key names the key, the table and where the table is") {
  CHECK(complaint("a = 1\n[workload]\nx = 1\n", [](const Table& t) { t.table("workload").count("tokens"); }) ==
        "f.toml:2:1: missing key \"tokens\" in [workload] (it has no default), add it");
}

TEST_CASE("a wrong type says what was found and what is expected") {
  CHECK(complaint("x = 5", [](const Table& t) { t.string("x"); }) ==
        "f.toml:1:5: x in the top level is an integer (5), expected a string in quotes");
  CHECK(complaint("x = [1]", [](const Table& t) { t.boolean("x"); }) ==
        "f.toml:1:5: x in the top level is a list, expected true or false");
  CHECK(complaint("x = \"y\"", [](const Table& t) { t.number("x"); }) ==
        "f.toml:1:5: x in the top level is a string (\"y\"), expected a number, e.g. 0.5");
  CHECK_THAT(complaint("x = 1e6", [](const Table& t) { t.count("x"); }),
             ContainsSubstring("is a float (1000000), expected a count"));
  CHECK(complaint("x = 1", [](const Table& t) { t.table("x"); }) ==
        "f.toml:1:5: x in the top level is an integer (1), expected a table, under [x]");
  CHECK(complaint("x = [1, 2]", [](const Table& t) { t.tables("x"); }) ==
        "f.toml:1:6: x in the top level is an integer (1), expected a list of tables, each under [[x]]");
  CHECK(complaint("x = [1,\n true]", [](const Table& t) { t.counts("x"); }) ==
        "f.toml:2:2: x in the top level is a boolean (true), expected a list of counts, e.g. [4096, \"1M\"]");
  CHECK_THAT(complaint("x = 1", [](const Table& t) { t.strings("x"); }),
             ContainsSubstring("expected a list of strings"));
  CHECK_THAT(complaint("x = 2020-01-01", [](const Table& t) { t.numbers("x"); }), ContainsSubstring("is a date"));
}

TEST_CASE("a count is whole, not negative and below 2^53") {
  const auto count = [](const Table& t) { t.count("x"); };
  CHECK(complaint("x = -1", count) == "f.toml:1:5: x = -1 is negative (it is a count), write 0 or more");
  CHECK_THAT(complaint("x = 9007199254740992", count),
             ContainsSubstring("x = 9007199254740992 is out of range (2^53 or more)"));
  CHECK(read("x = 9007199254740991").count("x") == (std::int64_t{1} << 53) - 1);
  CHECK_THAT(complaint("x = 9223372036854775808", count), ContainsSubstring("f.toml:1:"));
  CHECK_THAT(complaint("x = \"1.5\"", count),
             ContainsSubstring("f.toml:1:5: x = \"1.5\" is not a count (it is not a whole number)"));
  CHECK_THAT(complaint("x = \"-1K\"", count), ContainsSubstring("it is negative"));
}

TEST_CASE("a number is finite") {
  for (const char* text : {"inf", "-inf", "nan"}) {
    CHECK(complaint(fmt::format("x = {}", text), [](const Table& t) { t.number("x"); }) ==
          fmt::format("f.toml:1:5: x = {} is not a finite number, write e.g. 0.5", text));
  }
}

TEST_CASE("a string with a NUL character is not a value") {
  CHECK(complaint("x = \"a\\u0000\"", [](const Table& t) { t.string("x"); }) ==
        "f.toml:1:5: x is a string with a NUL character, fill it in");
  CHECK_THAT(complaint("x = \"1\\u0000\"", [](const Table& t) { t.count("x"); }), ContainsSubstring("NUL"));
  CHECK_THAT(complaint("x = [\"1\\u0000\"]", [](const Table& t) { t.strings("x"); }),
             ContainsSubstring("f.toml:1:6: x: this is"));
}

TEST_CASE("an empty string is not a value") {
  CHECK(complaint("x = \"\"", [](const Table& t) { t.string("x"); }) == "f.toml:1:5: x is an empty string, fill it in");
  CHECK(complaint("x = \"\"", [](const Table& t) { t.count("x"); }) == "f.toml:1:5: x is an empty string, fill it in");
}

TEST_CASE("a choice that is none names the nearest and all") {
  CHECK(complaint("x = \"al_gather\"", [](const Table& t) {
          t.choice("x", {"ring", "all_gather"});
        }) == "f.toml:1:5: x = \"al_gather\" is not a choice, did you mean \"all_gather\"? (known: ring, all_gather)");
  CHECK_THAT(complaint("x = \"BF16\"",
                       [](const Table& t) {
                         t.choice("x", {"fp32", "bf16"});
                       }),
             ContainsSubstring("did you mean \"bf16\"?"));
}

TEST_CASE("callers report their own findings at the position of a key") {
  const Table t = read("a = 1\n[b]\nc = 2\n");
  CHECK(std::string(t.table("b").error_at("c", "c is odd").what()) == "f.toml:3:5: c is odd");
  CHECK(std::string(t.table("b").error_at("absent", "no").what()) == "f.toml:2:1: no");
  CHECK(std::string(t.table("b").error_here("no").what()) == "f.toml:2:1: no");
}

TEST_CASE("a message is one line whatever the file holds") {
  const std::string message = complaint("x = \"a\\nb\\u001bc\"", [](const Table& t) { t.count("x"); });
  CHECK_THAT(message, ContainsSubstring("x = \"a b c\" is not a count"));
  CHECK(message.find('\n') == std::string::npos);
}

TEST_CASE("syntax errors and duplicate keys come in the same form") {
  CHECK_THAT(complaint("a = 1\nb = = 2\n", [](const Table&) {}),
             ContainsSubstring("f.toml:2:5: this is not valid TOML ("));
  CHECK_THAT(complaint("a = 1\na = 2\n", [](const Table&) {}), ContainsSubstring("f.toml:2:5: a key is given twice ("));
  CHECK_THAT(complaint("[!]\n", [](const Table&) {}), ContainsSubstring("f.toml:1:2: this is not valid TOML ("));
  CHECK_THAT(complaint("[a]\n[a]\n", [](const Table&) {}), ContainsSubstring("a key is given twice ("));
}

TEST_CASE("nesting as deep as one likes is refused, not followed") {
  const auto repeated = [](std::string_view text, int times) {
    std::string result;
    for (int i = 0; i < times; ++i) result += text;
    return result;
  };
  const auto nothing = [](const Table&) {};
  constexpr int many = 200'000;
  CHECK_THAT(complaint("a" + repeated(".a", many) + " = 1", nothing),
             ContainsSubstring("nested too deep (more than 32 dots)"));
  CHECK_THAT(complaint("[a" + repeated(" . \"a\"", many) + "]", nothing), ContainsSubstring("nested too deep"));
  CHECK_THAT(complaint("a = " + repeated("[", many), nothing), ContainsSubstring("not valid TOML"));
  CHECK_THAT(complaint("a = " + repeated("{a = ", many), nothing), ContainsSubstring("not valid TOML"));
}

TEST_CASE("dots in texts, comments and lists of numbers are not nesting") {
  std::string dots(100, '.');
  std::string numbers = "0.5";
  for (int i = 0; i < 100; ++i) numbers += ", 0.5";
  CHECK_NOTHROW(read(fmt::format(
      "a = \"{0}\" # {0}\nb = '{0}'\nc = \"\"\"{0}\n\"{0}\"\"\"\nd = [{1}]\ne = \"\\\"{0}\"\n", dots, numbers)));
}

TEST_CASE("a file that is not a text with something in it is refused before it is parsed") {
  const ScratchFolder folder;
  const auto complaint_about = [&](std::string_view contents) {
    const auto file = folder.write("x.toml", contents);
    const std::string message = message_of([&] { Table::parse_file(file); });
    return message.substr(std::min(message.size(), file.string().size()));
  };
  CHECK(complaint_about("") == ": the file is empty");
  CHECK(complaint_about("# only\n\n# comments\n") ==
        ":1:1: the file is empty (comments and blank lines aside), fill it in");
  CHECK(complaint_about(std::string_view("a = 1\0", 6)) ==
        ": this is not a TOML file (it holds bytes that are not UTF-8 text)");
  for (const char* bytes : {"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    CHECK(complaint_about(bytes) == ": this is not a TOML file (it holds bytes that are not UTF-8 text)");
  }
  CHECK_NOTHROW(Table::parse_file(folder.write("x.toml", "a = \"\xc3\xa9 \xe2\x82\xac \xf0\x9f\xaa\x90\"\n")));
  CHECK_THAT(message_of([&] { Table::parse_file(folder.path()); }), ContainsSubstring("this is a directory"));
  CHECK_THAT(message_of([&] { Table::parse_file(folder.path() / "absent.toml"); }),
             ContainsSubstring("absent.toml: there is no such file"));
}

TEST_CASE("a file beyond 8 MiB is refused by its size, also where the size is not known") {
  const ScratchFolder folder;
  const auto file = folder.write("big.toml", "a = 1\n");
  std::filesystem::resize_file(file, largest_input_file + 1);
  CHECK_THAT(message_of([&] { Table::parse_file(file); }), ContainsSubstring("larger than 8 MiB"));
  CHECK_THAT(message_of([&] { Table::parse_file("/dev/zero"); }), ContainsSubstring("larger than 8 MiB"));
}

TEST_CASE("no prefix and no random change of a file makes the reader do anything but read or complain") {
  const std::string good =
      "name = \"x\"\n[a.b]\nc = [1, 2.5, \"3 GB\"]\nd = {e = true, f = 'g'}\n[[h]]\ni = \"\"\"j\n\"\"\"\n";
  const auto survives = [](const std::string& text) {
    try {
      const Table t = read(text);
      for (const std::string& key : t.keys()) message_of([&] { t.count(key); });
      t.finish();
    } catch (const InputError&) {
    }
    return true;
  };
  for (std::size_t length = 0; length <= good.size(); ++length) CHECK(survives(good.substr(0, length)));
  std::mt19937 random(1);
  bool all = true;
  for (int i = 0; i < 5000; ++i) {
    std::string text = good;
    for (unsigned changes = random() % 4; changes-- > 0;)
      text[random() % text.size()] = static_cast<char>(random() % 128);
    all = all && survives(text);
  }
  CHECK(all);
}

TEST_CASE("the edit distance counts a swap of neighbours as one") {
  CHECK(edit_distance("tokens", "tokens") == 0);
  CHECK(edit_distance("tokns", "tokens") == 1);
  CHECK(edit_distance("toknes", "tokens") == 1);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  const std::vector<std::string> names = {"ring", "all_gather"};
  CHECK(nearest("rnig", names) == "ring");
  CHECK_FALSE(nearest("ulysses", names).has_value());
  const std::vector<std::string> gpus = {"a100_40_sxm", "a100_80_sxm", "h100_sxm", "h200"};
  CHECK(nearest("A100", gpus) == "a100_40_sxm");  // the beginning of a name
  CHECK(nearest("h100", gpus) == "h200");         // a slip of a letter is nearer than what is left out
  CHECK_FALSE(nearest("h", gpus).has_value());
  CHECK(suggest("ulysses", names) == "known: ring, all_gather");
}

/// Sets an environment variable for one test.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST_CASE("ORRERY_DATA decides where the data files are, and must be a folder") {
  const ScratchFolder folder;
  folder.write("hardware/mine.toml", "a = 1\n");
  {
    const Environment data("ORRERY_DATA", folder.path().string());
    CHECK(data_directory() == folder.path());
    CHECK(known_names("hardware") == std::vector<std::string>{"mine"});
    CHECK(resolve("mine", "hardware") == folder.path() / "hardware/mine.toml");
  }
  const Environment data("ORRERY_DATA", (folder.path() / "absent").string());
  CHECK_THAT(message_of([] { data_directory(); }), ContainsSubstring("(which is not a directory)"));
}

TEST_CASE("a name is looked up among the data files, a path beside the file that mentions it") {
  CHECK(resolve("h200_sxm", "hardware") == data_directory() / "hardware/h200_sxm.toml");
  CHECK(resolve("mine.toml", "hardware", "/somewhere/scenario.toml") == "/somewhere/mine.toml");
  CHECK(resolve("../config.json", "models", "/somewhere/scenario.toml") == "/somewhere/../config.json");
  CHECK(resolve("/else/mine.toml", "hardware", "/somewhere/scenario.toml") == "/else/mine.toml");
  CHECK(resolve("mine.toml", "hardware") == "mine.toml");
}

TEST_CASE("an unknown name lists the nearest and all") {
  const std::string message = message_of([] { resolve("h200_sxn", "hardware"); });
  CHECK_THAT(message, ContainsSubstring(
                          "there is no \"h200_sxn\" in hardware, did you mean \"h200_sxm\"? (known: a100_40_pcie, "));
}

}  // namespace
}  // namespace orrery
