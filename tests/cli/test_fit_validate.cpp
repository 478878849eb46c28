// orrery fit and orrery validate as a user runs them: files, formats, exit statuses.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"

using namespace orrery;

namespace {

const std::filesystem::path measured = std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured";

std::string quoted_file(const char* name) {
  return fmt::format(" \"{}\"", (measured / name).string());
}

}  // namespace

TEST_CASE("validate writes expected, predicted, deviation and interval of each row, and the summary") {
  const ProgramRun result = run_program("validate --format json --measured" + quoted_file("h200_sxm/merge.csv"));
  REQUIRE(result.exit_code == 0);
  const auto json = nlohmann::json::parse(result.output);
  for (const char* key : {"expected_s", "predicted_s", "deviation_rel", "interval_low_s", "interval_high_s",
                          "in_interval", "extrapolated", "fitted"}) {
    INFO(key);
    CHECK(json["rows"][0].contains(key));
  }
  for (const char* key :
       {"rows", "mean_abs_rel", "median_abs_rel", "p90_abs_rel", "max_abs_rel", "interval_coverage"}) {
    INFO(key);
    CHECK(json["summary"].contains(key));
    CHECK(json["groups"]["h200_sxm: merge"].contains(key));
  }
}

TEST_CASE("validate has exit status 1 if a tolerance is exceeded, and 0 if it is kept") {
  const std::string rows = "validate --summary --measured" + quoted_file("h200_sxm/merge.csv");
  CHECK(run_program(rows + " --tolerance 0.5").exit_code == 0);
  const ProgramRun strict = run_program(rows + " --tolerance 1e-6");
  CHECK(strict.exit_code == 1);
  CHECK_THAT(strict.error, ContainsSubstring("tolerance 0.0 %"));
  for (const char* nonsense : {"nan", "inf", "0", "-1", "5", "six"}) {
    INFO(nonsense);
    const ProgramRun refused = run_program(rows + " --tolerance " + nonsense);
    CHECK(refused.exit_code == 2);
    CHECK_THAT(refused.error, ContainsSubstring("no fraction from 0 to 1"));
  }
}

TEST_CASE("validate carries columns along that it does not read, and says which named file it predicts nothing of") {
  const ScratchFolder folder;
  const std::string runs = (folder.path() / "runs.csv").string(), other = (folder.path() / "other.csv").string();
  const std::string columns =
      "implementation,backend,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,";
  const std::string row = "orrery_ring,cudnn,h200_sxm,nvlink4,2,8192,32,32,128,false,contiguous,ring,forward,1.1";
  std::ofstream(runs) << columns << "time_ms,host\n" << row << ",\"node 7, left\"\n";
  std::ofstream(other) << columns << "time_us\n" << row << "\n";
  const ProgramRun csv = run_program("validate --format csv --measured " + runs + " " + other);
  CHECK(csv.exit_code == 0);
  CHECK_THAT(csv.output, ContainsSubstring("not_predicted,host\n") && ContainsSubstring(",\"node 7, left\"\n"));
  CHECK_THAT(csv.error, ContainsSubstring("other.csv: nothing is predicted") && ContainsSubstring("column time_ms") &&
                            ContainsSubstring("there are implementation, backend,"));
  CHECK_THAT(run_program("validate --format json --measured " + runs).output,
             ContainsSubstring("\"host\": \"node 7, left\""));
  const ProgramRun twice =
      run_program(fmt::format("validate --measured {} {}/./runs.csv", runs, folder.path().string()));
  CHECK(twice.exit_code == 2);
  CHECK_THAT(twice.error, ContainsSubstring("is named twice"));
  const ProgramRun alone = run_program("validate --measured " + other);
  CHECK(alone.exit_code == 2);
  CHECK_THAT(alone.error, ContainsSubstring("column time_ms"));
  CHECK(run_program("validate --trace unwritten.json --measured " + runs).exit_code == 2);
}

