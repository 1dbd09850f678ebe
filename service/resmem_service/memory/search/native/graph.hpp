// A graph saved by hnswlib 0.8, searched in the bytes of its file: no copy, no load, no lock.
//
// Layout (little-endian): a header of 96 bytes; `count` records of links, vector and label; then,
// per element, the byte length of its upper links and those links. The search visits what
// hnswlib's searchBaseLayerST visits, in the same order, so that results agree at the same ef.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "copies.hpp"
#include "distance.hpp"
#include "pool.hpp"
#include "sketches.hpp"

namespace resmem {

struct CorruptGraph : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Hit {
  float squared;
  std::uint32_t row;
};

class Graph {
 public:
  static constexpr std::size_t kHeader = 96, kEntryAt = 52;

  // Reads the header and the table of upper links; touches no vector.
  // `rows` is what labels are below, and `name` stands in the message of every CorruptGraph.
  Graph(const std::uint8_t* bytes, std::size_t size, std::size_t dim, std::size_t rows,
        std::string name)
      : bytes_(bytes), dim_(dim), rows_(rows), name_(std::move(name)) {
    if (size < kHeader) fail("it is shorter than its header");
    const std::uint64_t offset_level0 = read<std::uint64_t>(0);
    const std::uint64_t count = read<std::uint64_t>(16);
    record_ = read<std::uint64_t>(24);
    label_offset_ = read<std::uint64_t>(32);
    vector_offset_ = read<std::uint64_t>(40);
    top_level_ = read<std::int32_t>(48);
    entry_ = read<std::uint32_t>(kEntryAt);
    max_links_ = read<std::uint64_t>(56);
    max_links0_ = read<std::uint64_t>(64);
    constexpr std::uint64_t kMostLinks = 1 << 15;
    if (offset_level0 != 0 || max_links_ == 0 || max_links_ > kMostLinks ||
        max_links0_ > kMostLinks || vector_offset_ != 4 + 4 * max_links0_ ||
        label_offset_ != vector_offset_ + 4 * dim_ || record_ != label_offset_ + 8)
      fail("its header is not that of an hnswlib graph of this dimension");
    if (count == 0 || count > Pool::kMostElements || count > (size - kHeader) / record_)
      fail("it is shorter than its header says");
    count_ = static_cast<std::uint32_t>(count);
    if (entry_ >= count_ || top_level_ < 0 || top_level_ > 64)
      fail("its entry point is out of range");
    read_upper_table(size);
  }

  [[noreturn]] void fail(const char* what) const {
    corrupt_.store(true, std::memory_order_release);
    throw CorruptGraph(name_ + ": " + what);
  }

  // True once a search has been led astray: whatever else it holds is worth nothing either.
  bool corrupt() const { return corrupt_.load(std::memory_order_acquire); }
  const std::string& name() const { return name_; }

  std::uint32_t count() const { return count_; }
  std::size_t dim() const { return dim_; }

  std::uint32_t entry() const { return entry_; }
  const std::uint8_t* bytes() const { return bytes_; }
  std::size_t record_bytes() const { return record_; }
  std::size_t most_links() const { return max_links0_; }
  std::size_t most_upper_links() const { return max_links_; }
  // Of the links of one element on one upper level.
  std::size_t level_bytes() const { return 4 + 4 * max_links_; }

  // Links, vector and label.
  const std::uint8_t* record(std::uint32_t element) const {
    return bytes_ + kHeader + static_cast<std::size_t>(element) * record_;
  }

  struct Links {
    const std::uint32_t* first;
    std::size_t n;
  };

  // On level 0.
  Links links(std::uint32_t element) const {
    const Links links = checked(record(element), max_links0_);
    for (std::size_t i = 0; i < links.n; ++i)
      if (links.first[i] >= count_) fail("a link is out of range");
    return links;
  }

  struct Upper {
    std::uint32_t element;
    std::uint32_t levels;
    std::uint64_t offset;
  };

  // Where the links of an element on its upper levels lie; null where it has none.
  const Upper* upper(std::uint32_t element) const {
    const std::uint32_t block = element / kBlock;
    for (std::uint32_t i = upper_starts_[block]; i < upper_starts_[block + 1]; ++i)
      if (upper_[i].element == element) return &upper_[i];
    return nullptr;
  }

  const float* vector(std::uint32_t element) const {
    return reinterpret_cast<const float*>(record(element) + vector_offset_);
  }

  // The row number that the element was added under: of several equal rows the first.
  std::uint32_t row(std::uint32_t element) const {
    std::uint64_t label;
    std::memcpy(&label, record(element) + label_offset_, sizeof label);
    if (label >= rows_) fail("a label is out of range");
    return static_cast<std::uint32_t>(label);
  }

  // How many searches take turns: while one waits for memory another computes.
  static constexpr std::size_t kTogether = 2;

