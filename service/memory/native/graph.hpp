// A graph saved by hnswlib 0.8, searched in the bytes of its file: no copy, no load, no lock.
//
// Layout (little-endian): a header of 96 bytes; `count` records of links, vector and label; then,
// per element, the byte length of its upper links and those links. The search visits what
// hnswlib's searchBaseLayerST visits, in the same order, so that results agree at the same ef.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "distance.hpp"

namespace resmem {

struct CorruptGraph : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Hit {
  float squared;
  std::uint32_t row;
};

// What one thread needs to search; kept between searches so that none of them allocates.
struct Scratch {
  // A row is visited when its mark equals the epoch: one byte a row, cleared every 255 searches.
  std::vector<std::uint8_t> marks;
  std::uint8_t epoch = 0;

  struct Candidate {
    float squared;
    std::uint32_t element;
    bool expanded;
    bool alive;
  };
  std::vector<Candidate> pool;  // sorted by distance
  std::vector<std::uint32_t> fresh;
  std::vector<const float*> rows;
  std::vector<float> squared;

  void begin(std::size_t count, std::size_t links) {
    if (marks.size() < count) {
      marks.assign(count, 0);
      epoch = 0;
    }
    if (++epoch == 0) {
      std::fill(marks.begin(), marks.end(), 0);
      epoch = 1;
    }
    pool.clear();
    fresh.resize(links);
    rows.resize(links);
    squared.resize(links);
  }
};

class Graph {
 public:
  // Reads the header and the table of upper links; touches no vector.
  // `name` stands in the message of every CorruptGraph.
  Graph(const std::uint8_t* bytes, std::size_t size, std::size_t dim, std::string name)
      : bytes_(bytes), dim_(dim), name_(std::move(name)) {
    if (size < kHeader) fail("it is shorter than its header");
    const std::uint64_t offset_level0 = read<std::uint64_t>(0);
    const std::uint64_t count = read<std::uint64_t>(16);
    record_ = read<std::uint64_t>(24);
    label_offset_ = read<std::uint64_t>(32);
    vector_offset_ = read<std::uint64_t>(40);
    top_level_ = read<std::int32_t>(48);
    entry_ = read<std::uint32_t>(52);
    max_links_ = read<std::uint64_t>(56);
    max_links0_ = read<std::uint64_t>(64);
    constexpr std::uint64_t kMostLinks = 1 << 15;
    if (offset_level0 != 0 || max_links_ == 0 || max_links_ > kMostLinks || max_links0_ > kMostLinks ||
        vector_offset_ != 4 + 4 * max_links0_ || label_offset_ != vector_offset_ + 4 * dim_ ||
        record_ != label_offset_ + 8)
      fail("its header is not that of an hnswlib graph of this dimension");
    if (count == 0 || count > std::numeric_limits<std::uint32_t>::max() ||
        count > (size - kHeader) / record_)
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

  const float* vector(std::uint32_t element) const {
    return reinterpret_cast<const float*>(level0(element) + vector_offset_);
  }

  // The row number that the element was added under.
  std::uint32_t row(std::uint32_t element) const {
    std::uint64_t label;
    std::memcpy(&label, level0(element) + label_offset_, sizeof label);
    if (label >= count_) fail("a label is out of range");
    return static_cast<std::uint32_t>(label);
  }

  // The ef nearest living elements in `scratch.pool`, sorted, among elements that only lead there.
  // `dead` is indexed by row; null where every row lives.
  void search(const float* query, std::size_t ef, const std::atomic<std::uint8_t>* dead,
              Scratch& scratch) const {
    scratch.begin(count_, std::max(max_links_, max_links0_));
    std::uint32_t element = entry_;
    const float* first = vector(element);
    float nearest;
    distance.to_each(query, &first, 1, dim_, &nearest);
    for (std::int32_t level = top_level_; level > 0; --level)
      while (step_down(query, level, element, nearest, scratch)) {
      }

    auto& pool = scratch.pool;
    scratch.marks[element] = scratch.epoch;
    const bool alive = lives(element, dead);
    pool.push_back({nearest, element, false, alive});
    std::size_t living = alive ? 1 : 0;
    for (std::size_t next = 0; next < pool.size();) {
      if (pool[next].expanded) {
        ++next;
        continue;
      }
      pool[next].expanded = true;
      const std::size_t fresh = unvisited(pool[next].element, scratch);
      if (next + 1 < pool.size()) {
        // Most often the one to be expanded next.
        const std::uint8_t* list = level0(pool[next + 1].element);
        __builtin_prefetch(list);
        __builtin_prefetch(list + 64);
      }
      distance.to_each(query, scratch.rows.data(), fresh, dim_, scratch.squared.data());
      for (std::size_t i = 0; i < fresh; ++i) {
        const float squared = scratch.squared[i];
        if (living >= ef && squared >= pool.back().squared) continue;
        const std::uint32_t found = scratch.fresh[i];
        const bool found_alive = lives(found, dead);
        const auto place =
            std::upper_bound(pool.begin(), pool.end(), squared,
                             [](float s, const Scratch::Candidate& c) { return s < c.squared; });
        const std::size_t at = static_cast<std::size_t>(place - pool.begin());
        pool.insert(place, {squared, found, false, found_alive});
        next = std::min(next, at);
        living += found_alive ? 1 : 0;
        if (living > ef) {
          drop_last(pool);
          --living;
        }
      }
    }
  }

 private:
  static constexpr std::size_t kHeader = 96;

  struct Upper {
    std::uint32_t element;
    std::uint32_t levels;
    std::uint64_t offset;
  };

  template <typename T>
  T read(std::size_t offset) const {
    T value;
    std::memcpy(&value, bytes_ + offset, sizeof value);
    return value;
  }

  const std::uint8_t* level0(std::uint32_t element) const {
    return bytes_ + kHeader + static_cast<std::size_t>(element) * record_;
  }

  bool lives(std::uint32_t element, const std::atomic<std::uint8_t>* dead) const {
    return dead == nullptr || dead[row(element)].load(std::memory_order_relaxed) == 0;
  }

  // Only one element in M has upper links: a sorted table of those, small enough to keep.
  void read_upper_table(std::size_t size) {
    const std::size_t per_level = 4 + 4 * max_links_;
    std::size_t at = kHeader + static_cast<std::size_t>(count_) * record_;
    for (std::uint32_t element = 0; element < count_; ++element) {
      if (size - at < 4) fail("its upper links end early");
      const std::uint32_t length = read<std::uint32_t>(at);
      at += 4;
      if (length == 0) continue;
      if (length % per_level != 0 || length > size - at)
        fail("an upper link list has a wrong length");
      upper_.push_back({element, static_cast<std::uint32_t>(length / per_level), at});
      at += length;
    }
    if (at != size) fail("it is longer than its header says");
  }

  const std::uint8_t* upper_links(std::uint32_t element, std::int32_t level) const {
    const auto found =
        std::lower_bound(upper_.begin(), upper_.end(), element,
                         [](const Upper& u, std::uint32_t e) { return u.element < e; });
    if (found == upper_.end() || found->element != element ||
        found->levels < static_cast<std::uint32_t>(level))
      fail("an upper link leads to an element without that level");
    return bytes_ + found->offset + static_cast<std::size_t>(level - 1) * (4 + 4 * max_links_);
  }

  // Reads a link list into scratch.fresh; returns its length.
  std::size_t links(const std::uint8_t* list, std::size_t most, Scratch& scratch) const {
    std::uint16_t n;
    std::memcpy(&n, list, sizeof n);  // the upper half of the word holds hnswlib's own marks
    if (n > most) fail("a link list is too long");
    std::memcpy(scratch.fresh.data(), list + 4, n * sizeof(std::uint32_t));
    std::uint32_t highest = 0;
    for (std::size_t i = 0; i < n; ++i) highest = std::max(highest, scratch.fresh[i]);
    if (n > 0 && highest >= count_) fail("a link is out of range");
    return n;
  }

  // One greedy pass over the links of `element` on an upper level; true where it moved.
  bool step_down(const float* query, std::int32_t level, std::uint32_t& element, float& nearest,
                 Scratch& scratch) const {
    const std::size_t n = links(upper_links(element, level), max_links_, scratch);
    for (std::size_t i = 0; i < n; ++i) scratch.rows[i] = vector(scratch.fresh[i]);
    distance.to_each(query, scratch.rows.data(), n, dim_, scratch.squared.data());
    bool moved = false;
    for (std::size_t i = 0; i < n; ++i)
      if (scratch.squared[i] < nearest) {
        nearest = scratch.squared[i];
        element = scratch.fresh[i];
        moved = true;
      }
    return moved;
  }

  // Marks the unvisited neighbours of `element` and leaves them in scratch.fresh and .rows.
  std::size_t unvisited(std::uint32_t element, Scratch& scratch) const {
    const std::size_t n = links(level0(element), max_links0_, scratch);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < n; ++i) __builtin_prefetch(&scratch.marks[scratch.fresh[i]]);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t neighbour = scratch.fresh[i];
      if (scratch.marks[neighbour] == scratch.epoch) continue;
      scratch.marks[neighbour] = scratch.epoch;
      const float* row = vector(neighbour);
      // All rows of the list are asked for before the first is read: their misses overlap. The
      // first two lines of each are enough, the processor fetches on from there.
      __builtin_prefetch(row);
      __builtin_prefetch(row + 16);
      scratch.fresh[kept] = neighbour;
      scratch.rows[kept] = row;
      ++kept;
    }
    return kept;
  }

  // Drops the farthest living candidate and the dead ones behind it.
  static void drop_last(std::vector<Scratch::Candidate>& pool) {
    while (!pool.back().alive) pool.pop_back();
    pool.pop_back();
    while (!pool.empty() && !pool.back().alive) pool.pop_back();
  }

  const std::uint8_t* bytes_;
  std::size_t dim_;
  std::string name_;
  std::uint64_t record_ = 0, label_offset_ = 0, vector_offset_ = 0;
  std::uint64_t max_links_ = 0, max_links0_ = 0;
  std::int32_t top_level_ = 0;
  std::uint32_t entry_ = 0, count_ = 0;
  std::vector<Upper> upper_;
  mutable std::atomic<bool> corrupt_{false};
};

}  // namespace resmem