TEST_CASE("what validate writes can be read again: no error of no rows, groups in quotes, text in UTF-8") {
  const ScratchFolder folder;
  const std::filesystem::path file = folder.path() / "a,b\"c" / "runs.csv";
  std::filesystem::create_directories(file.parent_path());
  const auto validated = [&](const std::string& format, const std::string& note) {
    std::ofstream(file) << "implementation,gpu,link,n_gpu,seq_len,heads,kv_heads,head_dim,causal,layout,schedule,pass,"
                           "time_ms,note\norrery_ring,h200_sxm,nvlink4,2,8192,32,32,128,false,,ring,forward,,"
                        << note << "\n";
    return run_program("validate --format " + format + " --measured '" + file.string() + "'");
  };
  const auto summary = nlohmann::json::parse(validated("json", "caf\u00e9").output)["summary"];
  CHECK(summary["rows"] == 0);
  CHECK(summary["mean_abs_rel"].is_null());
  CHECK_THAT(validated("csv", "x").output, ContainsSubstring("\n\"a,b\"\"c: orrery_ring\","));
  CHECK_THAT(validated("text", "x").output, !ContainsSubstring("0.00%"));
  CHECK_THAT(validated("json", "caf\xe9").error, ContainsSubstring("runs.csv:2: byte 0xe9 is not UTF-8"));
  CHECK_THAT(validated("json", "\"two\nlines\"").error, ContainsSubstring("runs.csv:2: a quote does not end"));
}

TEST_CASE("the tables of errors in the documents are what validate prints: make error_tables") {
  const auto document = [](const char* name) { return read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / name); };
  const auto printed = [](const std::string& which) {
    const ProgramRun run = run_program("validate --summary" + which);
    REQUIRE(run.exit_code == 0);
    return run.output.substr(0, std::min(run.output.find("not predicted"), run.output.find("orderings of")));
  };
  const std::string measured_rows = printed("");
  CHECK(document("validate/measured/errors.md").find("```\n" + measured_rows + "```\n") != std::string::npos);
  std::istringstream lines(measured_rows);
  std::string over_folders;
  for (std::string line; std::getline(lines, line);) {
    if (over_folders.empty() || line.starts_with("all")) over_folders += line + "\n";
  }
  for (const std::string& table : {over_folders, printed(" --published")}) {
    INFO(table);
    CHECK(document("README.md").find("```\n" + table + "```\n") != std::string::npos);
  }
}

TEST_CASE(
    "rows that a profile was fitted on are known in a file of any name, and others are not in a file of that name") {
  const ScratchFolder folder;
  const std::filesystem::path copy = folder.path() / "mine.csv", same_name = folder.path() / "h200_sxm_full/merge.csv";
  std::filesystem::copy_file(measured / "h200_sxm_full/merge.csv", copy);
  const auto held_out_of = [](const std::filesystem::path& file) {
    const auto json = nlohmann::json::parse(
        run_program(fmt::format("validate --format json --measured \"{}\"", file.string())).output);
    return std::pair(json["summary"]["rows"].get<std::size_t>(), json["rows"].size());
  };
  CHECK(held_out_of(copy) == held_out_of(measured / "h200_sxm_full/merge.csv"));
  CHECK(held_out_of(copy).first < held_out_of(copy).second);
  // The first row of that file, which is fitted on, but measured again.
  std::filesystem::create_directories(same_name.parent_path());
  std::ofstream(same_name) << "gpu,kernel,n_q,heads,head_dim,time_us,regime,bytes,status\n"
                              "h200_sxm,merge_block,512,32,128,7.38,sustained,21168128,ok\n";
  CHECK(held_out_of(same_name).first == 1);
}

TEST_CASE("a row or a file that is given twice counts for nobody: fit and validate refuse it, wherever it is named") {
  const ScratchFolder folder;
  const std::string merges = read_file(measured / "h200_sxm/merge.csv"),
                    runs = read_file(measured / "h200_sxm_x2/ring.csv");
  const std::string row = merges.substr(merges.rfind('\n', merges.size() - 2) + 1);
  const auto file = [&](const char* name, const std::string& text) {
    return fmt::format(" \"{}\"", folder.write(name, text).string());
  };
  const std::string again = file("again.csv", merges + row), copy = file("copy.csv", merges);
  const std::string runs_copy = file("runs.csv", runs);
  const std::string fit =
      "fit -o unwritten.toml" + quoted_file("h200_sxm_full/attention.csv") + quoted_file("h200_sxm_full/overhead.csv");
  const std::string merge = quoted_file("h200_sxm/merge.csv"), ring = quoted_file("h200_sxm_x2/ring.csv");
  for (const std::string& command :
       {"validate --measured" + again, "validate --measured" + merge + copy, fit + again, fit + merge + copy,
        fit + " --other-chip" + again, fit + " --other-chip" + merge + copy, fit + " --runs" + ring + runs_copy,
        "fit --like h200_sxm -o unwritten.toml" + quoted_file("h200_sxm_torch_x1/torch_attention_flash.csv") +
            file("flash.csv", read_file(measured / "h200_sxm_torch_x1/torch_attention_flash.csv"))}) {
    INFO(command);
    const ProgramRun refused = run_program(command);
    CHECK(refused.exit_code == 2);
    CHECK_THAT(refused.error, ContainsSubstring("would count twice"));
  }
}