  // Where a walk begins beside the entry point: elements that it would not come by otherwise.
  struct Entries {
    const std::uint32_t* first;
    std::size_t n;
  };

  // For each of `n` queries, at most kTogether, the ef nearest living elements in the pool of its
  // scratch, sorted, among elements that only lead there.
  void search(const float* queries, std::size_t n, std::size_t ef, Living living, Entries entries,
              Scratch* scratches) const {
    const Lists lists{bytes_ + kHeader, record_, max_links0_, true};
    std::array<Walk<Vectors>, kTogether> walks;
    for (std::size_t q = 0; q < n; ++q) {
      scratches[q].pool.begin(ef, ef);
      walks[q] = {vectors(queries + q * dim_), &lists, living, entries, &scratches[q]};
    }
    walk(walks.data(), n);
  }

  // The same by the sketches of the vectors: their distances are not exact, so that `spare` more than
  // ef are kept, among which the caller, who knows the vectors, finds those that are nearest.
  void search(const Sketches& sketches, const float* queries, std::size_t n, std::size_t ef,
              std::size_t spare, Living living, Entries entries, Scratch* scratches) const {
    std::array<Walk<SketchRows>, kTogether> walks;
    for (std::size_t q = 0; q < n; ++q) {
      scratches[q].pool.begin(ef + spare, ef);
      walks[q] = {sketches.rows(queries + q * dim_, scratches[q].query), &sketches.lists(), living,
                  entries, &scratches[q]};
    }
    walk(walks.data(), n);
  }

  // Squared distances of n elements, in float32; `out` has room for n rounded up to 4.
  void to_each(const float* query, const std::uint32_t* elements, std::size_t n, float* out) const {
    const Vectors rows = vectors(query);
    for (std::size_t i = 0; i < n; ++i) rows.prefetch(elements[i]);
    rows.to_each(elements, n, out);
  }

 private:
  static constexpr std::uint32_t kBlock = 64;

  template <typename T>
  T read(std::size_t offset) const {
    T value;
    std::memcpy(&value, bytes_ + offset, sizeof value);
    return value;
  }

  bool lives(std::uint32_t element, const Living& living) const {
    return living.dead == nullptr || living.has(row(element));
  }

  // Only one element in M has upper links: a table of those, small enough to keep.
  void read_upper_table(std::size_t size) {
    const std::size_t per_level = level_bytes();
    std::size_t at = kHeader + static_cast<std::size_t>(count_) * record_;
    for (std::uint32_t element = 0; element < count_; ++element) {
      if (element % kBlock == 0) upper_starts_.push_back(static_cast<std::uint32_t>(upper_.size()));
      if (size - at < 4) fail("its upper links end early");
      const std::uint32_t length = read<std::uint32_t>(at);
      at += 4;
      if (length == 0) continue;
      if (length % per_level != 0 || length > size - at)
        fail("an upper link list has a wrong length");
      upper_.push_back({element, static_cast<std::uint32_t>(length / per_level), at});
      at += length;
    }
    upper_starts_.push_back(static_cast<std::uint32_t>(upper_.size()));
    if (at != size) fail("it is longer than its header says");
  }

  const std::uint8_t* upper_links(std::uint32_t element, std::int32_t level) const {
    const Upper* found = upper(element);
    if (found == nullptr || found->levels < static_cast<std::uint32_t>(level))
      fail("an upper link leads to an element without that level");
    return bytes_ + found->offset + static_cast<std::size_t>(level - 1) * level_bytes();
  }

  Vectors vectors(const float* query) const {
    return {bytes_ + kHeader + vector_offset_, record_, dim_, query};
  }

  // One search on its way.
  template <typename Rows>
  struct Walk {
    Rows rows;
    const Lists* lists;
    Living living;
    Entries entries;
    Scratch* scratch;
    std::size_t found = 0;
    bool going = true;
  };

  // Down the upper levels to an element near the query, then level 0 from there.
  template <typename Rows>
  void walk(Walk<Rows>* walks, std::size_t n) const {
    for (std::size_t i = 0; i < n; ++i) descend(walks[i]);
    for (std::size_t going = n; going > 0;) {
      for (std::size_t i = 0; i < n; ++i)
        if (walks[i].going && !reach(walks[i])) --going;
      for (std::size_t i = 0; i < n; ++i)
        if (walks[i].going) measure(walks[i]);
    }
  }

  template <typename Rows>
  void descend(Walk<Rows>& walk) const {
    Scratch& scratch = *walk.scratch;
    const std::size_t most = std::max(max_links_, max_links0_);
    scratch.fresh.resize(most + 16);
    scratch.squared.resize(most + 16);
    std::uint32_t element = entry_;
    walk.rows.to_each(&element, 1, scratch.squared.data());
    float nearest = scratch.squared[0];
    for (std::int32_t level = top_level_; level > 0; --level)
      while (step_down(walk.rows, level, element, nearest, scratch)) {
      }
    scratch.seen.begin(count_);
    scratch.seen.add(&element, 1);
    scratch.pool.add(nearest, element, lives(element, walk.living));
    for (std::size_t at = 0; at < walk.entries.n; at += most) enter(walk, element, at, most);
  }

