// Group `gemm`: projections, MLP and logits of the shipped models through cuBLASLt, bf16.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "kernels/gemm.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

Outcome run_gemm(Rig& rig, const GemmShape& s, bool zeros, std::optional<Window> sustained) {
  const int sets = rotation_sets(rig, s.bytes());
  struct Operands {
    DeviceBuffer a, b, c;
  };
  std::vector<Operands> data(static_cast<size_t>(sets));
  uint64_t seed = 900;
  for (Operands& o : data) {
    o.a = DeviceBuffer(static_cast<size_t>(s.a_count()) * 2);
    o.b = DeviceBuffer(static_cast<size_t>(s.b_count()) * 2);
    o.c = DeviceBuffer(static_cast<size_t>(s.c_count()) * 2);
    fill_normal_bf16(o.a.get(), static_cast<size_t>(s.a_count()), ++seed, rig.stream);
    fill_normal_bf16(o.b.get(), static_cast<size_t>(s.b_count()), ++seed, rig.stream);
    poison(o.c.get(), o.c.bytes(), rig.stream);
  }
  const Gemm gemm(s);
  const Operands& first = data.front();
  gemm.run(first.a.get(), first.b.get(), first.c.get(), rig.stream);
  rig.stream.sync();
  if (count_nonfinite_bf16(first.c.get(), static_cast<size_t>(s.c_count()), rig.stream)) {
    throw BenchError("outputs were not written or are not finite");
  }
  // 6 x 6 entries spread over the result, each a whole dot product. Strided operands come one row or column at a time.
  auto gather = [](const DeviceBuffer& from, int64_t start, int64_t step, int64_t count) {
    std::vector<uint16_t> raw(static_cast<size_t>(count));
    ORRERY_CUDA(cudaMemcpy2D(raw.data(), 2, from.as<char>() + start * 2, static_cast<size_t>(step) * 2, 2,
                             static_cast<size_t>(count), cudaMemcpyDeviceToHost));
    Doubles out;
    for (uint16_t bits : raw) {
      const uint32_t word = static_cast<uint32_t>(bits) << 16;
      float value;
      static_assert(sizeof value == sizeof word);
      __builtin_memcpy(&value, &word, sizeof value);
      out.push_back(value);
    }
    return out;
  };
  Doubles expected, got;
  std::vector<Doubles> rows, columns;
  auto at = [](int64_t count, int64_t i) { return i * (count - 1) / 5; };
  for (int64_t i = 0; i < 6; ++i) {
    const int64_t r = at(s.rows(), i), c = at(s.columns(), i);
    rows.push_back(gather(first.a, s.a_at(r, 0), s.a_at(r, 1) - s.a_at(r, 0), s.inner()));
    columns.push_back(gather(first.b, s.b_at(0, c), s.b_at(1, c) - s.b_at(0, c), s.inner()));
  }
  for (int64_t i = 0; i < 6; ++i) {
    for (int64_t j = 0; j < 6; ++j) {
      double sum = 0;
      for (int64_t x = 0; x < s.inner(); ++x) sum += rows[i][x] * columns[j][x];
      expected.push_back(sum);
      got.push_back(gather(first.c, at(s.rows(), i) * s.columns() + at(s.columns(), j), 1, 1)[0]);
    }
  }
  const Fields check = checked(difference(got, expected, 6), kBf16Tolerance);
  if (zeros) {  // the one row that shows what zeros would have done
    for (Operands& o : data) {
      ORRERY_CUDA(cudaMemsetAsync(o.a.get(), 0, o.a.bytes(), rig.stream));
      ORRERY_CUDA(cudaMemsetAsync(o.b.get(), 0, o.b.bytes(), rig.stream));
    }
  }
  Work work;
  work.sets = sets;
  work.launch = [&](cudaStream_t stream, int set) {
    const Operands& o = data[static_cast<size_t>(set)];
    gemm.run(o.a.get(), o.b.get(), o.c.get(), stream);
  };
  return both_regimes(
      rig, work, "us", check, [&](double us) { return s.flops() / us * 1e-6; }, "TFLOP/s", sustained);
}

