// What a walk through a graph reads: for each element a list of links and the place of its vector.
//
// In the graph file of hnswlib they lie together, a record of 4 d + 8 M + 12 bytes an element. A
// segment may have them a second time, close together: links of 8 M bytes, and codes of one byte a
// number, code c of dimension j for offset_j + scale_j c. The walk is bound by memory, so that it
// takes half the time there.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "distance.hpp"

namespace resmem {

inline void prefetch(const void* place, std::size_t bytes) {
  constexpr std::size_t kLine = 64, kMost = 8 * kLine;  // the processor fetches on from there
  const char* line = static_cast<const char*>(place);
  for (std::size_t at = 0; at < bytes && at < kMost; at += kLine) __builtin_prefetch(line + at);
}

struct Lists {
  const std::uint8_t* first;
  std::size_t stride, most;
  // Whether a list begins with its length; else all have `most` links, the rest of a shorter one
  // leading to the element itself.
  bool counted;

  void prefetch(std::uint32_t element) const {
    resmem::prefetch(first + element * stride, 4 * most + (counted ? 4 : 0));
  }
};

// The vectors as they are. Of `to_each` here and below: `out` has room for n rounded up to 4.
struct Vectors {
  const std::uint8_t* first;
  std::size_t stride, dim;
  const float* query;

  void prefetch(std::uint32_t element) const {
    resmem::prefetch(first + element * stride, 4 * dim);
  }
  void to_each(const std::uint32_t* elements, std::size_t n, float* out) const {
    if (n > 0) distance.to_each(query, first, stride, elements, n, dim, out);
  }
};

// Their codes.
struct SketchRows {
  const std::int8_t* first;
  std::size_t stride, dim;
  const float *query, *scales;

  void prefetch(std::uint32_t element) const { resmem::prefetch(first + element * stride, dim); }
  void to_each(const std::uint32_t* elements, std::size_t n, float* out) const {
    if (n > 0) distance.to_sketches(query, scales, first, stride, elements, n, dim, out);
  }
};

class Sketches {
 public:
  // `links` [n, most], `sketches` [n, stride] with the stride a multiple of 16 and at least d,
  // `grid` [2, d]: offsets and scales.
  Sketches(const std::uint32_t* links, std::size_t most, const std::int8_t* sketches,
           std::size_t stride, const float* grid, std::size_t dim)
      : lists_{reinterpret_cast<const std::uint8_t*>(links), 4 * most, most, false},
        sketches_(sketches),
        stride_(stride),
        dim_(dim),
        padded_((dim + 15) / 16 * 16),
        offsets_(grid, grid + dim),
        scales_(padded_, 0.0F) {
    std::copy_n(grid + dim, dim, scales_.begin());
    double squared = 0;
    for (const float scale : scales_) squared += static_cast<double>(scale) * scale / 4;
    error_ = static_cast<float>(1.01 * std::sqrt(squared));
  }

  // By how much the distance to a sketch may differ from that to its vector: half a step in every
  // dimension, and a little for the rounding of sums.
  float error() const { return error_; }

  const Lists& lists() const { return lists_; }

  // The codes as seen from a query; `shifted` keeps what they are seen from.
  SketchRows rows(const float* query, std::vector<float>& shifted) const {
    shifted.assign(padded_, 0.0F);
    for (std::size_t j = 0; j < dim_; ++j) shifted[j] = query[j] - offsets_[j];
    return {sketches_, stride_, padded_, shifted.data(), scales_.data()};
  }

 private:
  Lists lists_;
  const std::int8_t* sketches_;
  std::size_t stride_, dim_, padded_;
  std::vector<float> offsets_, scales_;
  float error_ = 0;
};

}  // namespace resmem