  // Takes in some of the further entries, at most `most` from `at` on, all but the `first` element.
  template <typename Rows>
  void enter(Walk<Rows>& walk, std::uint32_t first, std::size_t at, std::size_t most) const {
    std::uint32_t* const fresh = walk.scratch->fresh.data();
    const std::size_t end = std::min(walk.entries.n, at + most);
    walk.found = 0;
    for (; at < end; ++at) {
      const std::uint32_t element = walk.entries.first[at];
      if (element >= count_) fail("an entry is out of range");
      if (element == first) continue;
      fresh[walk.found++] = element;
      walk.rows.prefetch(element);
    }
    walk.scratch->seen.add(fresh, walk.found);
    measure(walk);
  }

  // Asks for the rows that the next candidate leads to; false where there is none.
  template <typename Rows>
  bool reach(Walk<Rows>& walk) const {
    Scratch& scratch = *walk.scratch;
    std::uint32_t element;
    walk.going = scratch.pool.next(element);
    if (!walk.going) return false;
    const Lists& lists = *walk.lists;
    const std::uint8_t* list = lists.first + static_cast<std::size_t>(element) * lists.stride;
    const Links links = lists.counted
                            ? checked(list, lists.most)
                            : Links{reinterpret_cast<const std::uint32_t*>(list), lists.most};
    std::uint32_t* const fresh = scratch.fresh.data();
    bool in_range = true;
    walk.found =
        distance.unseen(links.first, links.n, scratch.seen.words(), count_, fresh, in_range);
    if (!in_range) fail("a link is out of range");
    // All of them before the first is read: their misses overlap.
    for (std::size_t i = 0; i < walk.found; ++i) walk.rows.prefetch(fresh[i]);
    scratch.seen.add(fresh, walk.found);
    return true;
  }

  // Takes into the pool what is near enough of the rows that were asked for.
  template <typename Rows>
  void measure(Walk<Rows>& walk) const {
    Pool& pool = walk.scratch->pool;
    std::uint32_t* const fresh = walk.scratch->fresh.data();
    float* const squared = walk.scratch->squared.data();
    walk.rows.to_each(fresh, walk.found, squared);
    const bool full = pool.full();
    const float farthest = pool.farthest();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < walk.found; ++i) {
      fresh[kept] = fresh[i];
      squared[kept] = squared[i];
      kept += !full | (squared[i] < farthest) ? 1 : 0;
    }
    for (std::size_t i = 0; i < kept; ++i)
      if (!pool.full() || squared[i] < pool.farthest()) {
        pool.add(squared[i], fresh[i], lives(fresh[i], walk.living));
        walk.lists->prefetch(fresh[i]);
      }
  }

  // One greedy pass over the links of `element` on an upper level; true where it moved.
  template <typename Rows>
  bool step_down(const Rows& rows, std::int32_t level, std::uint32_t& element, float& nearest,
                 Scratch& scratch) const {
    const Links links = checked(upper_links(element, level), max_links_);
    // Copied before they are checked: somebody may write to the file between a check and a use.
    std::uint32_t* const linked = scratch.fresh.data();
    std::copy_n(links.first, links.n, linked);
    for (std::size_t i = 0; i < links.n; ++i)
      if (linked[i] >= count_) fail("a link is out of range");
    for (std::size_t i = 0; i < links.n; ++i) rows.prefetch(linked[i]);
    rows.to_each(linked, links.n, scratch.squared.data());
    bool moved = false;
    for (std::size_t i = 0; i < links.n; ++i)
      if (scratch.squared[i] < nearest) {
        nearest = scratch.squared[i];
        element = linked[i];
        moved = true;
      }
    return moved;
  }

  Links checked(const std::uint8_t* list, std::size_t most) const {
    std::uint16_t n;
    std::memcpy(&n, list, sizeof n);  // the upper half of the word holds hnswlib's own marks
    if (n > most) fail("a link list is too long");
    return {reinterpret_cast<const std::uint32_t*>(list + 4), n};
  }

  const std::uint8_t* bytes_;
  std::size_t dim_, rows_;
  std::string name_;
  std::uint64_t record_ = 0, label_offset_ = 0, vector_offset_ = 0;
  std::uint64_t max_links_ = 0, max_links0_ = 0;
  std::int32_t top_level_ = 0;
  std::uint32_t entry_ = 0, count_ = 0;
  std::vector<Upper> upper_;
  std::vector<std::uint32_t> upper_starts_;  // of each block of elements, in upper_
  mutable std::atomic<bool> corrupt_{false};
};

}  // namespace resmem
