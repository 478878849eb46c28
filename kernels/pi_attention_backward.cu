#include "kernels/pi_attention.hpp"
#include "kernels/pi_attention_gradient.cuh"
#include "kernels/pi_attention_launch.hpp"

namespace orrery {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr int kStatisticsThreads = 256;

// Where the rows of a pass are: the window (period 1) or the set of skips.
struct PassRows {
  int64_t period = 1, residues = 1, padded_rows = 0;
  PassRows(int64_t n, int64_t p) : period(p), residues(std::min(p, n)) {
    padded_rows = (RowClasses(n, p).rows[0] + kTileRows - 1) / kTileRows * kTileRows;
  }
  int64_t count(int64_t heads) const { return residues * heads * padded_rows; }
  __device__ int64_t at(int64_t token, int64_t head, int64_t heads) const {
    return (token % period * heads + head) * padded_rows + token / period;
  }
};

struct Statistics {
  float *l, *delta;
};

struct StatisticsParams {
  PiAttentionShape s;
  PiAttentionBackward t;
  bool gated, single, set;  // gated with skips; skips are one key; skips are a pass of their own
  int64_t first_row_with_skips;
  PassRows window_rows, skip_rows;
  Statistics window, skips;
  float* value_weight;
};

// The lane's eight numbers of a row times those of another, summed over the D / 8 lanes of the row.
template <int D>
__device__ float dot(const uint4& a, const uint4& b) {
  using hopper::unpack_bf16;
  const uint32_t x[] = {a.x, a.y, a.z, a.w}, y[] = {b.x, b.y, b.z, b.w};
  float sum = 0;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float2 u = unpack_bf16(x[c]), v = unpack_bf16(y[c]);
    sum += u.x * v.x + u.y * v.y;
  }
#pragma unroll
  for (int k = D / 16; k > 0; k /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, k);
  return sum;
}

// For every row (i, head): L and delta of each pass with the gate folded in, and the gate's gradient.
//   O = g W + (1 - g) S, the gradients of W and S are g dO and (1 - g) dO. With P' = g P, that is L' = L - log2 g, and
//   delta' = dO.W, the window's kernels need no gate; and likewise with 1 - g and dO.S for the skips.
//   d gate_logit = g (1 - g) dO.(W - S). Of W and S only one is at hand: O gives the other.
// Grid: any. A row is D / 8 lanes, 16 bytes a lane; heads are fastest. Everything a row reads is asked for at once.
template <int D>
__global__ void __launch_bounds__(kStatisticsThreads) statistics_kernel(StatisticsParams p) {
  constexpr int kLanes = D / 8, kRows = kStatisticsThreads / kLanes;
  const PiAttentionShape& s = p.s;
  const int lane = threadIdx.x % kLanes;
  const int64_t rows = s.n * s.heads, stride = int64_t(gridDim.x) * kRows;
  const int64_t stride_tokens = stride / s.heads, stride_heads = stride % s.heads;
  const auto group = static_cast<unsigned>(s.heads / s.kv_heads);
  int64_t i = (int64_t(blockIdx.x) * kRows + threadIdx.x / kLanes) / s.heads;
  int64_t head = (int64_t(blockIdx.x) * kRows + threadIdx.x / kLanes) % s.heads;
  auto load = [&](const void* data, int64_t row, bool wanted) {
    return wanted ? __ldg(static_cast<const uint4*>(data) + row * kLanes + lane) : uint4{};
  };
  for (int64_t first = int64_t(blockIdx.x) * kRows; first < rows; first += stride) {  // all lanes stay: they shuffle
    const bool exists = i < s.n, has_skips = exists && p.gated && i >= p.first_row_with_skips;
    const int64_t row = i * s.heads + head, statistic = head * s.n + i;
    const uint4 d_o = load(p.t.d_o, row, exists), out = load(p.t.o, row, exists);
    const uint4 other = p.single
                            ? load(p.t.v, (i - s.period) * s.kv_heads + static_cast<unsigned>(head) / group, has_skips)
                            : load(p.t.o_window, row, has_skips);
    const float lse = exists ? __ldg(p.t.lse + statistic) : 0;
    const float logit = has_skips ? fminf(fmaxf(__ldg(p.t.gate_logit + statistic), -60.0f), 60.0f) : 0;
    const float lse_skips = p.set && p.gated && exists ? __ldg(p.t.lse_skips + statistic) : lse;
    const float o = dot<D>(d_o, out), with_other = dot<D>(d_o, other);
    if (lane == 0 && exists) {
      const float g = has_skips ? 1.0f / (1.0f + __expf(-logit)) : 1.0f;
      const float rest = 1.0f / (1.0f + __expf(logit));  // 1 - g without cancellation
      float with_window = o, with_skips = o;
      if (has_skips) {
        with_skips = p.single ? with_other : (o - g * with_other) / rest;
        with_window = p.single ? (o - rest * with_other) / g : with_other;
      }
      constexpr auto kToLog2 = static_cast<float>(kLog2E);
      const int64_t to = head * p.window_rows.padded_rows + i;  // one residue
      p.window.l[to] = kToLog2 * (lse + (has_skips ? log1pf(__expf(-logit)) : 0.0f));
      p.window.delta[to] = with_window;
      if (p.value_weight) p.value_weight[to] = has_skips ? rest : 0.0f;
      // The one of the two that O was not needed for is exact; g (1 - g) (W - S) = g (W - O) = (1 - g) (O - S).
      if (p.gated) {
        p.t.d_gate_logit[statistic] = !has_skips ? 0.0f : p.single ? rest * (o - with_skips) : g * (with_window - o);
      }
      if (p.set) {
        const int64_t skip_to = p.skip_rows.at(i, head, s.heads);
        // A row without skips has none in the band either; any finite L will do.
        p.skips.l[skip_to] =
            p.gated && !has_skips ? 0.0f : kToLog2 * (lse_skips + (has_skips ? log1pf(__expf(logit)) : 0.0f));
        p.skips.delta[skip_to] = with_skips;
      }
    }
    i += stride_tokens;
    head += stride_heads;
    if (head >= s.heads) {
      head -= s.heads;
      ++i;
    }
  }
}

