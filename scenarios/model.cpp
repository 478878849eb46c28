#include "scenarios/model.hpp"

#include <fmt/format.h>

#include "scenarios/hugging_face.hpp"
#include "scenarios/reader.hpp"

namespace orrery {
namespace {

ModelShape load_toml(const std::filesystem::path& path) {
  const Table file = Table::parse_file(path);
  file.choice("kind", {"model"});
  ModelShape model;
  model.name = path.stem().string();
  model.description = file.string("description");
  model.source = file.string("source");
  model.layers = file.count("layers", 1, model_limits::layers);
  model.hidden = file.count("hidden", 1, model_limits::width);
  model.heads = file.count("heads", 1, model_limits::heads);
  model.kv_heads = file.count("kv_heads", 1, model_limits::heads);
  model.head_dim = file.count("head_dim", 1, model_limits::head_dim);
  model.ffn_hidden = file.count("ffn_hidden", 1, model_limits::width);
  model.gated_ffn = file.boolean("gated_ffn");
  model.vocabulary = file.count("vocabulary", 1, model_limits::width);
  model.tied_embeddings = file.boolean("tied_embeddings");
  model.learned_positions = file.count("learned_positions", 0, model_limits::width);
  model.published_parameters = file.optional_number("published_parameters");
  file.finish();
  if (model.heads % model.kv_heads != 0) {
    throw file.error_at("kv_heads", fmt::format("heads = {} is not divisible by kv_heads = {} (each key head serves as "
                                                "many query heads), correct one of them",
                                                model.heads, model.kv_heads));
  }
  return model;
}

}  // namespace

double ModelShape::attention_parameters() const {
  const double of_one_head = static_cast<double>(hidden) * static_cast<double>(head_dim);
  return of_one_head * (2.0 * static_cast<double>(heads) + 2.0 * static_cast<double>(kv_heads));
}

double ModelShape::ffn_parameters() const {
  return (gated_ffn ? 3.0 : 2.0) * static_cast<double>(hidden) * static_cast<double>(ffn_hidden);
}

double ModelShape::embedding_parameters() const {
  const double tables = tied_embeddings ? 1.0 : 2.0;
  return static_cast<double>(hidden) *
         (tables * static_cast<double>(vocabulary) + static_cast<double>(learned_positions));
}

double ModelShape::parameters() const {
  const double norms = static_cast<double>(hidden) * (2.0 * static_cast<double>(layers) + 1.0);
  return static_cast<double>(layers) * (attention_parameters() + ffn_parameters()) + embedding_parameters() + norms;
}

std::vector<ModelShape::Assumed> ModelShape::assumptions(bool uses_own_pattern) const {
  std::vector<Assumed> all = assumed;
  if (!attention.empty()) {
    all.push_back({"sliding_window", Pattern(attention, static_cast<int>(layers)).describe(),
                   uses_own_pattern ? "the pattern of its config.json, since no other is stated"
                                    : "not used: another pattern is stated than that of its config.json"});
  }
  return all;
}

ModelShape load_model(std::string_view name, const std::filesystem::path& mentioned_in) {
  const std::filesystem::path path = resolve(name, "models", mentioned_in);
  return path.extension() == ".json" ? load_hugging_face_config(path) : load_toml(path);
}

}  // namespace orrery
