// The two kinds of segment that a correction reads: sealed (mapped, immutable) and growing (in RAM).
//
// Both answer `nearest`: the closest living rows to a query, as (squared distance, row).
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "codec.hpp"
#include "copies.hpp"
#include "graph.hpp"
#include "mapping.hpp"
#include "sketches.hpp"

namespace resmem {

namespace py = pybind11;
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Of equal distances the newer row is the nearer one.
struct ByDistance {
  bool operator()(const Hit& a, const Hit& b) const {
    return a.squared != b.squared ? a.squared < b.squared : a.row > b.row;
  }
};

// Rows with their residuals; `dead` rows were forgotten and are skipped.
class Segment {
 public:
  virtual ~Segment() = default;
  virtual std::size_t rows() const = 0;
  virtual const float* vector(std::uint32_t row) const = 0;
  // The residual as the codec wrote it.
  virtual const std::uint8_t* code(std::uint32_t row) const = 0;
  virtual float weight(std::uint32_t row) const = 0;
  virtual std::int64_t sequence(std::uint32_t row) const = 0;
  // Says that all three of a row will be read soon.
  virtual void prefetch(std::uint32_t row) const = 0;
  // Throws CorruptGraph where the files of the segment can no longer be read.
  virtual void check() const {}
  // Throws CorruptGraph, and lets `check` throw it from now on.
  [[noreturn]] virtual void fail(const char* what) const { throw CorruptGraph(what); }

  std::size_t dim() const { return dim_; }
  const Codec& codec() const { return codec_; }
  std::size_t dead_rows() const { return dead_rows_.load(std::memory_order_acquire); }

  // The number of living rows and the sum of their sequences.
  std::pair<std::size_t, std::int64_t> living() const {
    std::pair<std::size_t, std::int64_t> found{0, 0};
    for (std::size_t row = 0; row < rows(); ++row)
      if (dead_[row].load(std::memory_order_relaxed) == 0) {
        ++found.first;
        found.second += sequence(static_cast<std::uint32_t>(row));
      }
    return found;
  }

  // True where the row lived until now.
  bool forget(std::size_t row) {
    if (row >= rows()) throw py::index_error("row out of range");
    if (dead_[row].exchange(1, std::memory_order_acq_rel) != 0) return false;
    dead_rows_.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }

  // Forgets every row up to a sequence; sequences must rise. One caller at a time.
  void forget_until(std::int64_t last) {
    const std::size_t n = rows();
    while (evicted_ < n && sequence(static_cast<std::uint32_t>(evicted_)) <= last)
      forget(evicted_++);
  }

  bool lives(std::size_t row) const {
    if (row >= rows()) throw py::index_error("row out of range");
    return dead_[row].load(std::memory_order_acquire) == 0;
  }

  std::int64_t checked_sequence(std::size_t row) const {
    if (row >= rows()) throw py::index_error("row out of range");
    return sequence(static_cast<std::uint32_t>(row));
  }

  // The row of a sequence, or -1. Sequences are sorted: upwards, or downwards in a fitted segment.
  std::int64_t find(std::int64_t wanted) const {
    const std::size_t n = rows();
    if (n == 0) return -1;
    const bool upwards = sequence(0) <= sequence(static_cast<std::uint32_t>(n - 1));
    std::size_t low = 0, high = n;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      const std::int64_t seen = sequence(static_cast<std::uint32_t>(middle));
      if (seen == wanted) return static_cast<std::int64_t>(middle);
      if ((seen < wanted) == upwards)
        low = middle + 1;
      else
        high = middle;
    }
    return -1;
  }

 protected:
  Segment(std::size_t dim, const Codec& codec, std::size_t capacity)
      : dim_(dim), codec_(codec), dead_(new std::atomic<std::uint8_t>[capacity]()) {}

  std::size_t dim_;
  Codec codec_;
  std::unique_ptr<std::atomic<std::uint8_t>[]> dead_;
  std::atomic<std::size_t> dead_rows_{0};
  std::size_t evicted_ = 0;  // every row before it is dead
};

// What a graph found: an element, and one of its rows. Where every row is an element of its own it is
// left open which, `kAnyRow`, until the k nearest are known.
struct SealedHit {
  static constexpr std::uint32_t kAnyRow = ~0U;

  float squared;
  std::uint32_t element, row;
};

// Rows with equal embeddings, see copies.hpp; a segment where none are equal has no such files.
struct CopyArrays {
  Array<std::uint32_t> groups;  // [g, 2]
  Array<std::uint32_t> copies;  // [c]
};

