#include "scenarios/sweep_space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "scenarios/scenario.hpp"
#include "scenarios/sweep_values.hpp"

namespace orrery {

/// Keys that vary side by side: one of their rows is chosen.
struct SweepSpace::Axis {
  struct Key {
    std::string path;
    toml::source_region where;
    std::vector<SharedValue> values;    // by row
    std::optional<Distribution> draws;  // instead
  };
  std::string name;
  std::vector<Key> keys;
  std::int64_t rows = 1;

  SharedValue value(std::size_t key, std::size_t row) const {
    return keys[key].draws ? keys[key].draws->draw(row) : keys[key].values[row];
  }
};

struct SweepSpace::Reader {
  std::shared_ptr<const TomlDocument> document;
  std::set<std::string> paths = {};  // of all axes so far

  InputError error(const toml::source_region& where, std::string_view message) const {
    return InputError(message_at(document->file, where.begin, message));
  }

  /// A key with its values: a list, a range, or (for `seed`) a distribution.
  Axis::Key read_key(std::string path, const toml::source_region& where, const toml::node& value,
                     std::optional<std::int64_t> seed) {
    if (!paths.insert(path).second) throw error(where, fmt::format("{} varies twice, remove one of the two", path));
    Axis::Key key{std::move(path), where, {}, std::nullopt};
    if (seed) {
      key.draws = read_distribution(document, *value.as_table(), key.path, *seed);
    } else if (const auto* list = value.as_array()) {
      key.values = listed_values(document, *list);
    } else {
      key.values = range_values(document, *value.as_table());
    }
    return key;
  }

  /// All keys below a table, in the order of the file; [grid.workload] tokens and "workload.tokens" are the same.
  std::vector<Axis::Key> read_keys(const toml::table& table, std::optional<std::int64_t> seed) {
    std::vector<Axis::Key> keys;
    collect(table, "", seed, keys);
    std::stable_sort(keys.begin(), keys.end(), [](const Axis::Key& a, const Axis::Key& b) {
      return std::pair(a.where.begin.line, a.where.begin.column) < std::pair(b.where.begin.line, b.where.begin.column);
    });
    return keys;
  }

  void collect(const toml::table& table, const std::string& prefix, std::optional<std::int64_t> seed,
               std::vector<Axis::Key>& keys) {
    for (const auto& [key, value] : table) {
      const std::string name(key.str());
      if (seed && prefix.empty() && (name == "samples" || name == "seed")) continue;
      const toml::table* inner = value.as_table();
      const auto has = [&](const char* word) { return inner != nullptr && inner->contains(word); };
      const bool leaf =
          seed ? has("uniform") || has("log") || has("choice") : value.is_array() || has("from") || has("to");
      if (leaf) {
        keys.push_back(read_key(prefix + name, key.source(), value, seed));
      } else if (inner != nullptr && !inner->empty()) {
        collect(*inner, prefix + name + ".", seed, keys);
      } else {
        const char* what = seed
                               ? "no distribution, write {uniform = [a, b]}, {log = [a, b]} or {choice = [...]}"
                               : "neither a list nor a range, write [...] or {from = a, to = b, factor = c}, or put it "
                                 "into the base";
        throw error(value.source(), fmt::format("{} is {}", prefix + name, what));
      }
    }
  }

  void read_grid(const toml::table& table, std::vector<Axis>& axes) {
    for (Axis::Key& key : read_keys(table, std::nullopt)) {
      const auto rows = static_cast<std::int64_t>(key.values.size());
      axes.push_back({fmt::format("{} {}", rows, key.path), {std::move(key)}, rows});
    }
  }

  void read_together(const toml::table& table, std::vector<Axis>& axes) {
    std::vector<Axis::Key> keys = read_keys(table, std::nullopt);
    if (keys.empty()) throw error(table.source(), "[[together]] names no key, add some or remove it");
    const std::size_t rows = keys.front().values.size();
    std::vector<std::string> names;
    for (const Axis::Key& key : keys) {
      names.push_back(key.path);
      if (key.values.size() == rows) continue;
      throw error(key.where, fmt::format("{} has {} values but {} has {} (they vary side by side), make them as many",
                                         key.path, key.values.size(), keys.front().path, rows));
    }
    axes.push_back(
        {fmt::format("{} ({})", rows, fmt::join(names, " with ")), std::move(keys), static_cast<std::int64_t>(rows)});
  }

