#include "cli/sweep_case.hpp"

#include <fmt/format.h>

#include <new>
#include <stdexcept>

#include "cli/report_writers.hpp"

namespace orrery {

using Json = nlohmann::ordered_json;

std::vector<std::uint8_t> CaseResult::packed() const {
  return Json::to_cbor(Json{{"number", number}, {"impossible", impossible}, {"scalars", scalars}});
}

CaseResult CaseResult::unpacked(const std::vector<std::uint8_t>& bytes) {
  const Json json = Json::from_cbor(bytes);
  return {json["number"].get<std::int64_t>(), json["impossible"].get<std::string>(), json["scalars"]};
}

CaseResult run_case(const SweepSpace& space, std::int64_t number) {
  try {
    const Scenario scenario = read_scenario(space.scenario(number));
    return {number, "", report_scalars(scenario, predict(scenario))};
  } catch (const std::bad_alloc&) {
    throw std::runtime_error(
        fmt::format("case {} needs more memory than there is (others run beside it), use fewer --threads", number));
  } catch (const std::exception& error) {
    return {number, in_one_line(error.what()), nullptr};
  }
}

}  // namespace orrery