// The second file that a search walks through, see sketches.hpp; a segment of old has none.
struct SketchArrays {
  Array<std::uint32_t> links;   // [n, 2 M]
  Array<std::int8_t> sketches;  // [n, stride]
  Array<float> grid;            // [2, d]
};

class SealedSegment : public Segment {
 public:
  SealedSegment(Array<std::uint8_t> graph, Array<std::uint8_t> codes, Array<float> weights,
                Array<std::int64_t> sequences, std::size_t dim, const Codec& codec,
                const std::string& name, std::optional<SketchArrays> sketches,
                std::optional<CopyArrays> copies, std::optional<Array<std::uint32_t>> entries,
                std::vector<std::shared_ptr<Mapping>> mappings)
      : Segment(dim, codec, static_cast<std::size_t>(codes.shape(0))),
        graph_bytes_(graph),
        codes_(codes),
        weights_(weights),
        sequences_(sequences),
        sketch_arrays_(std::move(sketches)),
        copy_arrays_(std::move(copies)),
        mappings_(std::move(mappings)),
        graph_(graph.data(), static_cast<std::size_t>(graph.size()), dim,
               static_cast<std::size_t>(codes.shape(0)), name),
        rows_(static_cast<std::size_t>(codes.shape(0))),
        code_data_(codes.data()),
        weight_data_(weights.data()),
        sequence_data_(sequences.data()) {
    const auto n = static_cast<py::ssize_t>(rows_);
    if (copy_arrays_) read_copies(*copy_arrays_);
    const std::size_t hidden = copies_ ? copies_->hidden() : 0;
    if (codes.ndim() != 2 || rows_ != graph_.count() + hidden ||
        static_cast<std::size_t>(codes.shape(1)) != codec.stride() || weights.ndim() != 1 ||
        weights.size() != n || sequences.ndim() != 1 || sequences.size() != n)
      throw CorruptGraph(name + ": it holds another number of rows than the arrays beside it");
    if (sketch_arrays_) read_sketches(*sketch_arrays_, static_cast<py::ssize_t>(graph_.count()));
    if (entries) read_entries(*entries);
  }

  bool damaged() const {
    for (const auto& mapping : mappings_)
      if (mapping->damaged()) return true;
    return graph_.corrupt();
  }

  // For after every use: what was read of a damaged file is worth nothing.
  void check() const override {
    for (const auto& mapping : mappings_)
      if (!mapping->intact())
        throw CorruptGraph(mapping->name() + ": it was cut, written to or cannot be read");
    if (graph_.corrupt()) throw CorruptGraph(graph_.name() + ": it is damaged");
  }

  [[noreturn]] void fail(const char* what) const override { graph_.fail(what); }

  std::size_t rows() const override { return rows_; }
  // Of the graph: rows with equal embeddings are one.
  std::size_t elements() const { return graph_.count(); }
  const std::uint8_t* code(std::uint32_t row) const override {
    return code_data_ + row * codec_.stride();
  }
  float weight(std::uint32_t row) const override { return weight_data_[row]; }
  std::int64_t sequence(std::uint32_t row) const override { return sequence_data_[row]; }
  void prefetch(std::uint32_t row) const override {
    __builtin_prefetch(sequence_data_ + row);
    __builtin_prefetch(weight_data_ + row);
    resmem::prefetch(code(row), codec_.stride());
  }
  // Hits of a graph name elements; `row` is resolved when the k are known.
  const float* vector(std::uint32_t element) const override { return graph_.vector(element); }
  std::uint32_t row(std::uint32_t element) const { return graph_.row(element); }

  // For each of `n` queries, at most Graph::kTogether, the k nearest living rows, and maybe more,
  // appended to its hits. What ef counts is elements, however many rows they have.
  void nearest(const float* queries, std::size_t n, std::size_t k, std::size_t ef,
               Scratch* scratches, std::vector<SealedHit>* hits) const {
    const Living living = this->living_rows();
    const Graph::Entries entries{entries_.data(), entries_.size()};
    const std::size_t breadth = std::max(ef, k);
    if (sketches_)
      graph_.search(*sketches_, queries, n, breadth, kSpare + breadth / kSpare, living, entries,
                    scratches);
    else
      graph_.search(queries, n, breadth, living, entries, scratches);
    for (std::size_t q = 0; q < n; ++q)
      if (sketches_)
        rank(queries + q * dim_, k, living, scratches[q], hits[q]);
      else
        take(k, living, scratches[q], hits[q]);
  }

