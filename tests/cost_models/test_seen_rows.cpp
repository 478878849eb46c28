// Which rows would count twice.
#include "cost_models/seen_rows.hpp"

#include <fmt/format.h>

#include "tests/catch.hpp"

using namespace orrery;
using Catch::Matchers::StartsWith;

namespace {

MeasuredTable table_of(const std::string& rows, const std::string& file = "a.csv") {
  return MeasuredTable::parse("gpu,bytes,time_us,power_w,status\n" + rows, file);
}

/// Rows of so many sizes; those from `first_new` on have another power.
std::string rows_of(int count, int first_new = 0) {
  std::string rows;
  for (int i = 0; i < count; ++i) rows += fmt::format("h,{},1.5,{},ok\n", 1024 << i, i < first_new ? 300 : 400);
  return rows;
}

void add_all(const std::vector<MeasuredTable>& tables) {
  SeenRows seen;
  for (const MeasuredTable& table : tables) seen.add(table);
}

}  // namespace

TEST_CASE("a row with a time that stands twice in a file is refused in any spelling, unless one cell differs") {
  const std::string row = "h,8192,1.5,400,ok\n";
  CHECK_THROWS_WITH(add_all({table_of(row + rows_of(2) + row)}),
                    StartsWith("a.csv:5: every cell is that of a.csv:2 ") && ContainsSubstring("leave one"));
  CHECK_THROWS_AS(add_all({table_of(row + "h,8192.0,1.50,4e2,ok\n")}), MeasuredFileError);
  CHECK_NOTHROW(add_all({table_of(row + "h,8192,1.5,401,ok\n" + "h,8192,1.6,400,ok\n" + "h,8193,1.5,400,ok\n")}));
  for (const std::string untimed : {"h,8192,,400,planned\n", "h,8192,,400,\n", "h,8192,1.5,400,failed\n"})
    CHECK_NOTHROW(add_all({table_of(untimed + untimed)}));
}

TEST_CASE("a file is a copy if more than half of its rows, or of those of an earlier one, stand in both") {
  const auto pair = [](int same, int rows, int other_rows) {
    add_all({table_of(rows_of(rows, same)), table_of("h,1,2,3,ok\n", "between.csv"),
             table_of(rows_of(other_rows, other_rows), "b.csv")});
  };
  CHECK_NOTHROW(pair(3, 6, 6));
  CHECK_THROWS_WITH(pair(4, 6, 6), StartsWith("b.csv:2: 4 of the 6 rows") && ContainsSubstring("from a.csv:2 on"));
  CHECK_THROWS_AS(pair(3, 3, 12), MeasuredFileError);
  CHECK_THROWS_AS(pair(3, 12, 3), MeasuredFileError);
  // The order of the columns is none of the rows'.
  CHECK_THROWS_AS(add_all({table_of("h,8192,1.5,400,ok\n"),
                           MeasuredTable::parse("time_us,gpu,status,power_w,bytes\n1.5,h,ok,400,8192\n", "b.csv")}),
                  MeasuredFileError);
}
