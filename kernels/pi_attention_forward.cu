#include "kernels/pi_attention.hpp"
#include "kernels/pi_attention_band_consume.cuh"
#include "kernels/pi_attention_band_copy.cuh"
#include "kernels/pi_attention_launch.hpp"

namespace orrery {

// Grid: at most one block a multiprocessor.
template <int D, Epilogue kEpilogue>
__global__ void __launch_bounds__(kBandThreads, 1) band_attention_kernel(const __grid_constant__ BandParams p) {
  using namespace hopper;
  using Sh = BandShared<D>;
  extern __shared__ char raw[];
  const Sh sh{(shared_address(raw) + 1023) / 1024 * 1024};
  if (threadIdx.x == 0) {
    constexpr int kWarps = 2 * hopper::kWarpgroup / 32;  // consumers
    for (int i = 0; i < 2; ++i) {
      barrier_init(sh.barrier(Sh::q_full + i), 1);
      barrier_init(sh.barrier(Sh::q_empty + i), kWarps);
      barrier_init(sh.barrier(Sh::x_full + i), 1);
      barrier_init(sh.barrier(Sh::x_ready + i), kWarps / 2);
    }
    for (int i = 0; i < Sh::kStages; ++i) {
      barrier_init(sh.barrier(Sh::k_full + i), 1);
      barrier_init(sh.barrier(Sh::k_empty + i), kWarps);
      barrier_init(sh.barrier(Sh::v_full + i), 1);
      barrier_init(sh.barrier(Sh::v_empty + i), kWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (warp < 4) {
    registers_down<24>();
    if (threadIdx.x % 32 != 0) return;
    if (warp == 0) {
      band::copy_q_k<D>(p, sh);
    } else if (warp == 1) {
      band::copy_v<D>(p, sh);
    } else if (kEpilogue != Epilogue::merged_f32) {
      band::copy_x<D, kEpilogue>(p, sh, warp - 2);
    }
  } else {
    registers_up<240>();
    band::consume<D, kEpilogue>(p, sh, warp / 4 - 1);
  }
}

namespace {

constexpr double kLog2E = 1.4426950408889634;
// A band over tensors of which every `period`-th token belongs together.
struct BandCall {
  const char* what = "";
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  const void* x = nullptr;  // what the epilogue blends with, if it is an output
  void* o = nullptr;
  int64_t n_q = 0, n_k = 0, heads = 1, kv_heads = 1, head_dim = 128;
  int64_t period = 1, lag_min = 0, lag_max = 0, extra_lag = 0;
  int64_t value_lag = 0;  // with gated_value
};

BandParams band_params(const BandCall& c, Epilogue epilogue) {
  BandParams p;
  p.group = static_cast<int32_t>(c.heads / c.kv_heads);
  p.heads = static_cast<int32_t>(c.heads);
  p.period = static_cast<int32_t>(c.period);
  p.n = c.n_q;
  p.value_lag = clamp_lag(c.value_lag);
  p.scale_log2 = static_cast<float>(kLog2E / std::sqrt(static_cast<double>(c.head_dim)));
  p.slack = 8 / p.scale_log2;
  const RowClasses classes(c.n_q, c.period);
  p.long_residues = static_cast<int32_t>(classes.long_residues);
  for (int kind = 0; kind < 2; ++kind) {
    const int64_t rows = classes.rows[kind], rows_k = c.period == 1 ? c.n_k : rows, residues = classes.in_view[kind];
    p.band[kind] = {static_cast<int32_t>(rows), static_cast<int32_t>(rows_k), clamp_lag(c.lag_min),
                    clamp_lag(c.lag_max), clamp_lag(c.extra_lag)};
    BandMaps& m = p.maps[kind];
    m.q = tensor_map({c.q, c.heads, c.head_dim, rows, residues, c.period}, kTileRows);
    m.k = tensor_map({c.k, c.kv_heads, c.head_dim, rows_k, residues, c.period}, kTileRows);
    m.v = tensor_map({c.v, c.kv_heads, c.head_dim, rows_k, residues, c.period}, kTileRows);
    if (epilogue == Epilogue::gated_value) {
      m.x = tensor_map({c.v, c.kv_heads, c.head_dim, c.n_k, 1, 1}, kHalfRows);
    } else if (c.x) {
      m.x = tensor_map({c.x, c.heads, c.head_dim, rows, residues, c.period}, kHalfRows);
    }
    if (c.o) m.o = tensor_map({c.o, c.heads, c.head_dim, rows, residues, c.period}, kHalfRows);
  }
  p.order = tile_order(c.what, classes, c.kv_heads, p.group, int64_t{p.band[0].n_k} * c.head_dim * 4);
  p.tiles = static_cast<int32_t>(p.order.tiles());
  return p;
}

template <int D, Epilogue kEpilogue>
void launch(const BandParams& p, cudaStream_t stream) {
  auto* kernel = band_attention_kernel<D, kEpilogue>;
  ORRERY_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BandShared<D>::kBytes));
  const int blocks = std::min(hopper_multiprocessors(), p.tiles);
  kernel<<<blocks, kBandThreads, BandShared<D>::kBytes, stream>>>(p);
  ORRERY_LAUNCHED();
}

template <Epilogue kEpilogue>
void launch(int64_t head_dim, const BandParams& p, cudaStream_t stream) {
  head_dim == 64 ? launch<64, kEpilogue>(p, stream) : launch<128, kEpilogue>(p, stream);
}

}  // namespace

double PiAttentionShape::window_pairs() const {
  const auto k = static_cast<double>(std::min(window, n));
  return static_cast<double>(n) * k - k * (k - 1) / 2;
}

double PiAttentionShape::skip_pairs() const {
  double pairs = 0;  // query i has skip m if i >= m period
  for (int64_t m = first_skip(); m <= last_skip(); ++m) pairs += static_cast<double>(n - m * period);
  return pairs;
}

double PiAttentionShape::forward_bytes() const {
  return 4.0 * static_cast<double>(n * head_dim * (heads + kv_heads)) +
         4.0 * static_cast<double>(n * heads) * (has_skips() && fusion == Fusion::gated ? 2 : 1);
}

void pi_attention_forward(const PiAttentionShape& s, const PiAttentionForward& t, cudaStream_t stream) {
  constexpr const char* kWhat = "pi_attention_forward";
  hopper_multiprocessors();
  require_pi_shape(kWhat, s);
  require_aligned(kWhat, {t.q, t.k, t.v, t.o, t.lse});
  const bool gated = s.fusion == Fusion::gated && s.has_skips();
  require(!gated || t.gate_logit, kWhat, "gate_logit is missing (null pointer)");
  require(!gated || s.skips == 1 || t.lse_skips, kWhat, "lse_skips is missing (null pointer)");

  BandCall call{kWhat, t.q, t.k, t.v};
  const bool single = s.has_skips() && s.skips == 1;
  void* window_o = gated && !single && t.o_window ? t.o_window : t.o;
  call.o = window_o;
  call.n_q = call.n_k = s.n;
  call.heads = s.heads;
  call.kv_heads = s.kv_heads;
  call.head_dim = s.head_dim;
  call.lag_min = 0;
  call.lag_max = s.window - 1;
  call.extra_lag = single && !gated ? s.period : 0;
  call.value_lag = single && gated ? s.period : 0;
  const Epilogue first = single && gated ? Epilogue::gated_value : Epilogue::store;
  BandParams p = band_params(call, first);
  p.gate_logit = t.gate_logit;
  p.lse = t.lse;
  first == Epilogue::store ? launch<Epilogue::store>(s.head_dim, p, stream)
                           : launch<Epilogue::gated_value>(s.head_dim, p, stream);
  if (!s.has_skips() || single) return;

  // The set of skips: a band of lags on a view in which a period is one row.
  call.period = s.period;
  call.lag_min = s.first_skip();
  call.lag_max = s.skips;
  call.x = window_o;
  call.o = t.o;
  const Epilogue second = gated ? Epilogue::gated_output : Epilogue::merged_output;
  p = band_params(call, second);
  p.gate_logit = t.gate_logit;
  p.lse = gated ? t.lse_skips : t.lse;
  gated ? launch<Epilogue::gated_output>(s.head_dim, p, stream)
        : launch<Epilogue::merged_output>(s.head_dim, p, stream);
}

void ring_block_forward(const RingBlockShape& s, const void* q, const void* k, const void* v, float* o, float* lse,
                        bool first, cudaStream_t stream) {
  constexpr const char* kWhat = "ring_block_forward";
  hopper_multiprocessors();
  require_tensors(kWhat, std::max(s.n_q, s.n_k), s.heads, s.kv_heads, s.head_dim);
  require(std::min(s.n_q, s.n_k) >= 1, kWhat, "tokens must be from 1 to 2^29 - 1");
  require(!s.causal || s.n_q == s.n_k, kWhat, "a causal block is square");
  require_aligned(kWhat, {q, k, v, o, lse});
  BandCall call{kWhat, q, k, v};
  call.n_q = s.n_q;
  call.n_k = s.n_k;
  call.heads = s.heads;
  call.kv_heads = s.kv_heads;
  call.head_dim = s.head_dim;
  call.lag_min = s.causal ? 0 : -int64_t{kUnbounded};
  call.lag_max = kUnbounded;
  BandParams p = band_params(call, Epilogue::merged_f32);
  p.lse = lse;
  p.o_f32 = o;
  p.first = first;
  launch<Epilogue::merged_f32>(s.head_dim, p, stream);
}

}  // namespace orrery