  // What the search for the vector of each of the `elements` says: 1 where it finds an element at
  // that place (distance 0 in float32, beyond which a graph tells nothing apart), 0 where it does
  // not, -1 where none of the rows of the element lives.
  Array<std::int8_t> finds(const Array<std::uint32_t>& elements, std::size_t ef) const {
    if (ef == 0) throw py::value_error("ef must be above 0");
    const auto n = static_cast<std::size_t>(elements.size());
    Array<std::int8_t> found(elements.size());
    const std::uint32_t* asked = elements.data();
    std::int8_t* answer = found.mutable_data();
    const py::gil_scoped_release unlocked;
    Scratch scratch;
    std::vector<SealedHit> hits;
    for (std::size_t i = 0; i < n; ++i) {
      if (asked[i] >= graph_.count()) throw std::out_of_range("element out of range");
      if (!living_rows().has(graph_.row(asked[i]))) {
        answer[i] = -1;
        continue;
      }
      hits.clear();
      nearest(graph_.vector(asked[i]), 1, 1, ef, &scratch, &hits);
      answer[i] = std::any_of(hits.begin(), hits.end(),
                              [](const SealedHit& hit) { return hit.squared == 0; });
    }
    check();
    return found;
  }

 private:
  // How many more than ef are looked at in full, beside an eighth of ef: where ef is k, what the
  // sketches put beyond the k-th place may belong before it.
  static constexpr std::size_t kSpare = 8;

  Living living_rows() const {
    return {dead_rows() == 0 ? nullptr : dead_.get(), copies_ ? &*copies_ : nullptr};
  }

  // Every vector that was added is finite, and nothing that is not a number can be sorted.
  void check_number(float squared) const {
    if (std::isnan(squared)) graph_.fail("a vector is no number");
  }

  // The newest living rows of an element, at most k; returns how many.
  std::size_t take_rows(float squared, std::uint32_t element, std::size_t k, const Living& living,
                        std::vector<SealedHit>& hits) const {
    if (living.copies == nullptr) {
      hits.push_back({squared, element, SealedHit::kAnyRow});
      return 1;
    }
    const std::uint32_t label = graph_.row(element);
    if (!living.copies->has(label)) {
      hits.push_back({squared, element, label});
      return 1;
    }
    const std::size_t before = hits.size();
    const bool sound = living.copies->each_living(
        label, living.dead, k, [&](std::uint32_t row) { hits.push_back({squared, element, row}); });
    if (!sound) graph_.fail("a copy is out of range");
    return hits.size() - before;
  }

  // How many living rows an element has, at most k.
  std::size_t count_rows(std::uint32_t element, std::size_t k, const Living& living) const {
    if (living.copies == nullptr) return 1;
    const std::uint32_t label = graph_.row(element);
    if (!living.copies->has(label)) return 1;
    std::size_t count = 0;
    if (!living.copies->each_living(label, living.dead, k, [&](std::uint32_t) { ++count; }))
      graph_.fail("a copy is out of range");
    return count;
  }

  // The nearest of what was found, and all that are as far as the k-th row: which of equal distances
  // are taken is decided by their age, not by their place.
  void take(std::size_t k, const Living& living, const Scratch& scratch,
            std::vector<SealedHit>& hits) const {
    const Pool& pool = scratch.pool;
    std::size_t taken = 0;
    float last = 0;
    for (std::size_t i = 0; i < pool.size(); ++i) {
      const float squared = pool.distance_of(i);
      if (taken >= k && squared > last) break;
      check_number(squared);
      if (!pool.alive(i)) continue;
      taken += take_rows(squared, pool.element(i), k, living, hits);
      last = squared;
    }
  }

  // Of what was found by sketches, all that may be among the k nearest, with their distances.
  void rank(const float* query, std::size_t k, const Living& living, Scratch& scratch,
            std::vector<SealedHit>& hits) const {
    const Pool& pool = scratch.pool;
    auto& found = scratch.fresh;
    found.clear();
    float limit = std::numeric_limits<float>::infinity();
    std::size_t rows = 0;
    for (std::size_t i = 0; i < pool.size() && pool.distance_of(i) <= limit; ++i) {
      if (!pool.alive(i)) continue;
      found.push_back(pool.element(i));
      if (rows >= k) continue;
      rows += count_rows(found.back(), k, living);
      // The k nearest are no farther than this one and its error; others, less theirs, may be.
      if (rows >= k)
        limit = std::pow(std::sqrt(pool.distance_of(i)) + 2 * sketches_->error(), 2.0F);
    }
    scratch.squared.resize(found.size() + 3);
    graph_.to_each(query, found.data(), found.size(), scratch.squared.data());
    for (std::size_t i = 0; i < found.size(); ++i) check_number(scratch.squared[i]);
    if (living.copies == nullptr)
      for (std::size_t i = 0; i < found.size(); ++i)
        hits.push_back({scratch.squared[i], found[i], SealedHit::kAnyRow});
    else
      take_ranked(k, living, scratch, hits);
  }

