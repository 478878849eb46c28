// Groups `merge` and `elementwise`: kernels whose time is bytes over memory bandwidth.
#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/merge.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

constexpr int64_t K = 1024;

std::vector<std::string> columns_with_results(std::vector<std::string> keys) {
  for (const std::string& c : result_columns("us")) keys.push_back(c);
  return keys;
}

Outcome timed(Rig& rig, const Work& work, const Difference& error, double tolerance, double bytes) {
  Outcome out;
  out.values = checked(error, tolerance);
  const Measurement m = measure(rig, work);
  for (auto& f : result_fields(m, "us")) out.values.push_back(f);
  out.headline = bytes / m.us.median * 1e-3;
  out.headline_unit = "GB/s";
  return out;
}

// ---- merge -------------------------------------------------------------------------------------------------------

enum class Variant { block, f32, first, eager, accumulate, cast };
const char* name_of(Variant v) {
  switch (v) {
    case Variant::block:
      return "merge_block";
    case Variant::f32:
      return "merge_f32";
    case Variant::first:
      return "merge_first";
    case Variant::eager:
      return "merge_eager";
    case Variant::accumulate:
      return "accumulate";
    case Variant::cast:
      return "to_bf16";
  }
  return "";
}
const char* what_of(Variant v) {
  switch (v) {
    case Variant::block:
      return "fp32 (O, LSE) merged with a bf16 block, one kernel";
    case Variant::f32:
      return "fp32 (O, LSE) merged with another in fp32, one kernel";
    case Variant::first:
      return "the first block taken into fp32";
    case Variant::eager:
      return "the merge as seven elementwise kernels, as eager frameworks run it";
    case Variant::accumulate:
      return "fp32 gradient += bf16 gradient of a block";
    case Variant::cast:
      return "fp32 result to bf16";
  }
  return "";
}
double bytes_per_element(Variant v) {
  switch (v) {
    case Variant::block:
      return 10;
    case Variant::f32:
      return 12;
    case Variant::first:
      return 6;
    case Variant::eager:
      return 6 + 12 + 8 + 12;
    case Variant::accumulate:
      return 10;
    case Variant::cast:
      return 6;
  }
  return 0;
}
double merge_bytes(Variant v, const MergeShape& s) {
  const auto rows = static_cast<double>(s.n_q * s.heads);
  const double per_row = v == Variant::eager                              ? 8 + 4 + 4 + 12 + 12
                         : v == Variant::accumulate || v == Variant::cast ? 0
                         : v == Variant::first                            ? 8
                                                                          : 12;
  return bytes_per_element(v) * static_cast<double>(s.elements()) + per_row * rows;
}

struct MergeBuffers {
  DeviceBuffer o, lse, block, lse2, scratch;
};

