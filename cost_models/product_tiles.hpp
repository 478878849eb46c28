// Tiles of a matrix product: which ones the library takes, and how many cycles the SMs need for all of them.
#pragma once

namespace orrery {

/// One kernel: a matrix of `rows` x `inner` times one of `inner` x `columns`.
struct MatrixProduct {
  double rows = 0;
  double columns = 0;
  double inner = 0;
};

/// What bounds an SM, and what the whole GPU.
struct ProductRates {
  double multiply_adds = 0;     // a cycle of an SM's tensor cores
  double operand_elements = 0;  // that reach an SM in a cycle
  double tile_ends = 0;         // elements of `inner` that take as long as the begin and the end of a tile
  double partial_sums = 0;      // that the GPU writes and reads again in a cycle
  int sms = 1;
};

struct TiledProduct {
  double cycles = 0;
  double busy = 0;  // of them, those in which an SM has a tile, in the mean over all SMs
};

/// Tiles go round the SMs in waves, and those at the edge take as long as others. cuBLASLt has some forty kernels for
/// Hopper (nvjet_sm90_tst_AxB_64xS by PyTorch's profiler, 235 products): A and B are 64 to 256, mostly multiples of 32,
/// with at most 320 x 128 sums in the registers of an SM, and where the tiles are fewer than the SMs some split `inner`
/// (splitK). Its choice is taken to be the fastest of these, which neglects where it is mistaken. Neglected too: thread
/// blocks of a cluster that share operands, L2 misses, rows that begin inside a sector of 32 bytes (up to 30 % in small
/// products).
TiledProduct tile_product(const MatrixProduct& product, const ProductRates& rates);

}  // namespace orrery