  // The rows of the nearest of what was ranked, as `take`: all of all of them would be too many.
  void take_ranked(std::size_t k, const Living& living, Scratch& scratch,
                   std::vector<SealedHit>& hits) const {
    auto& order = scratch.order;
    order.clear();
    for (std::size_t i = 0; i < scratch.fresh.size(); ++i)
      order.emplace_back(scratch.squared[i], scratch.fresh[i]);
    std::sort(order.begin(), order.end());
    std::size_t taken = 0;
    float last = 0;
    for (const auto& [squared, element] : order) {
      if (taken >= k + kSpare && squared > last) break;
      taken += take_rows(squared, element, k, living, hits);
      last = squared;
    }
  }

  void read_copies(const CopyArrays& arrays) {
    const auto& [groups, copies] = arrays;
    if (groups.ndim() == 2 && groups.shape(1) == 2 && copies.ndim() == 1)
      copies_.emplace(groups.data(), static_cast<std::size_t>(groups.shape(0)), copies.data(),
                      static_cast<std::size_t>(copies.size()), rows_);
    if (!copies_ || !copies_->sound())
      throw CorruptGraph(graph_.name() + ": its table of equal rows contradicts itself");
  }

  void read_entries(const Array<std::uint32_t>& entries) {
    if (entries.ndim() != 1) throw CorruptGraph(graph_.name() + ": its entries are no list");
    entries_.assign(entries.data(), entries.data() + entries.size());
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (entries_[i] >= graph_.count() || (i > 0 && entries_[i] <= entries_[i - 1]))
        throw CorruptGraph(graph_.name() + ": its entries are not elements in order");
  }

  void read_sketches(const SketchArrays& arrays, py::ssize_t n) {
    const auto& [links, sketches, grid] = arrays;
    if (links.ndim() != 2 || links.shape(0) != n ||
        static_cast<std::size_t>(links.shape(1)) != graph_.most_links() || sketches.ndim() != 2 ||
        sketches.shape(0) != n || sketches.shape(1) % 16 != 0 ||
        sketches.shape(1) < static_cast<py::ssize_t>(dim_) || grid.ndim() != 2 ||
        grid.shape(0) != 2 || grid.shape(1) != static_cast<py::ssize_t>(dim_))
      throw CorruptGraph(graph_.name() + ": it holds another number of rows than its sketches");
    sketches_.emplace(links.data(), static_cast<std::size_t>(links.shape(1)), sketches.data(),
                      static_cast<std::size_t>(sketches.shape(1)), grid.data(), dim_);
  }

  Array<std::uint8_t> graph_bytes_, codes_;
  Array<float> weights_;
  Array<std::int64_t> sequences_;
  std::optional<SketchArrays> sketch_arrays_;
  std::optional<CopyArrays> copy_arrays_;
  std::vector<std::shared_ptr<Mapping>> mappings_;
  Graph graph_;
  std::optional<Sketches> sketches_;
  std::optional<Copies> copies_;
  std::vector<std::uint32_t> entries_;  // where walks begin beside the graph's own
  std::size_t rows_;
  const std::uint8_t* code_data_;
  const float* weight_data_;
  const std::int64_t* sequence_data_;
};

// Rows are written beyond the published count, then the count is published: readers never lock.
class GrowingSegment : public Segment {
 public:
  // float32 may rank rows at nearly the same distance wrongly; which are the k nearest is decided
  // by exact distances, among some more.
  static constexpr std::size_t kMargin = 4;

  GrowingSegment(std::size_t capacity, std::size_t dim, const Codec& codec)
      : Segment(dim, codec, capacity),
        capacity_(capacity),
        // Left uninitialised: pages that no row has reached cost nothing.
        vectors_(new float[capacity * dim]),
        tiles_(new float[(capacity + kTileRows - 1) / kTileRows * kTileRows * dim]),
        weights_(new float[capacity]),
        codes_(new std::uint8_t[capacity * codec.stride()]),
        sequences_(new std::int64_t[capacity]) {
    if (capacity == 0 || dim == 0) throw py::value_error("capacity and dim must be above 0");
  }

