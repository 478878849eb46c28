// Group `merge`: merging partial results and the gradient sums of the ring, whose time is bytes over memory bandwidth.
#include <cmath>

#include "kernels/merge.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

constexpr int64_t K = 1024;

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
  return checked_and_timed(rig, work, error, variant == Variant::cast ? kBf16Tolerance : 1e-5, bytes);
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
  row.expected_s = 0.4;
  row.keys = {{"gpu", table.gpu},
              {"kernel", name_of(variant)},
              {"n_q", std::to_string(n)},
              {"heads", std::to_string(heads)},
              {"head_dim", std::to_string(d)}};
  row.run = [variant, s](Rig& rig) { return run_merge(rig, variant, s); };
  table.rows.push_back(std::move(row));
}

}  // namespace

void add_merge_rows(Table& table) {
  table.groups.push_back({"merge", "merging partial attention results, and the sums of the backward ring",
                          result_columns("us", {"gpu", "kernel", "n_q", "heads", "head_dim"}), ""});
  for (Variant v : {Variant::block, Variant::f32, Variant::eager}) {
    for (int64_t n : {K / 2, K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K}) add_merge(table, v, n, 32, 128, n == 8 * K);
  }
  for (Variant v : {Variant::first, Variant::accumulate, Variant::cast}) {
    for (int64_t n : {K, 8 * K}) add_merge(table, v, n, 32, 128, n == 8 * K);
  }
  for (int64_t n : {K / 64, K / 16, K / 4}) add_merge(table, Variant::block, n, 32, 128, false);
  add_merge(table, Variant::block, 8 * K, 32, 64, false);
  add_merge(table, Variant::block, 8 * K, 64, 128, false);
}

}  // namespace orrery
