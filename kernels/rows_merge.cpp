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

  // Random inputs; what the kernel shall write without reading it is poisoned.
  MergeBuffers(Variant variant, const MergeShape& s, uint64_t seed, cudaStream_t stream) {
    const auto n = static_cast<size_t>(s.elements()), rows = static_cast<size_t>(s.n_q * s.heads);
    const bool wide = variant == Variant::f32;
    o = DeviceBuffer(n * 4);
    lse = DeviceBuffer(rows * 4);
    lse2 = DeviceBuffer(rows * 4);
    block = DeviceBuffer(n * (wide ? 4 : 2));
    fill_normal_f32(o.get(), n, seed + 1, stream);
    fill_normal_f32(lse.get(), rows, seed + 2, stream);
    fill_normal_f32(lse2.get(), rows, seed + 3, stream);
    if (wide) {
      fill_normal_f32(block.get(), n, seed + 4, stream);
    } else {
      fill_normal_bf16(block.get(), n, seed + 4, stream);
    }
    if (variant == Variant::eager) scratch = DeviceBuffer((2 * n + 3 * rows) * 4);
    if (variant == Variant::eager) poison(scratch.get(), scratch.bytes(), stream);
    if (variant == Variant::first) poison(o.get(), o.bytes(), stream);
    if (variant == Variant::first) poison(lse.get(), lse.bytes(), stream);
    if (variant == Variant::cast) poison(block.get(), block.bytes(), stream);
  }
};

void launch(Variant variant, const MergeShape& s, const MergeBuffers& b, cudaStream_t stream) {
  auto *o = b.o.as<float>(), *lse = b.lse.as<float>();
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
}

// Some tokens of the buffers, on the host.
struct Part {
  Doubles o, lse, block, lse2;

  Part(const MergeBuffers& b, const MergeShape& s, bool wide, int64_t token, int64_t tokens) {
    const int64_t row = s.heads * s.head_dim;
    const auto count = static_cast<size_t>(tokens * row), rows = static_cast<size_t>(s.n_q * s.heads);
    o = download_f32(b.o.as<float>() + token * row, count);
    block = wide ? download_f32(b.block.as<float>() + token * row, count)
                 : download_bf16(b.block.as<uint16_t>() + token * row, count);
    auto of_tokens = [&](const DeviceBuffer& buffer) {  // [heads][n_q]
      const Doubles all = download_f32(buffer.get(), rows);
      Doubles out;
      for (int64_t h = 0; h < s.heads; ++h) {
        const auto from = all.begin() + h * s.n_q + token;
        out.insert(out.end(), from, from + tokens);
      }
      return out;
    };
    lse = of_tokens(b.lse);
    lse2 = of_tokens(b.lse2);
  }
};

Difference compare(Variant variant, const MergeShape& s, Part before, const Part& after, int64_t tokens) {
  switch (variant) {
    case Variant::cast:
      return difference(after.block, before.o, s.head_dim);
    case Variant::accumulate:
      for (size_t i = 0; i < before.o.size(); ++i) before.o[i] += before.block[i];
      return difference(after.o, before.o, s.head_dim);
    case Variant::first:
      before.o = before.block;
      before.lse = before.lse2;
      break;
    default:
      reference_merge(before.o, before.lse, before.block, before.lse2, s.head_dim, tokens, s.heads);
  }
  const Difference o = difference(after.o, before.o, s.head_dim), lse = difference(after.lse, before.lse, tokens);
  return {std::max(o.norm, lse.norm), std::max(o.row_max, lse.row_max)};
}

// Launches once; compares the first tokens and the last ones.
Difference check(Variant variant, const MergeShape& s, const MergeBuffers& b, const Stream& stream) {
  const int64_t some = std::min<int64_t>(s.n_q, 64);
  const bool wide = variant == Variant::f32;
  const std::vector<int64_t> tokens{0, s.n_q - some};
  stream.sync();
  std::vector<Part> before;
  for (int64_t token : tokens) before.emplace_back(b, s, wide, token, some);
  launch(variant, s, b, stream);
  stream.sync();
  Difference error;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Difference d = compare(variant, s, before[i], Part(b, s, wide, tokens[i], some), some);
    error = {std::max(error.norm, d.norm), std::max(error.row_max, d.row_max)};
  }
  return error;
}

Outcome run_merge(Rig& rig, Variant variant, const MergeShape& s) {
  const double bytes = merge_bytes(variant, s);
  Work work;
  work.sets = rotation_sets(rig, bytes);
  std::vector<MergeBuffers> data;
  for (int i = 0; i < work.sets; ++i) data.emplace_back(variant, s, 100 + 4 * static_cast<uint64_t>(i), rig.stream);
  work.launch = [&](cudaStream_t stream, int set) { launch(variant, s, data[static_cast<size_t>(set)], stream); };
  const Difference error = check(variant, s, data.front(), rig.stream);
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
  // Two products and a sum an element, and the weights of a row, which count little; a sum; nothing.
  const bool merges = variant == Variant::block || variant == Variant::f32 || variant == Variant::eager;
  row.flops = (merges ? 3.0 : variant == Variant::accumulate ? 1.0 : 0.0) * static_cast<double>(s.elements());
  row.quick = quick;
  row.expected_s = 0.2;
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