// No kernel draws more power, so no clock swings more: a long rest and a long window, for which there is no time at all
// numbers of tokens and in all models.
constexpr Window kWindow{0.4, 0.6};

void add(Table& table, const std::string& model, const std::string& layer, const GemmShape& s, bool sustained,
         bool quick = false, bool zeros = false) {
  Row row;
  row.group = "gemm";
  row.name = "gemm/" + model + "/" + layer + "/" + to_string(s.pass) + "/t" + std::to_string(s.tokens) +
             (zeros ? "/zeros" : "");
  row.what = "bf16 product " + std::to_string(s.tokens) + " x " + std::to_string(s.in) + " -> " + std::to_string(s.out);
  row.flops = s.flops();
  row.bytes = s.bytes();
  row.quick = quick;
  const double slower = s.out % 8 == 0 ? 1 : 6;          // kernels of older GPUs, see below
  const double launch_s = 1.6e-15 * row.flops * slower;  // and 20 samples of each regime
  row.expected_s = 0.2 + 20 * (launch_s + std::min(3 * launch_s, 0.03)) + (sustained ? 0.7 + 20 * launch_s : 0);
  row.keys = {{"gpu", table.gpu},
              {"model", model},
              {"layer", layer},
              {"pass", to_string(s.pass)},
              {"tokens", std::to_string(s.tokens)},
              {"in", std::to_string(s.in)},
              {"out", std::to_string(s.out)},
              {"data", zeros ? "zeros" : "normal"}};
  row.run = [s, zeros, window = sustained ? std::optional<Window>(kWindow) : std::nullopt](Rig& rig) {
    return run_gemm(rig, s, zeros, window);
  };
  table.rows.push_back(std::move(row));
}

struct Layer {
  const char* name;
  int64_t in, out;
};

// The shapes of scenarios/models/. What one model shares with another is left to the first (the 7B and 13B of the Ring
// Attention paper are Llama 2's, its 30B is its 33B but for the depth, LWM is Llama 2 7B); a test reads the models and
// finds each shape in the measured files. The largest models at 1K tokens: 8K would take 0.15 s a launch.
struct Model {
  const char* name;
  bool sustained;
  std::vector<int64_t> tokens;
  std::vector<Layer> layers;
};

std::vector<Layer> gated(int64_t hidden, int64_t kv, int64_t inner, int64_t vocabulary) {
  return {{"qkv", hidden, hidden + 2 * kv},
          {"attention_out", hidden, hidden},
          {"gate_up", hidden, 2 * inner},
          {"down", inner, hidden},
          {"logits", hidden, vocabulary}};
}

// Of the form of GPT-3: one matrix into the MLP, of 4 hidden.
std::vector<Layer> plain(int64_t hidden, int64_t vocabulary) {
  return {{"qkv", hidden, 3 * hidden},
          {"attention_out", hidden, hidden},
          {"up", hidden, 4 * hidden},
          {"down", 4 * hidden, hidden},
          {"logits", hidden, vocabulary}};
}

// What tensor parallelism leaves of layers: few tiles, and widths that are no multiple of one.
void add_shards(Table& table) {
  struct Sharded {
    const char* model;
    std::vector<Layer> layers;
  };
  const Sharded models[] = {{"llama2_7b", gated(4096, 4096, 11008, 32000)},
                            {"llama2_13b", gated(5120, 5120, 13824, 32000)},
                            {"llama3_70b", gated(8192, 1024, 28672, 128256)}};
  for (const Sharded& m : models) {
    for (int64_t degree : {2, 8}) {
      for (const Layer& layer : m.layers) {
        const std::string name = layer.name;
        const bool rows = name == "attention_out" || name == "down";  // these split what they sum over
        for (int64_t tokens : {1536, 4096}) {
          const GemmShape shape{tokens, rows ? layer.in / degree : layer.in, rows ? layer.out : layer.out / degree};
          add(table, m.model, name + "_of_" + std::to_string(degree), shape, false);
          table.rows.back().in_full = false;
        }
      }
    }
  }
}

