// The arithmetic of a search, in the widest instruction set that the processor has.
//
// One build serves every machine of its architecture: the set is picked when the module is loaded.
#pragma once

#if defined(__x86_64__)
// GCC 12 takes the undefined operands of its own intrinsics for mistakes of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace resmem {

constexpr std::size_t kTileRows = 16;

#define RESMEM_NAMESPACE baseline
#define RESMEM_LANES 4
#define RESMEM_TARGET
#include "distance_body.inc"
#undef RESMEM_NAMESPACE
#undef RESMEM_LANES
#undef RESMEM_TARGET

#if defined(__x86_64__)
#define RESMEM_NAMESPACE avx2
#define RESMEM_LANES 8
#define RESMEM_TARGET __attribute__((target("avx2,fma")))
#define RESMEM_AVX2
#include "distance_body.inc"
#undef RESMEM_AVX2
#undef RESMEM_NAMESPACE
#undef RESMEM_LANES
#undef RESMEM_TARGET
#define RESMEM_NAMESPACE avx512
#define RESMEM_LANES 16
#define RESMEM_TARGET __attribute__((target("avx512f,avx2,fma")))
#define RESMEM_AVX512
#include "distance_body.inc"
#undef RESMEM_AVX512
#undef RESMEM_NAMESPACE
#undef RESMEM_LANES
#undef RESMEM_TARGET
#endif

struct Distance {
  const char* name;
  // float32 arithmetic: fast enough to rank thousands of candidates.
  decltype(&baseline::squared_to_each) to_each;
  // The same to tiles of `kTileRows` rows each; `out` has room for all of them.
  decltype(&baseline::squared_to_tiles) to_tiles;
  decltype(&baseline::squared_to_sketches) to_sketches;
  // float64 arithmetic, for the k that are weighed: exp(-d/sigma) amplifies a rounding error of
  // d by d/sigma, and overflows for rows that float32 can hold.
  decltype(&baseline::squared_exact) exact;
  decltype(&baseline::unseen) unseen;
};

#define RESMEM_SET(set)                                                          \
  Distance {                                                                     \
    #set, set::squared_to_each, set::squared_to_tiles, set::squared_to_sketches, \
        set::squared_exact, set::unseen                                          \
  }

inline Distance pick_distance() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return RESMEM_SET(avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return RESMEM_SET(avx2);
#endif
  return RESMEM_SET(baseline);
}

#undef RESMEM_SET

inline const Distance distance = pick_distance();

}  // namespace resmem