Outcome run_merge(Rig& rig, Variant variant, const MergeShape& s) {
  const auto n = static_cast<size_t>(s.elements()), rows = static_cast<size_t>(s.n_q * s.heads);
  const double bytes = merge_bytes(variant, s);
  const int sets = rotation_sets(rig, bytes);
  const bool wide = variant == Variant::f32;
  std::vector<MergeBuffers> data(static_cast<size_t>(sets));
  uint64_t seed = 100;
  for (MergeBuffers& b : data) {
    b.o = DeviceBuffer(n * 4);
    b.lse = DeviceBuffer(rows * 4);
    b.lse2 = DeviceBuffer(rows * 4);
    b.block = DeviceBuffer(n * (wide ? 4 : 2));
    fill_normal_f32(b.o.get(), n, ++seed, rig.stream);
    fill_normal_f32(b.lse.get(), rows, ++seed, rig.stream);
    fill_normal_f32(b.lse2.get(), rows, ++seed, rig.stream);
    if (wide) {
      fill_normal_f32(b.block.get(), n, ++seed, rig.stream);
    } else {
      fill_normal_bf16(b.block.get(), n, ++seed, rig.stream);
    }
    if (variant == Variant::eager) {
      b.scratch = DeviceBuffer((2 * n + 3 * rows) * 4);
      poison(b.scratch.get(), b.scratch.bytes(), rig.stream);
    }
    if (variant == Variant::first) {
      poison(b.o.get(), b.o.bytes(), rig.stream);
      poison(b.lse.get(), b.lse.bytes(), rig.stream);
    }
    if (variant == Variant::cast) poison(b.block.get(), b.block.bytes(), rig.stream);
  }
  Work work;
  work.sets = sets;
  work.launch = [&](cudaStream_t stream, int set) {
    const MergeBuffers& b = data[static_cast<size_t>(set)];
    auto* o = b.o.as<float>();
    auto* lse = b.lse.as<float>();
    const auto* lse2 = b.lse2.as<float>();
    switch (variant) {
      case Variant::block:
        return merge_block(s, o, lse, b.block.get(), lse2, false, stream);
      case Variant::first:
        return merge_block(s, o, lse, b.block.get(), lse2, true, stream);
      case Variant::f32:
        return merge_f32(s, o, lse, b.block.as<float>(), lse2, stream);
      case Variant::eager:
        return merge_eager(s, o, lse, b.block.get(), lse2, b.scratch.as<float>(), stream);
      case Variant::accumulate:
        return accumulate(o, b.block.get(), s.elements(), false, stream);
      case Variant::cast:
        return to_bf16(b.block.get(), o, s.elements(), stream);
    }
  };
  // Checked on every row of the first tokens and of the last ones.
  const MergeBuffers& b = data.front();
  const int64_t some = std::min<int64_t>(s.n_q, 64);
  auto part = [&](const DeviceBuffer& buffer, bool f32, int64_t token) {
    const char* at = buffer.as<char>() + token * s.heads * s.head_dim * (f32 ? 4 : 2);
    const auto count = static_cast<size_t>(some * s.heads * s.head_dim);
    return f32 ? download_f32(at, count) : download_bf16(at, count);
  };
  auto part_lse = [&](const DeviceBuffer& buffer, int64_t token) {
    const Doubles all = download_f32(buffer.get(), rows);
    Doubles out;
    for (int64_t h = 0; h < s.heads; ++h) {
      out.insert(out.end(), all.begin() + h * s.n_q + token, all.begin() + h * s.n_q + token + some);
    }
    return out;
  };
  Difference error;
  rig.stream.sync();
  std::vector<Doubles> o, lse, block, lse2;
  const std::vector<int64_t> tokens{0, s.n_q - some};
  for (int64_t t : tokens) {
    o.push_back(part(b.o, true, t));
    lse.push_back(part_lse(b.lse, t));
    block.push_back(part(b.block, wide, t));
    lse2.push_back(part_lse(b.lse2, t));
  }
  work.launch(rig.stream, 0);
  rig.stream.sync();
  for (size_t i = 0; i < tokens.size(); ++i) {
    Difference d;
    if (variant == Variant::cast) {
      d = difference(part(b.block, false, tokens[i]), o[i], s.head_dim);
    } else if (variant == Variant::accumulate) {
      Doubles sum = o[i];
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += block[i][c];
      d = difference(part(b.o, true, tokens[i]), sum, s.head_dim);
    } else {
      if (variant == Variant::first) {
        o[i] = block[i];
        lse[i] = lse2[i];
      } else {
        reference_merge(o[i], lse[i], block[i], lse2[i], s.head_dim, some, s.heads);
      }
      const Difference of_lse = difference(part_lse(b.lse, tokens[i]), lse[i], some);
      d = difference(part(b.o, true, tokens[i]), o[i], s.head_dim);
      d = {std::max(d.norm, of_lse.norm), std::max(d.row_max, of_lse.row_max)};
    }
    error = {std::max(error.norm, d.norm), std::max(error.row_max, d.row_max)};
  }
  return timed(rig, work, error, variant == Variant::cast ? kBf16Tolerance : 1e-5, bytes);
}

