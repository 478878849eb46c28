// Eight bf16 numbers in a 16-byte word, and as floats.
#pragma once
#include <cuda_bf16.h>

namespace orrery {

__device__ inline void unpack(uint4 raw, float (&x)[8]) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline uint4 pack(const float (&x)[8]) {
  uint4 out;
  unsigned* words = &out.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    words[i] = *reinterpret_cast<const unsigned*>(&pair);
  }
  return out;
}

}  // namespace orrery