TEST_CASE("a fit needs the power at idle and says which file has it") {
  const ProgramRun result = run_program("fit -o unwritten.toml" + quoted_file("h200_sxm/merge.csv"));
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.error, ContainsSubstring("overhead.csv"));
}

TEST_CASE("a fit reads clock and power limit of the header in the bench's form, and refuses others") {
  const ScratchFolder folder;
  const std::filesystem::path file = folder.path() / "attention.csv";
  std::string text = read_file(measured / "h200_sxm/attention.csv");
  const auto fit_with = [&](const std::string& key, const std::string& value) {
    const std::size_t begin = text.find("# " + key + " = "), end = text.find('\n', begin);
    REQUIRE(begin != std::string::npos);
    std::ofstream(file) << text.substr(0, begin) << "# " << key << " = " << value << text.substr(end);
    return run_program(fmt::format("fit \"{}\"{} -o \"{}\"", file.string(), quoted_file("h200_sxm/overhead.csv"),
                                   (folder.path() / "out.toml").string()));
  };
  const std::pair<const char*, const char*> bad[] = {{"power_limit_w", "-700"},         {"power_limit_w", "0.7 kW"},
                                                     {"power_limit_w", "1e3"},          {"power_limit_w", "0"},
                                                     {"clocks", "SM at most 1.98 GHz"}, {"clocks", "SM at most 1980"},
                                                     {"clocks", "not locked"}};
  for (const auto& [key, value] : bad) {
    const ProgramRun run = fit_with(key, value);
    INFO(key << " = " << value << ": " << run.error);
    CHECK(run.exit_code == 2);
    CHECK_THAT(run.error, ContainsSubstring(key));
  }
  // overhead.csv has another form, which would be a contradiction: it is told so, not misread.
  CHECK_THAT(fit_with("clocks", "memory 3201 MHz, SM at most 1980 MHz").error, ContainsSubstring("clocks"));
}

TEST_CASE("a fit refuses a file without rows, and nonsense also in columns that it does not read, and writes nothing") {
  const ScratchFolder folder;
  const std::filesystem::path file = folder.path() / "overhead.csv", out = folder.path() / "unwritten.toml";
  const auto fit_with = [&](const std::string& rows) {
    std::ofstream(file) << "gpu,cost,what,time_us,p5_us,power_w,status\n" << rows;
    return run_program(
        fmt::format("fit{} \"{}\" -o \"{}\"", quoted_file("h200_sxm/attention.csv"), file.string(), out.string()));
  };
  for (const char* nonsense : {"nan", "inf", "-1", "x"}) {
    const ProgramRun run = fit_with(fmt::format("h200_sxm,launch,a launch,5,{},120,ok\n", nonsense));
    CHECK(run.exit_code == 2);
    CHECK_THAT(run.error, ContainsSubstring("overhead.csv:2: p5_us"));
  }
  CHECK_THAT(fit_with("").error, ContainsSubstring("no row below the column names"));
  // In kW: what came of it would be refused when it is read.
  CHECK_THAT(fit_with("h200_sxm,launch,a launch,5,4,0.12,ok\n").error,
             ContainsSubstring("clock.idle_power = 0.12 W is not in 1 to 1000") && ContainsSubstring("overhead.csv"));
  CHECK_FALSE(std::filesystem::exists(out));
  CHECK(fit_with("h200_sxm,launch,a launch,5,4,120,ok\n").exit_code == 0);
}