  void read_random(const toml::table& table, const Table& random, std::vector<Axis>& axes) {
    const std::int64_t samples = random.count("samples"), seed = random.count("seed");
    if (samples < 1) throw random.error_at("samples", "samples = 0 draws nothing, write 1 or more");
    std::vector<Axis::Key> keys = read_keys(table, seed);
    if (keys.empty()) throw random.error_here("[random] names no key to draw, add one or remove it");
    axes.push_back({fmt::format("{} random samples", samples), std::move(keys), samples});
  }
};

SweepText SweepText::read(const std::filesystem::path& file) {
  SweepText text{file, {}, read_text_file(file, "TOML"), ""};
  const Table table = Table::parse(text.space, file);
  if (!table.is_table("base")) {
    text.base_file = resolve(table.file_name("base", "examples"), "examples", file).lexically_normal();
    text.base = read_text_file(text.base_file, "TOML");
  }
  return text;
}

SweepSpace::SweepSpace(SweepText text) : text_(std::move(text)) {
  const auto document = std::make_shared<TomlDocument>(TomlDocument{parse_toml(text_.space, text_.file), text_.file});
  auto node = std::make_shared<Table::Node>();
  node->document = document;
  node->table = &document->root;
  node->name = "the top level";
  const Table root = Table::Node::view(node);
  if (root.has("description")) root.string("description");

  base_ = std::make_shared<Table::Node>();
  if (root.is_table("base")) {
    *base_ = {document, document->root.get("base")->as_table(), "[base]", "base", nullptr, {}, {}};
  } else {
    root.string("base");
    const auto base =
        std::make_shared<TomlDocument>(TomlDocument{parse_toml(text_.base, text_.base_file), text_.base_file});
    *base_ = {base, &base->root, "the top level", "", nullptr, {}, {}};
  }

  Reader reader{document};
  if (root.has("grid")) {
    root.table("grid");  // it is one
    reader.read_grid(*document->root.get("grid")->as_table(), axes_);
  }
  if (root.has("together")) {
    root.tables("together");
    for (const toml::node& table : *document->root.get("together")->as_array()) {
      reader.read_together(*table.as_table(), axes_);
    }
  }
  if (const auto random = root.optional_table("random")) {
    reader.read_random(*document->root.get("random")->as_table(), *random, axes_);
  }
  for (const KeyPlace& key : node->keys()) {
    if (!node->has_asked(key.name)) throw node->unknown(key);
  }
  if (axes_.empty()) throw root.error_here("nothing varies (there is neither [grid] nor [[together]] nor [random])");
  for (const Axis& axis : axes_) {
    if (cases_ > most_cases / axis.rows) {
      throw root.error_here(
          fmt::format("the space is too large ({} have more than {} cases), leave values out", describe(), most_cases));
    }
    cases_ *= axis.rows;
  }
}

SweepSpace::~SweepSpace() = default;
SweepSpace::SweepSpace(SweepSpace&&) noexcept = default;

std::string SweepSpace::describe() const {
  std::vector<std::string> names;
  for (const Axis& axis : axes_) names.push_back(axis.name);
  return fmt::format("{}", fmt::join(names, " x "));
}

std::vector<std::string> SweepSpace::paths() const {
  std::vector<std::string> paths;
  for (const Axis& axis : axes_) {
    for (const Axis::Key& key : axis.keys) paths.push_back(key.path);
  }
  return paths;
}

std::vector<std::size_t> SweepSpace::rows_of(std::int64_t number) const {
  std::vector<std::size_t> rows(axes_.size());
  std::int64_t rest = number - 1;
  for (std::size_t a = axes_.size(); a-- > 0;) {
    rows[a] = static_cast<std::size_t>(rest % axes_[a].rows);
    rest /= axes_[a].rows;
  }
  return rows;
}

std::vector<CaseValue> SweepSpace::values(std::int64_t number) const {
  const std::vector<std::size_t> rows = rows_of(number);
  std::vector<CaseValue> values;
  for (std::size_t a = 0; a < axes_.size(); ++a) {
    for (std::size_t k = 0; k < axes_[a].keys.size(); ++k) values.push_back(case_value(*axes_[a].value(k, rows[a])));
  }
  return values;
}

Table SweepSpace::scenario(std::int64_t number) const {
  const std::vector<std::size_t> rows = rows_of(number);
  auto replacements = std::make_shared<std::vector<Replacement>>();
  for (std::size_t a = 0; a < axes_.size(); ++a) {
    for (std::size_t k = 0; k < axes_[a].keys.size(); ++k) {
      const Axis::Key& key = axes_[a].keys[k];
      replacements->push_back({base_->path_of(key.path), key.where, axes_[a].value(k, rows[a])});
    }
  }
  auto node = std::make_shared<Table::Node>(*base_);
  node->replacements = std::move(replacements);
  return Table::Node::view(std::move(node));
}

void SweepSpace::check() const {
  constexpr std::int64_t most_looks = 200;
  const std::int64_t looks = std::min(cases_, most_looks);
  std::vector<bool> asked(paths().size());
  std::optional<InputError> unasked;
  std::string first;          // of the complaints
  bool one_complaint = true;  // of all cases so far
  for (std::int64_t i = 0; i < looks; ++i) {
    const Table table = scenario(1 + i * (cases_ / looks));
    try {
      read_scenario(table);
      one_complaint = false;
    } catch (const std::exception& error) {
      if (i == 0) first = error.what();
      one_complaint = one_complaint && first == error.what();
    }
    unasked.reset();
    const std::vector<Replacement>& replacements = *Table::Node::of(table).replacements;
    for (std::size_t k = 0; k < replacements.size(); ++k) {
      if (asked[k]) continue;
      const auto complaint = Table::Node::of(table).unasked(replacements[k]);
      asked[k] = !complaint;
      if (complaint && !unasked) unasked = complaint;
    }
    if (!unasked && !one_complaint) return;
  }
  // What stops the reading of every case comes before keys that are not reached for that.
  if (one_complaint && (looks > 1 || unasked)) throw InputError(first);
  if (unasked) throw *unasked;
}

}  // namespace orrery