  std::size_t rows() const override { return rows_.load(std::memory_order_acquire); }
  std::size_t capacity() const { return capacity_; }
  const float* vector(std::uint32_t row) const override { return vectors_.get() + row * dim_; }
  const std::uint8_t* code(std::uint32_t row) const override {
    return codes_.get() + row * codec_.stride();
  }
  float weight(std::uint32_t row) const override { return weights_[row]; }
  std::int64_t sequence(std::uint32_t row) const override { return sequences_[row]; }
  void prefetch(std::uint32_t row) const override { resmem::prefetch(code(row), codec_.stride()); }

  // Appends as many of the rows from `start` on as fit, and publishes them; returns how many.
  // One writer at a time; the caller sees to that.
  std::size_t append(const Array<float>& vectors, const Array<std::uint8_t>& codes,
                     const Array<float>& weights, const Array<std::int64_t>& sequences,
                     std::size_t start) {
    const auto n = static_cast<std::size_t>(sequences.size());
    if (vectors.ndim() != 2 || codes.ndim() != 2 || weights.ndim() != 1 || sequences.ndim() != 1 ||
        static_cast<std::size_t>(vectors.shape(0)) != n ||
        static_cast<std::size_t>(vectors.shape(1)) != dim_ ||
        static_cast<std::size_t>(codes.shape(0)) != n ||
        static_cast<std::size_t>(codes.shape(1)) != codec_.stride() ||
        static_cast<std::size_t>(weights.size()) != n || start > n)
      throw py::value_error("rows do not have the shape of the segment");
    const std::size_t at = rows_.load(std::memory_order_relaxed);
    const std::size_t taken = std::min(n - start, capacity_ - at);
    write_vectors(vectors.data() + start * dim_, taken, at);
    const std::size_t stride = codec_.stride();
    std::copy_n(codes.data() + start * stride, taken * stride, codes_.get() + at * stride);
    std::copy_n(weights.data() + start, taken, weights_.get() + at);
    std::copy_n(sequences.data() + start, taken, sequences_.get() + at);
    rows_.store(at + taken, std::memory_order_release);
    return taken;
  }

  // A copy of the living rows that came after `sequence`: what stays when the others are sealed.
  std::shared_ptr<GrowingSegment> copy_after(std::int64_t last) const {
    auto copy = std::make_shared<GrowingSegment>(capacity_, dim_, codec_);
    const std::size_t stride = codec_.stride();
    std::size_t to = 0;
    for (std::size_t row = 0; row < rows(); ++row) {
      if (sequences_[row] <= last || !alive(row)) continue;
      copy->write_vectors(vectors_.get() + row * dim_, 1, to);
      std::copy_n(codes_.get() + row * stride, stride, copy->codes_.get() + to * stride);
      copy->weights_[to] = weights_[row];
      copy->sequences_[to++] = sequences_[row];
    }
    copy->rows_.store(to, std::memory_order_release);
    return copy;
  }

  // For each of `n` queries the k nearest of the first `rows`, and some more, appended to its hits.
  // Rows are read once for all queries: what bounds a scan is the way from memory.
  void nearest(const float* queries, std::size_t n, std::size_t rows, std::size_t k,
               std::vector<Hit>* hits) const {
    std::vector<Nearest> found;
    found.reserve(n);
    for (std::size_t q = 0; q < n; ++q) found.push_back({hits[q], k + kMargin});
    const bool all_alive = dead_rows() == 0;
    const std::size_t rest = rows % kTileRows, full = rows - rest;
    for (std::size_t block = 0; block < full; block += kBlock) {
      const std::size_t size = std::min(kBlock, full - block);
      for (std::size_t q = 0; q < n; ++q)
        scan(queries + q * dim_, tiles_.get() + block * dim_, block, size, all_alive, found[q]);
    }
    if (rest > 0) {
      const float* tile = copy_tile(full, rest);
      for (std::size_t q = 0; q < n; ++q)
        scan(queries + q * dim_, tile, full, rest, all_alive, found[q]);
    }
    for (std::size_t q = 0; q < n; ++q) {
      found[q].finish();
      // Squares overflow float32 long before the rows do; then every far row ties at infinity.
      if (rows > k && found[q].reaches_infinity())
        rescan_exactly(queries + q * dim_, rows, k, found[q].begin, hits[q]);
    }
  }