// Sizes that nobody chose: from 256 to 32K, multiples of 8, 64 and 256 by turns.
void add_any_sizes(Table& table) {
  std::mt19937_64 random(1);
  const auto size = [&](int64_t multiple, double least, double most) {
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    return static_cast<int64_t>(least * std::pow(most / least, uniform)) / multiple * multiple;
  };
  for (int i = 0; i < 72; ++i) {
    const int64_t multiple = std::array{8, 64, 256}[static_cast<size_t>(i % 3)];
    const auto pass = static_cast<GemmPass>(i / 3 % 3);
    const int64_t tokens = size(multiple, 256, 32768), in = size(multiple, 512, 16384),
                  out = size(multiple, 256, 32768);
    add(table, "any", std::to_string(i), {tokens, in, out, pass}, false);
    table.rows.back().in_full = false;
  }
}

}  // namespace

void add_gemm_rows(Table& table) {
  table.groups.push_back({"gemm", "projections, MLP and logits through cuBLASLt",
                          result_columns("us", {"gpu", "model", "layer", "pass", "tokens", "in", "out", "data"}), ""});

  add(table, "reference", "square", {8192, 8192, 8192, GemmPass::forward}, true, true);
  add(table, "reference", "square", {8192, 8192, 8192, GemmPass::forward}, true, true, true);
  const Model models[] = {
      {"llama2_7b", true, {1024, 8192}, gated(4096, 4096, 11008, 32000)},
      {"llama2_13b", true, {1024, 8192}, gated(5120, 5120, 13824, 32000)},
      {"llama2_70b", true, {8192}, {{"logits", 8192, 32000}}},
      {"llama3_8b", true, {1024, 8192}, gated(4096, 1024, 14336, 128256)},
      {"llama3_8b", false, {256, 512, 2048, 4096, 32768}, gated(4096, 1024, 14336, 128256)},
      {"llama3_70b", true, {1024, 8192}, gated(8192, 1024, 28672, 128256)},
      {"llama3_405b", false, {8192}, gated(16384, 1024, 53248, 128256)},
      {"ring_paper_3b", false, {8192}, gated(3200, 3200, 8640, 32000)},
      {"ring_paper_33b", false, {8192}, gated(7168, 7168, 19200, 32000)},
      {"ring_paper_65b", false, {8192}, {{"qkv", 8192, 24576}, {"gate_up", 8192, 44032}, {"down", 22016, 8192}}},
      {"ring_paper_175b", false, {1024}, plain(12288, 50257)},
      {"ring_paper_1tb", false, {1024}, plain(36864, 50257)},
  };
  for (const Model& m : models) {
    for (int64_t t : m.tokens) {
      for (const Layer& layer : m.layers) {
        const std::string name = layer.name;
        if (name == "logits" && t > 8192) continue;
        const bool quick = m.name == std::string("llama3_8b") && t == 8192 && (name == "gate_up" || name == "down");
        add(table, m.name, name, {t, layer.in, layer.out}, m.sustained, quick);
      }
    }
  }
  for (GemmPass pass : {GemmPass::input_gradient, GemmPass::weight_gradient}) {
    for (const Layer& layer : gated(4096, 1024, 14336, 128256)) {
      add(table, "llama3_8b", layer.name, {8192, layer.in, layer.out, pass}, true);
    }
    add(table, "ring_paper_175b", "logits", {1024, 12288, 50257, pass}, false);
    table.rows.back().in_full = false;
  }
  // Hopper's kernels load and store tiles by TMA, whose rows must be multiples of 16 bytes apart: for other matrices
  // the library has kernels of older GPUs. GPT-2's vocabulary, and the same padded to rows of 4, 8 and 16 bytes.
  for (int64_t out : {50257, 50258, 50260, 50264}) {
    for (GemmPass pass : {GemmPass::forward, GemmPass::input_gradient, GemmPass::weight_gradient}) {
      add(table, "gpt2_xl", "logits_" + std::to_string(out), {1024, 1600, out, pass}, false);
      table.rows.back().in_full = false;
    }
  }
  add_shards(table);
  add_any_sizes(table);
}

}  // namespace orrery
