// Group `elementwise`: HBM copies and the memory-bound kernels of a transformer layer.
#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

constexpr int64_t K = 1024;

enum class Kernel { copy_driver, copy_kernel, rms_norm, add, swiglu, rotary, embed };
const char* name_of(Kernel k) {
  static const char* names[] = {"copy_driver", "copy_kernel", "rms_norm", "add", "swiglu", "rotary", "embed"};
  return names[static_cast<int>(k)];
}
const char* what_of(Kernel k) {
  static const char* text[] = {"device-to-device copy by the driver",
                               "device-to-device copy by a kernel",
                               "RMS norm of rows of hidden numbers",
                               "residual addition",
                               "silu(gate) * up of the MLP",
                               "rotary embedding of queries or keys, in place (heads of 128)",
                               "rows of the embedding table gathered by token"};
  return text[static_cast<int>(k)];
}
double elementwise_bytes(Kernel k, int64_t tokens, int64_t width) {
  const double one = 2.0 * static_cast<double>(tokens) * static_cast<double>(width);
  switch (k) {
    case Kernel::copy_driver:
    case Kernel::copy_kernel:
    case Kernel::rms_norm:
      return 2 * one;
    case Kernel::embed:
      return 2 * one + 4.0 * static_cast<double>(tokens);
    case Kernel::add:
    case Kernel::swiglu:
      return 3 * one;
    case Kernel::rotary:
      return 2 * one + 8.0 * 64 * static_cast<double>(tokens);
  }
  return 0;
}

constexpr int64_t kVocabulary = 128256;

struct Vectors {
  DeviceBuffer a, b, out;
  DeviceBuffer angles;  // of rotary
  DeviceBuffer tokens;  // of embed: other rows in every set, or the same ones would be found in L2
};

Doubles expected_row(Kernel k, const Doubles& a, const Doubles& b, int64_t token, int64_t width) {
  Doubles y = a;
  if (k == Kernel::rms_norm) {
    double sum = 0;
    for (double x : a) sum += x * x;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(width) + 1e-5);
    for (size_t i = 0; i < y.size(); ++i) y[i] = a[i] * scale * b[i];
  } else if (k == Kernel::add) {
    for (size_t i = 0; i < y.size(); ++i) y[i] += b[i];
  } else if (k == Kernel::swiglu) {
    for (size_t i = 0; i < y.size(); ++i) y[i] = a[i] / (1 + std::exp(-a[i])) * b[i];
  } else if (k == Kernel::rotary) {
    for (size_t head = 0; head < y.size() / 128; ++head) {
      for (size_t i = 0; i < 64; ++i) {
        const double angle = static_cast<double>(token) * std::pow(500000.0, -static_cast<double>(i) / 64);
        const double x0 = a[head * 128 + i], x1 = a[head * 128 + 64 + i];
        y[head * 128 + i] = x0 * std::cos(angle) - x1 * std::sin(angle);
        y[head * 128 + 64 + i] = x1 * std::cos(angle) + x0 * std::sin(angle);
      }
    }
  }
  return y;
}

Outcome run_elementwise(Rig& rig, Kernel kernel, int64_t tokens, int64_t width) {
  const auto n = static_cast<size_t>(tokens * width);
  const double bytes = elementwise_bytes(kernel, tokens, width);
  const int sets = rotation_sets(rig, bytes);
  const cudaStream_t setup = rig.stream;
  DeviceBuffer weight(static_cast<size_t>(width) * 2), embedding;
  fill_normal_bf16(weight.get(), static_cast<size_t>(width), 7, setup);
  if (kernel == Kernel::embed) {
    embedding = DeviceBuffer(static_cast<size_t>(kVocabulary * width) * 2);
    fill_normal_bf16(embedding.get(), static_cast<size_t>(kVocabulary * width), 8, setup);
  }
  std::vector<Vectors> data(static_cast<size_t>(sets));
  uint64_t seed = 500;
  for (Vectors& v : data) {
    v.out = DeviceBuffer(n * 2);
    poison(v.out.get(), n * 2, setup);
    if (kernel != Kernel::embed && kernel != Kernel::rotary) {
      v.a = DeviceBuffer(n * 2);
      fill_normal_bf16(v.a.get(), n, ++seed, setup);
    }
    if (kernel == Kernel::rotary) {
      fill_normal_bf16(v.out.get(), n, ++seed, setup);
      v.angles = DeviceBuffer(static_cast<size_t>(tokens) * 64 * 8);
      rotary_table(v.angles.get(), tokens, 128, 500000.0, setup);
    }
    if (kernel == Kernel::embed) {
      v.tokens = DeviceBuffer(static_cast<size_t>(tokens) * 4);
      fill_indices(v.tokens.get(), static_cast<size_t>(tokens), kVocabulary, ++seed, setup);
    }
    if (kernel == Kernel::add || kernel == Kernel::swiglu) {
      v.b = DeviceBuffer(n * 2);
      fill_normal_bf16(v.b.get(), n, ++seed, setup);
    }
  }
  Work work;
  work.sets = sets;
  work.launch = [&](cudaStream_t stream, int set) {
    const Vectors& v = data[static_cast<size_t>(set)];
    switch (kernel) {
      case Kernel::copy_driver:
        ORRERY_CUDA(cudaMemcpyAsync(v.out.get(), v.a.get(), n * 2, cudaMemcpyDeviceToDevice, stream));
        return;
      case Kernel::copy_kernel:
        return copy_kernel(v.out.get(), v.a.get(), static_cast<int64_t>(n * 2), stream);
      case Kernel::rms_norm:
        return rms_norm(v.out.get(), v.a.get(), weight.get(), tokens, width, stream);
      case Kernel::add:
        return add(v.out.get(), v.a.get(), v.b.get(), static_cast<int64_t>(n), stream);
      case Kernel::swiglu:
        return swiglu(v.out.get(), v.a.get(), v.b.get(), static_cast<int64_t>(n), stream);
      case Kernel::rotary:
        return rotary(v.out.get(), v.angles.get(), tokens, width / 128, 128, stream);
      case Kernel::embed:
        return embed(v.out.get(), embedding.get(), v.tokens.get(), tokens, width, stream);
    }
  };
  const std::vector<int64_t> rows{0, tokens / 3, tokens - 1};
  auto row_of = [&](const DeviceBuffer& b, int64_t row) {
    return download_bf16(b.as<char>() + row * width * 2, static_cast<size_t>(width));
  };
  std::vector<Doubles> a;
  rig.stream.sync();
  const Vectors& v = data.front();
  for (int64_t row : rows) {
    if (kernel == Kernel::embed) {
      uint32_t token = 0;
      ORRERY_CUDA(cudaMemcpy(&token, v.tokens.as<uint32_t>() + row, 4, cudaMemcpyDeviceToHost));
      a.push_back(row_of(embedding, token));
    } else {
      a.push_back(row_of(kernel == Kernel::rotary ? v.out : v.a, row));
    }
  }
  work.launch(rig.stream, 0);
  rig.stream.sync();
  Difference error;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Doubles b = kernel == Kernel::rms_norm ? row_of(weight, 0) : v.b.bytes() ? row_of(v.b, rows[i]) : Doubles();
    const Difference d = difference(row_of(v.out, rows[i]), expected_row(kernel, a[i], b, rows[i], width), width);
    error = {std::max(error.norm, d.norm), std::max(error.row_max, d.row_max)};
  }
  if (count_nonfinite_bf16(v.out.get(), n, rig.stream)) throw BenchError("outputs were not written");
  return checked_and_timed(rig, work, error, kBf16Tolerance, bytes);
}