 private:
  static constexpr std::size_t kBlock = 8 * kTileRows;  // of d = 64 they fit the first cache
  void write_vectors(const float* vectors, std::size_t n, std::size_t at) {
    std::copy_n(vectors, n * dim_, vectors_.get() + at * dim_);
    for (std::size_t row = at; row < at + n; ++row, vectors += dim_) {
      float* lane = tiles_.get() + row / kTileRows * kTileRows * dim_ + row % kTileRows;
      for (std::size_t j = 0; j < dim_; ++j) lane[j * kTileRows] = vectors[j];
    }
  }

  // The first `rows` lanes of the tile of row `first`: a writer may be at work on the others. Good
  // until the next call of the same thread.
  const float* copy_tile(std::size_t first, std::size_t rows) const {
    thread_local std::vector<float> copy;
    copy.assign(kTileRows * dim_, 0.0F);
    const float* tile = tiles_.get() + first * dim_;
    for (std::size_t at = 0; at < kTileRows * dim_; at += kTileRows)
      std::copy_n(tile + at, rows, copy.data() + at);
    return copy.data();
  }

  bool alive(std::size_t row) const { return dead_[row].load(std::memory_order_relaxed) == 0; }

  // The `kept` nearest of what was offered, and as many again before it is cut back: quicker than
  // a heap, which pays for each that comes.
  struct Nearest {
    Nearest(std::vector<Hit>& hits, std::size_t kept)
        : begin(hits.size()), kept_(kept), hits_(&hits) {}

    void offer(float squared, std::size_t row) {
      hits_->push_back({squared, static_cast<std::uint32_t>(row)});
      if (hits_->size() - begin == 2 * kept_) cut();
    }

    void finish() {
      if (hits_->size() - begin > kept_) cut();
    }

    bool reaches_infinity() const {
      return std::any_of(hits_->begin() + static_cast<std::ptrdiff_t>(begin), hits_->end(),
                         [](const Hit& h) { return std::isinf(h.squared); });
    }

    float limit = std::numeric_limits<float>::infinity();  // what is farther need not be offered
    std::size_t begin;

   private:
    void cut() {
      const auto first = hits_->begin() + static_cast<std::ptrdiff_t>(begin);
      const auto last = first + static_cast<std::ptrdiff_t>(kept_ - 1);
      std::nth_element(first, last, hits_->end(), ByDistance{});
      limit = last->squared;
      hits_->resize(begin + kept_);
    }

    std::size_t kept_;
    std::vector<Hit>* hits_;
  };

  // The `size` rows from `first` on, which lie in these tiles.
  void scan(const float* query, const float* tiles, std::size_t first, std::size_t size,
            bool all_alive, Nearest& found) const {
    float squared[kBlock];
    const std::size_t count = (size + kTileRows - 1) / kTileRows;
    distance.to_tiles(query, tiles, count, dim_, squared);
    for (std::size_t tile = 0; tile < count; ++tile) {
      const float* lanes = squared + tile * kTileRows;
      int near = 0;
      for (std::size_t l = 0; l < kTileRows; ++l) near |= lanes[l] <= found.limit;
      if (near == 0) continue;
      const std::size_t row = first + tile * kTileRows;
      const std::size_t lanes_used = std::min(kTileRows, size - tile * kTileRows);
      for (std::size_t l = 0; l < lanes_used; ++l)
        if (lanes[l] <= found.limit && (all_alive || alive(row + l)))
          found.offer(lanes[l], row + l);
    }
  }

  void rescan_exactly(const float* query, std::size_t rows, std::size_t k, std::size_t begin,
                      std::vector<Hit>& hits) const {
    hits.resize(begin);
    std::vector<std::pair<double, std::int64_t>> all;  // minus the row: the newer sorts first
    for (std::size_t row = 0; row < rows; ++row)
      if (alive(row))
        all.emplace_back(distance.exact(query, vectors_.get() + row * dim_, dim_),
                         -static_cast<std::int64_t>(row));
    const std::size_t kept = std::min(k, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end());
    for (std::size_t i = 0; i < kept; ++i)
      hits.push_back(
          {static_cast<float>(all[i].first), static_cast<std::uint32_t>(-all[i].second)});
  }

  std::size_t capacity_;
  std::unique_ptr<float[]> vectors_, tiles_, weights_;  // vectors twice: by row, and to be scanned
  std::unique_ptr<std::uint8_t[]> codes_;
  std::unique_ptr<std::int64_t[]> sequences_;
  std::atomic<std::size_t> rows_{0};
};

}  // namespace resmem
