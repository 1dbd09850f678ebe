// Squared Euclidean distances, in the widest instruction set that the processor has.
//
// One build serves every machine of its architecture: the set is picked when the module is loaded.
#pragma once

#include <cstddef>
#include <cstring>

namespace resmem {

#define RESMEM_NAMESPACE baseline
#define RESMEM_TARGET
#include "distance_body.inc"
#undef RESMEM_NAMESPACE
#undef RESMEM_TARGET

#if defined(__x86_64__)
#define RESMEM_NAMESPACE avx2
#define RESMEM_TARGET __attribute__((target("avx2,fma")))
#include "distance_body.inc"
#undef RESMEM_NAMESPACE
#undef RESMEM_TARGET
#define RESMEM_NAMESPACE avx512
#define RESMEM_TARGET __attribute__((target("avx512f,avx2,fma")))
#include "distance_body.inc"
#undef RESMEM_NAMESPACE
#undef RESMEM_TARGET
#endif

constexpr std::size_t kTileRows = 16;

struct Distance {
  const char* name;
  // float32 arithmetic: fast enough to rank thousands of candidates.
  void (*to_each)(const float* query, const float* const* rows, std::size_t n, std::size_t d,
                  float* out);
  // The same to `n` tiles of `kTileRows` rows each; `out` has room for all of them.
  void (*to_tiles)(const float* query, const float* tiles, std::size_t n, std::size_t d, float* out);
  // float64 arithmetic, for the k that are weighed: exp(-d/sigma) amplifies a rounding error of
  // d by d/sigma, and overflows for rows that float32 can hold.
  double (*exact)(const float* a, const float* b, std::size_t d);
};

inline Distance pick_distance() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f"))
    return {"avx512", avx512::squared_to_each, avx512::squared_to_tiles, avx512::squared_exact};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {"avx2", avx2::squared_to_each, avx2::squared_to_tiles, avx2::squared_exact};
#endif
  return {"baseline", baseline::squared_to_each, baseline::squared_to_tiles,
          baseline::squared_exact};
}

inline const Distance distance = pick_distance();

}  // namespace resmem