void add_merge(Table& table, Variant variant, int64_t n, int64_t heads, int64_t d, bool quick) {
  MergeShape s;
  s.n_q = n;
  s.heads = heads;
  s.head_dim = d;
  Row row;
  row.group = "merge";
  row.name = std::string("merge/") + name_of(variant) + "/h" + std::to_string(heads) + "/d" + std::to_string(d) + "/n" +
             std::to_string(n);
  row.what = what_of(variant);
  row.bytes = merge_bytes(variant, s);
  row.flops = 4.0 * static_cast<double>(s.elements());
  row.quick = quick;
  row.expected_s = 0.6;
  row.keys = {{"gpu", table.gpu},
              {"kernel", name_of(variant)},
              {"n_q", std::to_string(n)},
              {"heads", std::to_string(heads)},
              {"head_dim", std::to_string(d)}};
  row.run = [variant, s](Rig& rig) { return run_merge(rig, variant, s); };
  table.rows.push_back(std::move(row));
}

// ---- elementwise -------------------------------------------------------------------------------------------------

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
  DeviceBuffer weight(static_cast<size_t>(width) * 2), table, index;
  fill_normal_bf16(weight.get(), static_cast<size_t>(width), 7, setup);
  if (kernel == Kernel::rotary) {
    table = DeviceBuffer(static_cast<size_t>(tokens) * 64 * 8);
    rotary_table(table.get(), tokens, 128, 500000.0, setup);
  }
  if (kernel == Kernel::embed) {
    table = DeviceBuffer(static_cast<size_t>(kVocabulary * width) * 2);
    fill_normal_bf16(table.get(), static_cast<size_t>(kVocabulary * width), 8, setup);
    index = DeviceBuffer(static_cast<size_t>(tokens) * 4);
    fill_indices(index.get(), static_cast<size_t>(tokens), kVocabulary, 9, setup);
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
    if (kernel == Kernel::rotary) fill_normal_bf16(v.out.get(), n, ++seed, setup);
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
        return rotary(v.out.get(), table.get(), tokens, width / 128, 128, stream);
      case Kernel::embed:
        return embed(v.out.get(), table.get(), index.get(), tokens, width, stream);
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
      ORRERY_CUDA(cudaMemcpy(&token, index.as<uint32_t>() + row, 4, cudaMemcpyDeviceToHost));
      a.push_back(row_of(table, token));
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
  return timed(rig, work, error, kBf16Tolerance, bytes);
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
  row.expected_s = 0.6;
  row.keys = {{"gpu", table.gpu},
              {"kernel", name_of(kernel)},
              {"tokens", std::to_string(tokens)},
              {"width", std::to_string(width)}};
  row.run = [kernel, tokens, width](Rig& rig) { return run_elementwise(rig, kernel, tokens, width); };
  table.rows.push_back(std::move(row));
}

}  // namespace

void add_memory_rows(Table& table) {
  table.groups.push_back({"merge", "merging partial attention results, and the sums of the backward ring",
                          columns_with_results({"gpu", "kernel", "n_q", "heads", "head_dim"}), ""});
  for (Variant v : {Variant::block, Variant::f32, Variant::eager}) {
    for (int64_t n : {K / 2, K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K}) add_merge(table, v, n, 32, 128, n == 8 * K);
  }
  for (Variant v : {Variant::first, Variant::accumulate, Variant::cast}) {
    for (int64_t n : {K, 8 * K}) add_merge(table, v, n, 32, 128, n == 8 * K);
  }
  add_merge(table, Variant::block, 8 * K, 32, 64, false);
  add_merge(table, Variant::block, 8 * K, 64, 128, false);

  table.groups.push_back({"elementwise", "HBM copy, norm, elementwise, rotary, embedding",
                          columns_with_results({"gpu", "kernel", "tokens", "width"}), ""});
  for (Kernel k : {Kernel::copy_driver, Kernel::copy_kernel}) {
    for (int64_t t : {K / 16, K / 4, K, 4 * K, 16 * K, 64 * K, 256 * K})
      add_elementwise(table, k, t, 4096, t == 64 * K);
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
}

}  // namespace orrery
