// The space of a sweep: which cases there are, which values they have, and what is wrong with a space.
#include <set>

#include "scenarios/scenario.hpp"
#include "scenarios/sweep_space.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"

namespace orrery {
namespace {

const std::string base = std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama3_8b_128k_zigzag_h200.toml";

SweepSpace space_of(const std::string& axes) {
  SweepText text{"s.toml", base, "base = \"" + base + "\"\n" + axes, read_text_file(base, "TOML")};
  return SweepSpace(std::move(text));
}

std::vector<std::int64_t> wholes(const SweepSpace& space, std::size_t key) {
  std::vector<std::int64_t> values;
  for (std::int64_t n = 1; n <= space.cases(); ++n) values.push_back(std::get<std::int64_t>(space.values(n)[key]));
  return values;
}

/// The message of a space whose second line on is `axes`, with what check() finds.
std::string complaint(const std::string& axes) {
  return message_of([&] { space_of(axes).check(); });
}

TEST_CASE("the cases of a grid are the product of its lists and the last one varies fastest") {
  const SweepSpace space = space_of("[grid]\nworkload.tokens = [1024, 2048]\nparallelism.ranks = [1, 2, 4]\n");
  CHECK(space.cases() == 2 * 3);
  CHECK(space.paths() == std::vector<std::string>{"workload.tokens", "parallelism.ranks"});
  CHECK(wholes(space, 0) == std::vector<std::int64_t>{1024, 1024, 1024, 2048, 2048, 2048});
  CHECK(wholes(space, 1) == std::vector<std::int64_t>{1, 2, 4, 1, 2, 4});
}

TEST_CASE("axes are in the order of the file however their keys are written") {
  const SweepSpace space =
      space_of("[grid]\n\"workload.tokens\" = [1]\n[grid.attention]\ncausal = [true]\n[grid.cluster]\ngpu = [\"a\"]\n");
  CHECK(space.paths() == std::vector<std::string>{"workload.tokens", "attention.causal", "cluster.gpu"});
}

TEST_CASE("a range holds from times factor^i or from plus i times step up to its end") {
  const auto range = [](const std::string& text) { return wholes(space_of("[grid]\nworkload.tokens = " + text), 0); };
  CHECK(range("{from = \"8K\", to = \"64K\", factor = 2}") == std::vector<std::int64_t>{8192, 16384, 32768, 65536});
  CHECK(range("{from = 3, to = 26, factor = 3}") == std::vector<std::int64_t>{3, 9});
  CHECK(range("{from = 1, to = 7, step = 3}") == std::vector<std::int64_t>{1, 4, 7});
  CHECK(range("{from = 1, to = 6, step = 3}") == std::vector<std::int64_t>{1, 4});
  // Powers that round to the same whole number come once.
  CHECK(range("{from = 1, to = 4, factor = 1.25}") == std::vector<std::int64_t>{1, 2, 3, 4});
  const SweepSpace units =
      space_of("[grid]\ncluster.uplink_latency = {from = \"1 us\", to = \"2 us\", step = \"0.5 us\"}\n");
  CHECK(units.cases() == 3);
  CHECK(units.values(2) == std::vector<CaseValue>{std::string("1.5 us")});
  CHECK(units.values(3) == std::vector<CaseValue>{std::string("2 us")});
  const SweepSpace tenths = space_of("[grid]\ncluster.oversubscription = {from = 1, to = 2, step = 0.1}\n");
  CHECK(tenths.cases() == 11);
  CHECK(tenths.values(4) == std::vector<CaseValue>{1.3});
}

TEST_CASE("keys under together vary side by side") {
  const SweepSpace space = space_of(
      "[grid]\nworkload.batch = [1, 2]\n[[together]]\nparallelism.ranks = [2, 4, 8]\nworkload.tokens = [20, 40, 80]\n");
  CHECK(space.cases() == 2 * 3);
  for (std::int64_t n = 1; n <= space.cases(); ++n) {
    CHECK(wholes(space, 2)[static_cast<std::size_t>(n - 1)] == 10 * wholes(space, 1)[static_cast<std::size_t>(n - 1)]);
  }
}

TEST_CASE("every random sample lies between its ends and on a multiple and both ends are reached") {
  const SweepSpace space = space_of(
      "[random]\nsamples = 400\nseed = 7\nworkload.tokens = {uniform = [8, 20], multiple_of = 4}\n"
      "workload.batch = {log = [1, 4]}\ncluster.oversubscription = {uniform = [1.0, 2]}\n"
      "cluster.uplink_latency = {log = [\"1 us\", \"100 us\"]}\nparallelism.layout = {choice = [\"zigzag\", "
      "\"striped\"]}\n");
  REQUIRE(space.cases() == 400);
  std::set<std::int64_t> tokens, batches;
  std::set<std::string> layouts;
  int below_ten = 0;
  for (std::int64_t n = 1; n <= space.cases(); ++n) {
    const std::vector<CaseValue> v = space.values(n);
    tokens.insert(std::get<std::int64_t>(v[0]));
    batches.insert(std::get<std::int64_t>(v[1]));
    CHECK(std::get<double>(v[2]) >= 1);
    CHECK(std::get<double>(v[2]) <= 2);
    const Seconds latency = parse_seconds(std::get<std::string>(v[3]));
    CHECK(latency >= parse_seconds("0.9999 us"));
    CHECK(latency <= parse_seconds("100.1 us"));
    below_ten += latency < parse_seconds("10 us") ? 1 : 0;
    layouts.insert(std::get<std::string>(v[4]));
  }
  CHECK(tokens == std::set<std::int64_t>{8, 12, 16, 20});
  CHECK(batches == std::set<std::int64_t>{1, 2, 3, 4});
  CHECK(layouts.size() == 2);
  // Half of a log-uniform draw is below the geometric mean: 5 standard deviations of a binomial of 400.
  CHECK(std::abs(below_ten - 200) < 50);
}

TEST_CASE("a draw depends on seed and key and sample and on nothing else") {
  const std::string tokens = "workload.tokens = {uniform = [1, 1000000]}\n";
  const auto draws = [&](const std::string& head, const std::string& more, std::size_t key) {
    return wholes(space_of("[random]\n" + head + more + tokens), key);
  };
  const std::vector<std::int64_t> ten = draws("samples = 10\nseed = 1\n", "", 0);
  const std::vector<std::int64_t> twenty = draws("samples = 20\nseed = 1\n", "", 0);
  CHECK(std::equal(ten.begin(), ten.end(), twenty.begin()));
  CHECK(ten == draws("samples = 10\nseed = 1\n", "workload.batch = {uniform = [1, 9]}\n", 1));
  CHECK(ten != draws("samples = 10\nseed = 2\n", "", 0));
  CHECK(std::set<std::int64_t>(ten.begin(), ten.end()).size() > 1);
}

TEST_CASE("a grid with random samples runs the same samples at each of its points") {
  const SweepSpace space = space_of(
      "[grid]\nworkload.batch = [1, 2]\n[random]\nsamples = 5\nseed = 1\nworkload.tokens = {uniform = [1, 1000]}\n");
  const std::vector<std::int64_t> tokens = wholes(space, 1);
  REQUIRE(tokens.size() == 10);
  CHECK(std::equal(tokens.begin(), tokens.begin() + 5, tokens.begin() + 5));
}

TEST_CASE("a case is the base with its values in place") {
  const SweepSpace space = space_of(
      "[grid]\nworkload.tokens = [\"64K\"]\nworkload.layers = [3]\nattention.pattern.1.kind = [\"full\"]\n"
      "parallelism.ranks = [4]\n");
  space.check();
  const Scenario expected = load_scenario(base), found = read_scenario(space.scenario(1));
  CHECK(found.tokens == 65536);
  CHECK(found.layers == 3);  // a key that the base has not
  CHECK(found.ranks() == 4);
  CHECK(found.implementation.name == expected.implementation.name);
  CHECK(found.name == expected.name);
}

TEST_CASE("a whole list can vary as well as a key of one of its entries") {
  SweepText text{"s.toml", std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama2_7b_1m_pi_count1.toml", "", ""};
  text.base = read_text_file(text.base_file, "TOML");
  text.space = "base = \"b\"\n[grid]\nattention.pattern = [[{kind = \"window\", left = 64}]]\n";
  CHECK(read_scenario(SweepSpace(text).scenario(1)).primitives.size() == 1);
  text.space = "base = \"b\"\n[grid]\nattention.pattern.1.left = [77]\n";
  const Scenario scenario = read_scenario(SweepSpace(text).scenario(1));
  CHECK(scenario.primitives.size() > 1);
  CHECK(scenario.primitives.front().left == 77);
}

TEST_CASE("the base can stand in the space itself and messages about it say where") {
  std::string inside = read_text_file(base, "TOML");
  for (const std::string table : {"workload", "attention", "parallelism", "cluster"})
    inside.replace(inside.find("[" + table + "]"), table.size() + 2, "[base." + table + "]");
  const std::size_t begin = inside.find("description");
  inside.insert(begin, "[base]\n");
  const SweepText text{"s.toml", {}, inside + "[grid]\nworkload.tokens = [\"64K\"]\n", ""};
  const SweepSpace space(text);
  space.check();
  CHECK(read_scenario(space.scenario(1)).tokens == 65536);
  SweepText wrong = text;
  wrong.space.replace(wrong.space.find("dtype"), 5, "dtipe");
  CHECK_THAT(message_of([&] { read_scenario(SweepSpace(wrong).scenario(1)); }),
             ContainsSubstring("unknown key \"dtipe\" in [base.workload]; did you mean \"dtype\"?"));
}

TEST_CASE("a mistyped key is found before the start with its place and the nearest key") {
  CHECK(complaint("[grid]\nworkload.tokns = [1, 2]\n") ==
        "s.toml:3:10: unknown key \"tokns\" in [workload]; did you mean \"tokens\"?");
  CHECK_THAT(complaint("[grid]\nworklod.tokens = [1]\n"), ContainsSubstring("did you mean \"workload\"?"));
  CHECK_THAT(complaint("[random]\nsamples = 3\nseed = 1\nworkload.tokns = {log = [\"1K\", \"4K\"]}\n"),
             ContainsSubstring("s.toml:5:10: unknown key"));
  CHECK_THAT(complaint("[grid]\nworkload.tokens.size = [1]\n"), ContainsSubstring("tokens in [workload] is no table"));
  CHECK_THAT(complaint("[grid]\nattention.pattern.2.left = [1]\n"),
             ContainsSubstring("attention.pattern is a list of 1"));
  CHECK_THAT(complaint("[grid]\nattention.pattern.left = [1]\n"),
             ContainsSubstring("attention.pattern is a list of 1"));
}

TEST_CASE("a key that only some cases ask for is known") {
  const std::string double_ring =
      "[[together]]\nparallelism.schedule = [\"ring\", \"double_ring\"]\nparallelism.implementation = [\"ideal\", "
      "\"ideal\"]\n";
  CHECK(complaint(double_ring + "[grid]\nparallelism.inner_ring = [2, 4]\n") == "no error");
}

TEST_CASE("a case that contradicts itself says so at its value and does not stop the others") {
  const SweepSpace space = space_of("[grid]\nparallelism.ranks = [8, 3]\nworkload.tokens = [4096]\n");
  space.check();
  read_scenario(space.scenario(1));
  CHECK_THAT(message_of([&] { read_scenario(space.scenario(2)); }),
             ContainsSubstring("s.toml:3:25: 4096 tokens do not divide"));
}

TEST_CASE("cases that name the same files read them once and a profile again for each GPU") {
  NamedFiles files;
  int reads = 0;
  const auto read = [&] { return ++reads; };
  CHECK(files.get({"profiles", "a", "one GPU"}, read) == 1);
  CHECK(files.get({"profiles", "a", "one GPU"}, read) == 1);
  CHECK(files.get({"profiles", "a", "another"}, read) == 2);
  CHECK(files.get({"hardware", "a", "one GPU"}, read) == 3);
  CHECK(files.get({"profiles", "a", "one GPU"}, [] { return std::string("of another type"); }) == "of another type");
  CHECK_THROWS(files.get({"profiles", "b", ""}, []() -> int { throw InputError("not found"); }));
  CHECK(files.get({"profiles", "b", ""}, read) == 4);

  const SweepSpace space = space_of(
      "[grid]\ncluster.gpu = [\"h200_sxm\", \"h100_sxm\", \"h200_sxm\"]\ncluster.profile = [\"h200_sxm\", \"peak\"]\n");
  const auto gpu_and_profile = [&](std::int64_t number) {
    const Scenario s = read_scenario(space.scenario(number));
    return s.gpu.name + " " + s.profile.name;
  };
  for (const std::int64_t first : {1, 5}) {
    CHECK(gpu_and_profile(first) == "h200_sxm h200_sxm");
    CHECK(gpu_and_profile(first + 1) == "h200_sxm peak");
  }
  CHECK(message_of([&] { gpu_and_profile(3); }).find("this profile is of a h200_sxm") != std::string::npos);
  CHECK(gpu_and_profile(4) == "h100_sxm peak");
}

TEST_CASE("a mistake of the base is found before the start") {
  SweepText text{"s.toml", "b.toml", "base = \"b.toml\"\n[grid]\nworkload.tokens = [4096, 8192]\n",
                 read_text_file(base, "TOML")};
  text.base.replace(text.base.find("bf16"), 4, "bf61");
  CHECK_THAT(message_of([&] { SweepSpace(text).check(); }), ContainsSubstring("dtype = \"bf61\" is not a choice"));
}

TEST_CASE("a mistake of the base comes before keys that no case gets to for it") {
  SweepText text{"s.toml", "b.toml", "base = \"b.toml\"\n[grid]\nparallelism.ranks = [4, 8]\n",
                 read_text_file(base, "TOML")};
  const std::size_t description = text.base.find("description");
  text.base.erase(description, text.base.find('\n', description) - description);
  CHECK_THAT(message_of([&] { SweepSpace(text).check(); }), ContainsSubstring("missing key \"description\""));
}

TEST_CASE("what is wrong with a space is said in one sentence with its place") {
  struct Row {
    const char* axes;
    const char* message;
  };
  for (const Row& row : {
           Row{"", "nothing varies"},
           Row{"[grd]\nworkload.tokens = [1]\n",
               "s.toml:2:2: unknown key \"grd\" in the top level; did you mean \"grid\"?"},
           Row{"[grid]\nworkload.tokens = 5\n", "s.toml:3:19: workload.tokens is neither a list nor a range"},
           Row{"[grid]\nworkload.tokens = []\n", "s.toml:3:19: the list is empty"},
           Row{"[grid]\nworkload.tokens = [1979-01-01]\n", "s.toml:3:20: a date is no value"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 8}\n", "neither a factor nor a step"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 8, factr = 2}\n",
               "unknown key \"factr\" in a range; did you mean \"factor\"?"},
           Row{"[grid]\nworkload.tokens = {from = 8, to = 1, factor = 2}\n", "from is more than to"},
           Row{"[grid]\nworkload.tokens = {from = 0, to = 1, factor = 2}\n", "begins above 0"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 2, factor = 1}\n", "a factor above 1"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 2, step = 0}\n", "the step is not above 0"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 1e12, step = 1}\n", "a million values"},
           Row{"[grid]\nworkload.tokens = {from = \"x\", to = 1, step = 1}\n", "from is no number"},
           Row{"[grid]\nworkload.tokens = {from = nan, to = 1, step = 1}\n", "from is no number"},
           Row{"[grid]\nworkload.tokens = {from = \"1 us\", to = \"1 ms\", factor = 10}\n", "different units"},
           Row{"[grid]\nworkload.tokens = [1]\n[[together]]\nworkload.tokens = [1]\n",
               "s.toml:5:10: workload.tokens varies twice"},
           Row{"[[together]]\nworkload.tokens = [1, 2]\nworkload.batch = [1]\n", "vary side by side"},
           Row{"[[together]]\n", "names no key"},
           Row{"together = 1\n", "expected a list of tables"},
           Row{"grid = 1\n", "expected a table"},
           Row{"[random]\nsamples = 0\nseed = 1\nworkload.tokens = {uniform = [1, 2]}\n", "samples = 0 draws nothing"},
           Row{"[random]\nsamples = 9\nworkload.tokens = {uniform = [1, 2]}\n", "missing key \"seed\""},
           Row{"[random]\nsamples = 9\nseed = 1\n", "names no key"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = [1, 2]\n", "is no distribution"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = {uniform = [1]}\n", "a range has two ends"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = {uniform = [2, 1]}\n", "nothing lies between"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = {log = [0, 1]}\n", "a log range begins above 0"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = {choice = 1}\n", "expected a list"},
           Row{"[random]\nsamples = 9\nseed = 1\nworkload.tokens = {log = [1.5, 2], multiple_of = 2}\n",
               "multiple_of is for whole"},
           Row{"[grid]\nworkload.tokens = {from = 1, to = 99999, step = 1}\nworkload.batch = {from = 1, to = 99999, "
               "step = 1}\n",
               "the space is too large"},
       }) {
    INFO(row.axes);
    const std::string message = complaint(row.axes);
    CHECK_THAT(message, ContainsSubstring(row.message));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.starts_with("s.toml:"));
  }
}

}  // namespace
}  // namespace orrery