TEST_CASE("a fit says of a file without a measured row that none succeeded, or which column is missing") {
  const ScratchFolder folder;
  const std::filesystem::path file = folder.path() / "attention.csv";
  const auto refused = [&](const std::string& headers, const std::string& column, const std::string& row) {
    std::ofstream(file) << headers << "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,causal," << column
                        << ",status\nh200_sxm,kernel,forward,32,8,128,4096,4096,false," << row << "\n";
    const ProgramRun run = run_program(fmt::format("fit \"{}\" --like h200_sxm -o \"{}\"", file.string(),
                                                   (folder.path() / "unwritten.toml").string()));
    CHECK(run.exit_code == 2);
    return run.error;
  };
  // A file of the bench says the clocks, one of published rates does not.
  for (const char* headers : {"# clocks = SM at most 1980 MHz\n", ""}) {
    CHECK_THAT(refused(headers, "time_ms", ",failed"), ContainsSubstring("attention.csv:1: no row has status = ok"));
    CHECK_THAT(refused(headers, "time_us", "1000,ok"), ContainsSubstring("attention.csv:1: column time_ms is missing"));
  }
}

TEST_CASE("a fit of merges alone says that attention is missing") {
  const ProgramRun result =
      run_program("fit -o unwritten.toml" + quoted_file("h200_sxm/merge.csv") + quoted_file("h200_sxm/overhead.csv"));
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.error, ContainsSubstring("no attention rows"));
}

namespace {

/// Widths of intervals, and the digests of the rows behind them.
std::vector<std::string> lines_of_bands(const std::filesystem::path& profile) {
  const std::string text = read_file(profile);
  std::istringstream bands(text.substr(text.find("[[kernels.band]]")));
  std::vector<std::string> lines;
  for (std::string line; std::getline(bands, line);) lines.push_back(line);
  return lines;
}

/// Numbers to a thousandth, all else to the letter.
bool is_alike(const std::string& a, const std::string& b) {
  const auto split = [](const std::string& line) {
    const std::size_t at = line.find(" = ");
    return std::pair(line.substr(0, at), at == std::string::npos ? "" : line.substr(at + 3));
  };
  const auto [key, text] = split(a);
  const auto [other_key, other_text] = split(b);
  char *end = nullptr, *other_end = nullptr;
  const double value = std::strtod(text.c_str(), &end), other = std::strtod(other_text.c_str(), &other_end);
  const bool numbers = end != text.c_str() && *end == 0 && other_end != other_text.c_str() && *other_end == 0;
  return numbers ? key == other_key && std::abs(value - other) <= 1e-3 * std::abs(other) : a == b;
}

}  // namespace

TEST_CASE("the fit commands of docs/calibration.md write the committed profiles") {
  const ScratchFolder folder;
  const std::filesystem::path root = ORRERY_SOURCE_DIR;
  std::istringstream document(read_file(root / "docs/calibration.md"));
  const std::string begin = "orrery fit ", end = " -o scenarios/profiles/";
  int commands = 0;
  for (std::string line; std::getline(document, line);) {
    if (!line.starts_with(begin + "validate/measured/")) continue;
    INFO(line);
    ++commands;
    const auto at = line.find(end);
    REQUIRE(at != std::string::npos);
    const std::string profile = line.substr(at + end.size()), out = (folder.path() / profile).string();
    // The shell, for its braces.
    const std::string arguments = line.substr(begin.size(), at - begin.size());
    const ProgramRun fit = run_program(
        fmt::format("-c \"cd \'{}\' && \'{}\' fit {} -o \'{}\'\"", root.string(), ORRERY_PROGRAM, arguments, out),
        "bash");
    REQUIRE(fit.exit_code == 0);
    if (profile == "h100_sxm_flash.toml") {
      CHECK_THAT(fit.output, ContainsSubstring("at its bound: attention.forward.launch = 0 s"));
    }
    // Compilers may differ in the last digits of a constant, so what it predicts is compared.
    const std::string gpu = profile.substr(0, profile.find('.'));
    const std::string file = arguments.substr(0, arguments.find(' '));
    const std::string rows = "validate --format json --measured" + (file.ends_with("flash.csv")
                                                                        ? fmt::format(" \"{}\"", (root / file).string())
                                                                        : quoted_file((gpu + "_x2/ring.csv").c_str()));
    const auto committed = nlohmann::json::parse(run_program(rows).output);
    const auto fitted = nlohmann::json::parse(run_program(rows + " --profile " + out).output);
    CHECK_THAT(fitted["summary"]["mean_abs_rel"].get<double>(),
               WithinAbs(committed["summary"]["mean_abs_rel"].get<double>(), 1e-4));
    CHECK_THAT(fitted["summary"]["interval_coverage"].get<double>(),
               WithinAbs(committed["summary"]["interval_coverage"].get<double>(), 1e-3));
    const std::vector<std::string> bands = lines_of_bands(out),
                                   known = lines_of_bands(root / "scenarios/profiles" / profile);
    REQUIRE(bands.size() == known.size());
    for (std::size_t i = 0; i < bands.size(); ++i) {
      INFO(bands[i] << " (committed: " << known[i] << ")");
      CHECK(is_alike(bands[i], known[i]));
    }
  }
  CHECK(commands == 4);
}

