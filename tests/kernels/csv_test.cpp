#include "kernels/csv.hpp"

#include <cmath>
#include <fstream>
#include <sstream>

#include "../catch.hpp"

using namespace orrery;

namespace {
std::string content(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}
}  // namespace

TEST_CASE("a row is on disk as soon as it is written") {
  const std::string path = "csv_test_rows.csv";
  std::remove(path.c_str());
  {
    CsvWriter csv(path, {{"gpu", "a GPU"}, {"date", "today"}}, {"name", "time_us", "reason"});
    CHECK(content(path).empty());  // nothing measured, no file
    csv.write({{"time_us", "1.5"}, {"name", "one"}});
    CHECK(content(path) == "# gpu = a GPU\n# date = today\nname,time_us,reason\none,1.5,\n");
    csv.write({{"name", "two"}, {"reason", "said \"no\",\ntwice"}});  // a line of CSV stays a line
  }
  CHECK(content(path) ==
        "# gpu = a GPU\n# date = today\nname,time_us,reason\none,1.5,\ntwo,,\"said \"\"no\"\", twice\"\n");
  std::remove(path.c_str());
}

TEST_CASE("a row that says something new takes its old place in the file") {
  const std::string path = "csv_test_replaced.csv";
  {
    CsvWriter csv(path, {{"gpu", "a GPU"}}, {"name", "samples"});
    const size_t first = csv.write({{"name", "one"}, {"samples", "5"}});
    csv.write({{"name", "two"}});
    csv.replace(first, {{"name", "one"}, {"samples", "10"}});
    CHECK(content(path) == "# gpu = a GPU\nname,samples\none,10\ntwo,\n");
    csv.write({{"name", "three"}});
    CHECK(content(path) == "# gpu = a GPU\nname,samples\none,10\ntwo,\nthree,\n");
  }
  CHECK(content(path + ".next").empty());
  std::remove(path.c_str());
}

TEST_CASE("an unknown column is an error") {
  CsvWriter csv("csv_test_unknown.csv", {}, {"a"});
  CHECK_THROWS_WITH(csv.write({{"b", "1"}}), ContainsSubstring("'b' is not a column"));
}

TEST_CASE("numbers keep six digits") {
  CHECK(format_number(1.5) == "1.5");
  CHECK(format_number(123456789) == "1.23457e+08");
  CHECK(format_count(1099511627776) == "1099511627776");
  CHECK(format_number(0) == "0");
  CHECK(format_number(std::nan("")).empty());
}
