// Hopper's instructions for tiles, as thin functions: mbarriers, bulk tensor copies (TMA) and warpgroup matrix products
// (WGMMA). Names and semantics: PTX ISA 8.8, sections on mbarrier, cp.async.bulk.tensor and wgmma. Needs sm_90a.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace orrery::hopper {

constexpr int kWarpgroup = 128;  // threads

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// --- mbarriers, by shared address -----------------------------------------------------------------------------------
__device__ inline void barrier_init(uint32_t bar, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
// Makes the initialised barriers visible to the copy engine.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ inline void barrier_expect(uint32_t bar, uint32_t bytes) {  // arrives, and expects bytes of copies
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t bar, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(bar),
      "r"(phase)
      : "memory");
}

// A ring of stages: its next use, counted, and from that the stage and the parity of its barriers.
template <int kStages>
struct Ring {
  uint32_t used = 0;
  __device__ uint32_t at() const { return used % kStages; }
  __device__ uint32_t phase() const { return used / kStages % 2; }
  __device__ void advance() { ++used; }
};

// --- bulk tensor copies ----------------------------------------------------------------------------------------------
__device__ inline void load_tile(uint32_t to, const CUtensorMap* map, uint32_t bar, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(to),
      "l"(map), "r"(0), "r"(c1), "r"(c2), "r"(c3), "r"(bar)
      : "memory");
}
__device__ inline void load_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t bar) {  // multiples of 16
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(bar)
               : "memory");
}
__device__ inline void store_tile(const CUtensorMap* map, uint32_t from, int c1, int c2, int c3) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(map), "r"(0),
               "r"(c1), "r"(c2), "r"(c3), "r"(from)
               : "memory");
}
__device__ inline void store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
__device__ inline void store_wait_read() {  // the stores have read shared memory
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
__device__ inline void store_wait() {  // ... and have written global memory
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
// Ordinary stores to shared memory before, the copy engine or the tensor cores after.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// --- warpgroup matrix products ---------------------------------------------------------------------------------------
// Tiles lie in shared memory as columns of 64 bf16 (128 bytes a row, 128-byte swizzle, base aligned to 1024 bytes).
// Operand with the summed index along the row: 8 rows are 1024 bytes apart; 16 of the index are 32 bytes.
__device__ inline uint64_t row_operand(uint32_t address) {
  return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 16) | ((address & 0x3ffff) >> 4);
}
// Operand with the summed index across the rows (transposed): 8 rows are 1024 bytes apart, the next 64 columns
// `column_bytes`; 16 of the index are 2048 bytes.
__device__ inline uint64_t column_operand(uint32_t address, uint32_t column_bytes) {
  return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{column_bytes >> 4} << 16) |
         ((address & 0x3ffff) >> 4);
}

__device__ inline void product_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void product_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void product_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// The compiler must not move reads or writes of these registers across this point.
template <int kCount>
__device__ inline void pin(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kCount>
__device__ inline void pin(uint32_t (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

// Operand lists for the asm statements below.
#define ORRERY_F8(d, i)                                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define ORRERY_F32(d, i) ORRERY_F8(d, i), ORRERY_F8(d, i + 8), ORRERY_F8(d, i + 16), ORRERY_F8(d, i + 24)
#define ORRERY_R32                                                                                                   \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%" \
  "30,"                                                                                                              \
  "%31}"
#define ORRERY_R64                                                                                                    \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%"  \
  "30,"                                                                                                               \
  "%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%" \
  "59,"                                                                                                               \
  "%60,%61,%62,%63}"

// D[64][N] (+)= A[64][16] B[16][N], bf16 operands, fp32 sums. `add` false overwrites. kTransA, kTransB: that operand is
// a column_operand. D in registers: thread t of the warpgroup holds rows 16 (t / 32) + (t % 32) / 4 + {0, 8}, columns
// 8 f + 2 (t % 4) + {0, 1}, as d[4 f + {0, 1}] of the first row and d[4 f + {2, 3}] of the second.
template <int kN, int kTransA, int kTransB, int kCount>
__device__ inline void product(float (&d)[kCount], uint64_t a, uint64_t b, bool add) {
  static_assert((kN == 64 || kN == 128) && kCount >= kN / 2);
  if constexpr (kN == 128) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " ORRERY_R64 ", %64, %65, p, 1, 1, %67, %68;\n}\n"
        : ORRERY_F32(d, 0), ORRERY_F32(d, 32)
        : "l"(a), "l"(b), "r"(int(add)), "n"(kTransA), "n"(kTransB));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " ORRERY_R32 ", %32, %33, p, 1, 1, %35, %36;\n}\n"
        : ORRERY_F32(d, 0)
        : "l"(a), "l"(b), "r"(int(add)), "n"(kTransA), "n"(kTransB));
  }
}
// The same with A in registers: a[0..3] of a thread are the packed pairs at (row, k), (row + 8, k), (row, k + 8),
// (row + 8, k + 8) with k = 2 (t % 4): what a product left as D, packed, is the A of the next.
template <int kN, int kTransB, int kCount>
__device__ inline void product(float (&d)[kCount], const uint32_t* a, uint64_t b, bool add) {
  static_assert((kN == 64 || kN == 128) && kCount >= kN / 2);
  if constexpr (kN == 128) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " ORRERY_R64
        ", {%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}\n"
        : ORRERY_F32(d, 0), ORRERY_F32(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(kTransB));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " ORRERY_R32
        ", {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}\n"
        : ORRERY_F32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(kTransB));
  }
}
#undef ORRERY_F8
#undef ORRERY_F32
#undef ORRERY_R32
#undef ORRERY_R64

// Registers of the calling warpgroup; the others' are given or taken.
template <int kCount>
__device__ inline void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

// A use of x that the assembler cannot move: what x is computed from is executed before what follows. (It would move
// arithmetic behind the wait for a product if nothing held it.) x must not be negative.
__device__ inline void execute_before(float x) {
  asm volatile("{\n.reg .pred p;\nsetp.lt.f32 p, %0, 0f00000000;\n@p nanosleep.u32 0;\n}\n" ::"f"(x) : "memory");
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
__device__ inline float2 unpack_bf16(uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}
// Largest and sum over the four threads that share a row of D.
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

}  // namespace orrery::hopper