void add_elementwise(Table& table, Kernel kernel, int64_t tokens, int64_t width, bool quick) {
  Row row;
  row.group = "elementwise";
  row.name =
      std::string("elementwise/") + name_of(kernel) + "/t" + std::to_string(tokens) + "/w" + std::to_string(width);
  for (const Row& other : table.rows) {
    if (other.name == row.name) return;
  }
  row.what = what_of(kernel);
  row.bytes = elementwise_bytes(kernel, tokens, width);
  row.quick = quick;
  row.expected_s = 0.2;
  row.keys = {{"gpu", table.gpu},
              {"kernel", name_of(kernel)},
              {"tokens", std::to_string(tokens)},
              {"width", std::to_string(width)}};
  row.run = [kernel, tokens, width](Rig& rig) { return run_elementwise(rig, kernel, tokens, width); };
  table.rows.push_back(std::move(row));
}

}  // namespace

void add_elementwise_rows(Table& table) {
  table.groups.push_back({"elementwise", "HBM copy, norm, elementwise, rotary, embedding",
                          result_columns("us", {"gpu", "kernel", "tokens", "width"}), ""});
  for (Kernel k : {Kernel::copy_driver, Kernel::copy_kernel}) {
    for (int64_t t : {K / 128, K / 32, K / 16, K / 4, K, 4 * K, 16 * K, 64 * K, 256 * K})
      add_elementwise(table, k, t, 4096, t == 64 * K);
  }
  // From 64 KiB: where the launch and the latency of memory count, and where L2 ends.
  for (Kernel k : {Kernel::rms_norm, Kernel::add, Kernel::swiglu, Kernel::rotary, Kernel::embed}) {
    for (int64_t t : {K / 128, K / 32, K / 8, K / 2}) add_elementwise(table, k, t, 4096, false);
  }
  for (int64_t t : {K, 8 * K, 32 * K}) {
    for (int64_t hidden : {4096, 5120, 8192}) {  // 7B and 8B, 13B, 70B
      add_elementwise(table, Kernel::rms_norm, t, hidden, t == 8 * K && hidden == 4096);
      add_elementwise(table, Kernel::add, t, hidden, t == 8 * K && hidden == 4096);
    }
    for (int64_t inner : {11008, 13824, 14336, 28672})
      add_elementwise(table, Kernel::swiglu, t, inner, t == 8 * K && inner == 14336);
    for (int64_t width : {1024, 4096, 8192})
      add_elementwise(table, Kernel::rotary, t, width, t == 8 * K && width == 4096);
    for (int64_t hidden : {4096, 8192}) add_elementwise(table, Kernel::embed, t, hidden, t == 8 * K && hidden == 4096);
  }
  // The other shipped models, at one number of tokens: 3B (its heads of 100 are turned by no kernel here), 13B, 33B,
  // 175B, 405B, 1T. Those without rotary positions or gates have none here either.
  for (int64_t hidden : {3200, 5120, 7168, 12288, 16384, 36864}) {
    add_elementwise(table, Kernel::rms_norm, 8 * K, hidden, false);
    add_elementwise(table, Kernel::add, 8 * K, hidden, false);
    add_elementwise(table, Kernel::embed, 8 * K, hidden, false);
  }
  for (int64_t inner : {8640, 19200, 22016, 53248}) add_elementwise(table, Kernel::swiglu, 8 * K, inner, false);
  for (int64_t width : {5120, 7168, 16384}) add_elementwise(table, Kernel::rotary, 8 * K, width, false);
}

}  // namespace orrery