struct GradientCall {
  const PiAttentionShape& s;
  const PiAttentionBackward& t;
  PassRows rows;
  int64_t lag_min, lag_max, extra_lag;
  Statistics statistics;
  const float* value_weight;
  bool accumulate;
};

GradientParams gradient_params(const GradientCall& c, Of of) {
  const PiAttentionShape& s = c.s;
  const bool keys = of == Of::keys;
  GradientParams p;
  const RowClasses classes(s.n, c.rows.period);
  p.long_residues = static_cast<int32_t>(classes.long_residues);
  const int64_t row_heads = keys ? s.kv_heads : s.heads, step_heads = keys ? s.heads : s.kv_heads;
  for (int kind = 0; kind < 2; ++kind) {
    const int64_t n = classes.rows[kind], residues = classes.in_view[kind], period = c.rows.period;
    const Band band = {static_cast<int32_t>(n), static_cast<int32_t>(n), clamp_lag(c.lag_min), clamp_lag(c.lag_max),
                       clamp_lag(keys || !c.value_weight ? c.extra_lag : 0)};
    p.band[kind] = keys ? band.transposed() : band;
    GradientMaps& m = p.maps[kind];
    m.a1 = tensor_map({keys ? c.t.k : c.t.q, row_heads, s.head_dim, n, residues, period}, kTileRows);
    m.a2 = tensor_map({keys ? c.t.v : c.t.d_o, row_heads, s.head_dim, n, residues, period}, kTileRows);
    m.b1 = tensor_map({keys ? c.t.q : c.t.k, step_heads, s.head_dim, n, residues, period}, kGradientStep);
    m.b2 = tensor_map({keys ? c.t.d_o : c.t.v, step_heads, s.head_dim, n, residues, period}, kGradientStep);
  }
  p.heads = static_cast<int32_t>(s.heads);
  p.group = static_cast<int32_t>(s.heads / s.kv_heads);
  p.out_heads = static_cast<int32_t>(row_heads);
  p.order = tile_order("pi_attention_backward", classes, s.kv_heads, keys ? 1 : p.group,
                       classes.rows[0] * s.head_dim * 4 * (keys ? p.group : 1));
  p.tiles = static_cast<int32_t>(p.order.tiles());
  p.period = static_cast<int32_t>(c.rows.period);
  p.padded_rows = static_cast<int32_t>(c.rows.padded_rows);
  p.l = c.statistics.l;
  p.delta = c.statistics.delta;
  p.value_weight = c.value_weight;
  p.scale = static_cast<float>(s.scale());
  p.scale_log2 = static_cast<float>(kLog2E * s.scale());
  p.d1 = static_cast<__nv_bfloat16*>(keys ? c.t.dk : c.t.dq);
  p.d2 = static_cast<__nv_bfloat16*>(keys ? c.t.dv : nullptr);
  p.accumulate = c.accumulate;
  return p;
}