TEST_CASE("a row that says why it is not predicted is not fitted on either") {
  const ScratchFolder folder;
  std::istringstream merges(
      read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured/h200_sxm/merge.csv"));
  std::string marked;
  for (std::string line; std::getline(merges, line);) {
    if (!line.starts_with('#')) line += line.starts_with("gpu,") ? ",not_predicted" : ",by hand";
    marked += line + "\n";
  }
  const auto output_with = [&](const std::string& file) {
    return run_program("fit" + quoted_file("h200_sxm/attention.csv") + quoted_file("h200_sxm/overhead.csv") + " " +
                       file + " -o " + (folder.path() / "profile.toml").string())
        .output;
  };
  CHECK_THAT(output_with(quoted_file("h200_sxm/merge.csv")), ContainsSubstring("\nmerge "));
  CHECK_THAT(output_with(folder.write("merge.csv", marked).string()), !ContainsSubstring("\nmerge "));
}

TEST_CASE(
    "a file of one's own without a header makes a profile that can be read, unless its times are in another unit") {
  const auto fit_times = [](double factor) {
    const std::filesystem::path file = std::filesystem::temp_directory_path() / "orrery_own.csv";
    std::ofstream(file) << "backend,gpu,n_q,n_k,heads,kv_heads,head_dim,causal,schedule,pass,time_ms\n"
                        << fmt::format("own,rtx_4090,8192,8192,32,32,128,false,kernel,forward,{}\n", 7.0 * factor)
                        << fmt::format("own,rtx_4090,8192,8192,32,32,128,false,kernel,backward,{}\n", 20.0 * factor);
    const std::filesystem::path profile = file.parent_path() / "orrery_own.toml";
    const ProgramRun fit =
        run_program(fmt::format("fit \"{}\" --like h100_sxm_fa2 -o \"{}\"", file.string(), profile.string()));
    if (fit.exit_code != 0) return fit;
    return run_program(fmt::format("validate --measured \"{}\" --profile \"{}\"", file.string(), profile.string()));
  };
  CHECK(fit_times(1).exit_code == 0);
  const ProgramRun seconds = fit_times(1e-3);
  CHECK(seconds.exit_code == 2);
  CHECK_THAT(seconds.error, ContainsSubstring("orrery_own.csv:3: ") && ContainsSubstring("units of their columns"));
}

TEST_CASE("what belongs to rows or to time stamps alone is refused with the other") {
  for (const char* both :
       {"--steps a.csv --format json", "--steps a.csv --measured b.csv", "--steps a.csv --tolerance 0.1",
        "--steps a.csv --list-runs --trace t.json", "--run 2", "--trace t.json", "--list-runs"}) {
    INFO(both);
    const ProgramRun refused = run_program(fmt::format("validate {}", both));
    CHECK(refused.exit_code == 2);
    CHECK_THAT(refused.error, ContainsSubstring("--steps") || ContainsSubstring("--trace"));
  }
}

TEST_CASE("published rates are fitted without what belongs to files of the bench") {
  const std::string files = fmt::format("fit \"{}\" --like h200_sxm -o unwritten.toml",
                                        (measured / "h200_sxm_torch_x1/torch_attention_flash.csv").string());
  for (const char* option : {"--runs", "--other-chip", "--guarded"}) {
    const ProgramRun refused = run_program(files + " " + option + quoted_file("h200_sxm_x2/ring.csv"));
    CHECK(refused.exit_code == 2);
    CHECK_THAT(refused.error, ContainsSubstring(std::string(option) + " needs files of orrery bench"));
  }
}

TEST_CASE("a fit refuses messages that their link cannot carry so fast, or that are in another unit") {
  const auto fit_times = [](double us) {
    const std::filesystem::path file = std::filesystem::temp_directory_path() / "orrery_messages.csv";
    std::ofstream(file) << "# clocks = SM at most 1980 MHz\n# power_limit_w = 700\n"
                        << "gpu,link,mechanism,op,pattern,ranks,channels,bytes,time_us,status\n"
                        << fmt::format("h200_sxm,nvlink4,nccl,all_gather,all,2,auto,4096,{},ok\n", us / 80)
                        << fmt::format("h200_sxm,nvlink4,nccl,all_gather,all,2,auto,134217728,{},ok\n", us);
    return run_program(fmt::format("fit \"{}\" -o \"{}\"", file.string(), (file.parent_path() / "m.toml").string()));
  };
  // 450 GB/s carry 134 MB in 298 us.
  for (const double us : {235.0, 550e3}) {
    const ProgramRun wrong = fit_times(us);
    CHECK(wrong.exit_code == 2);
    CHECK_THAT(wrong.error, ContainsSubstring("orrery_messages.csv:5: nvlink4 nccl all_gather 134.2 MB takes") &&
                                ContainsSubstring("nvlink4 at 450 GB/s would need 298.3 us"));
  }
  CHECK_THAT(fit_times(550).error, ContainsSubstring("no power at idle"));  // what is missing next
}

TEST_CASE("a profile of published rates is what the command in its description writes") {
  const ScratchFolder folder;
  const std::filesystem::path root = ORRERY_SOURCE_DIR;
  for (const std::string name : {"h100_sxm_fa3", "h800_sxm", "a100_80_sxm"}) {
    INFO(name);
    std::string command = read_file(root / "scenarios/profiles" / (name + ".toml"));
    const auto begin = command.find("orrery fit ") + std::string("orrery fit ").size();
    command = command.substr(begin, command.find(" -o ") - begin);
    for (auto at = command.find("validate/"); at != std::string::npos; at = command.find("validate/", at + 1)) {
      command.insert(at, root.string() + "/");
      at += root.string().size() + 1;
    }
    const std::string out = (folder.path() / (name + ".toml")).string();
    REQUIRE(run_program("fit " + command + " -o " + out).exit_code == 0);
    const std::string runs = name == "h100_sxm_fa3" ? "magi_attention/h100_fa3.csv"
                                                    : "ring_flash_attention/" + name.substr(0, 4) + "_runs.csv";
    const std::string rows =
        fmt::format("validate --format json --measured \"{}\"", (root / "validate/published" / runs).string());
    const auto committed = nlohmann::json::parse(run_program(rows).output);
    const auto fitted = nlohmann::json::parse(run_program(rows + " --profile " + out).output);
    CHECK_THAT(fitted["summary"]["mean_abs_rel"].get<double>(),
               WithinAbs(committed["summary"]["mean_abs_rel"].get<double>(), 1e-4));
  }
}

TEST_CASE("the files of one GPU alone make a profile, or the error says which rows to measure") {
  const ScratchFolder folder;
  const std::string out = (folder.path() / "one_gpu.toml").string();
  const auto fit = [&](const std::string& folder_of_gpu) {
    std::string files;
    for (const char* file : {"attention.csv", "gemm.csv", "merge.csv", "elementwise.csv", "overhead.csv"}) {
      files += quoted_file((folder_of_gpu + "/" + file).c_str());
    }
    // Nothing is fitted on pi-Attention, but who names a folder names its file.
    return run_program("fit" + files + quoted_file("h200_sxm_pi/pi_attention.csv") + " -o " + out);
  };
  REQUIRE(fit("h200_sxm_second_gpu").exit_code == 0);  // whose windows are of too few widths
  const ProgramRun check = run_program("validate --summary --tolerance 0.04 --profile " + out + " --measured" +
                                       quoted_file("h200_sxm_second_gpu/attention.csv"));
  CHECK(check.exit_code == 0);

  std::istringstream all(
      read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / "validate/measured/h200_sxm_repeat/attention.csv"));
  std::string full_blocks;
  for (std::string line; std::getline(all, line);) {
    if (line.starts_with('#') || line.find(",causal,") == std::string::npos || line.starts_with("implementation")) {
      if (line.find(",window,10") == std::string::npos) full_blocks += line + "\n";
    }
  }
  const ProgramRun few = run_program("fit " + folder.write("full.csv", full_blocks).string() +
                                     quoted_file("h200_sxm_repeat/overhead.csv") + " -o " + out);
  CHECK(few.exit_code == 2);
  CHECK_THAT(few.error, ContainsSubstring("do not determine attention.forward.d64.masked_") &&
                            ContainsSubstring("measure causal blocks"));
}