template <int D, Of kOf>
void launch(const GradientCall& call, cudaStream_t stream) {
  const GradientParams p = gradient_params(call, kOf);
  auto* kernel = gradient_kernel<D, kOf>;
  ORRERY_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, GradientShared<D>::kBytes));
  kernel<<<std::min(hopper_multiprocessors(), p.tiles), 3 * hopper::kWarpgroup, GradientShared<D>::kBytes, stream>>>(p);
  ORRERY_LAUNCHED();
}

template <int D>
void backward(const PiAttentionShape& s, const PiAttentionBackward& t, cudaStream_t stream) {
  StatisticsParams p{s,
                     t,
                     s.fusion == Fusion::gated && s.has_skips(),
                     s.skips == 1,
                     s.has_skips() && s.skips > 1,
                     s.first_skip() * s.period,
                     PassRows(s.n, 1),
                     PassRows(s.n, std::max<int64_t>(1, s.period)),
                     {},
                     {},
                     nullptr};
  auto* next = static_cast<float*>(t.workspace);
  auto take = [&](const PassRows& rows, int byte) {
    float* out = next;
    next += rows.count(s.heads);
    ORRERY_CUDA(cudaMemsetAsync(out, byte, static_cast<size_t>(rows.count(s.heads)) * 4, stream));
    return out;
  };
  constexpr int kHuge = 0x7f;  // as all bytes of a float 3.4e38: rows past the end have P = 0
  p.window = {take(p.window_rows, kHuge), take(p.window_rows, 0)};
  const bool gated_value = p.gated && p.single;
  if (gated_value) p.value_weight = take(p.window_rows, 0);
  if (p.set) p.skips = {take(p.skip_rows, kHuge), take(p.skip_rows, 0)};

  constexpr int kRows = kStatisticsThreads / (D / 8);
  const int64_t blocks = std::min<int64_t>((s.n * s.heads + kRows - 1) / kRows, 64 * hopper_multiprocessors());
  statistics_kernel<D><<<static_cast<unsigned>(blocks), kStatisticsThreads, 0, stream>>>(p);
  ORRERY_LAUNCHED();
  const int64_t extra = s.has_skips() && s.skips == 1 ? s.period : 0;
  const GradientCall window{s, t, p.window_rows, 0, s.window - 1, extra, p.window, p.value_weight, false};
  launch<D, Of::queries>(window, stream);
  launch<D, Of::keys>(window, stream);
  if (!p.set) return;
  const GradientCall skips{s, t, p.skip_rows, s.first_skip(), s.skips, 0, p.skips, nullptr, true};
  launch<D, Of::queries>(skips, stream);
  launch<D, Of::keys>(skips, stream);
}

}  // namespace

size_t pi_attention_workspace(const PiAttentionShape& s) {
  const bool set = s.has_skips() && s.skips > 1;
  const int64_t window = PassRows(s.n, 1).count(s.heads);
  return static_cast<size_t>(3 * window + (set ? 2 * PassRows(s.n, s.period).count(s.heads) : 0)) * 4;
}

void pi_attention_backward(const PiAttentionShape& s, const PiAttentionBackward& t, cudaStream_t stream) {
  constexpr const char* kWhat = "pi_attention_backward";
  hopper_multiprocessors();
  require_pi_shape(kWhat, s);
  require_aligned(kWhat, {t.q, t.k, t.v, t.o, t.d_o, t.lse, t.dq, t.dk, t.dv, t.workspace});
  const bool gated = s.fusion == Fusion::gated && s.has_skips();
  require(!gated || (t.gate_logit && t.d_gate_logit), kWhat, "gate_logit or its gradient is missing (null pointer)");
  require(!gated || s.skips == 1 || (t.lse_skips && t.o_window), kWhat,
          "lse_skips or o_window is missing (null pointer)");
  if (gated && s.skips > 1) require_aligned(kWhat, {t.o_window});
  require(s.n * s.heads < (int64_t{1} << 33), kWhat, "at most 2^33 rows");
  s.head_dim == 64 ? backward<64>(s, t, stream) : backward<128>(s, t, stream);
}

}  // namespace orrery
