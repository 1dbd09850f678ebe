// What one thread needs to walk through a graph; kept between searches so that none of them
// allocates.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace resmem {

// Which elements a walk has seen: a bit each, and what was set is unset one by one, so that a
// million elements take 128 KB of the cache and nothing is swept.
class Seen {
 public:
  void begin(std::size_t count) {
    if (words_.size() < count / 32 + 1) words_.assign(count / 32 + 1, 0);
    for (std::size_t i = 0; i < set_count_; ++i) words_[set_[i]] = 0;
    set_count_ = 0;
  }

  void add(const std::uint32_t* elements, std::size_t n) {
    if (set_.size() < set_count_ + n) set_.resize(2 * (set_count_ + n));
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t word = elements[i] >> 5;
      words_[word] |= 1U << (elements[i] & 31);
      set_[set_count_++] = word;
    }
  }

  const std::uint32_t* words() const { return words_.data(); }

 private:
  std::vector<std::uint32_t> words_, set_;
  std::size_t set_count_ = 0;
};

// The nearest candidates, sorted. A candidate is one word, so that an insertion moves few bytes:
// its squared distance above (floats that are not negative sort like their bits), then the
// element, then two marks.
class Pool {
 public:
  static constexpr std::uint32_t kMostElements = 1U << 30;

  // Keeps the `breadth` nearest living ones, the dead between them, and expands the `expanded`
  // nearest of all, or everything where some are dead.
  void begin(std::size_t breadth, std::size_t expanded) {
    breadth_ = breadth;
    expanded_ = expanded;
    size_ = living_ = next_ = 0;
    if (keys_.size() <= breadth) keys_.resize(breadth + 1);
  }

  // A candidate is kept while the pool is not full, and then where it is nearer than this.
  bool full() const { return living_ == breadth_; }
  float farthest() const { return size_ == 0 ? 0 : distance_of(size_ - 1); }

  void add(float squared, std::uint32_t element, bool alive) {
    std::uint32_t bits;
    std::memcpy(&bits, &squared, sizeof bits);
    const std::uint64_t key = static_cast<std::uint64_t>(bits) << 32 |
                              static_cast<std::uint64_t>(element) << 2 | (alive ? 0 : kDead);
    std::uint64_t* const keys = keys_.data();
    const std::size_t at = place_of(key);
    std::copy_backward(keys + at, keys + size_, keys + size_ + 1);
    keys[at] = key;
    ++size_;
    next_ = std::min(next_, at);
    living_ += alive ? 1 : 0;
    if (living_ > breadth_) drop_last();
    if (size_ == keys_.size()) keys_.resize(2 * size_);
  }

  // Takes the nearest that was not expanded yet; false where none is left.
  bool next(std::uint32_t& element) {
    skip_expanded();
    if (next_ >= limit()) return false;
    keys_[next_] |= kExpanded;
    element = this->element(next_++);
    return true;
  }

  std::size_t size() const { return size_; }
  std::uint32_t element(std::size_t i) const { return static_cast<std::uint32_t>(keys_[i]) >> 2; }
  bool alive(std::size_t i) const { return (keys_[i] & kDead) == 0; }
  float distance_of(std::size_t i) const {
    const auto bits = static_cast<std::uint32_t>(keys_[i] >> 32);
    float squared;
    std::memcpy(&squared, &bits, sizeof squared);
    return squared;
  }

 private:
  static constexpr std::uint64_t kExpanded = 1, kDead = 2;

  std::size_t limit() const { return living_ == size_ ? std::min(size_, expanded_) : size_; }

  // How many are nearer. A binary search that never branches on what it reads, since the processor
  // would guess wrong every second time.
  std::size_t place_of(std::uint64_t key) const {
    const std::uint64_t* from = keys_.data();
    std::size_t n = size_;
    while (n > 1) {
      const std::size_t half = n / 2;
      from += half & (from[half - 1] < key ? ~std::size_t{0} : 0);
      n -= half;
    }
    return static_cast<std::size_t>(from - keys_.data()) + (n == 1 && *from < key ? 1 : 0);
  }

  void skip_expanded() {
    while (next_ < limit() && (keys_[next_] & kExpanded) != 0) ++next_;
  }

  // Drops the farthest living candidate and the dead ones behind it.
  void drop_last() {
    while (!alive(size_ - 1)) --size_;
    --size_;
    while (size_ > 0 && !alive(size_ - 1)) --size_;
    --living_;
  }

  std::vector<std::uint64_t> keys_;
  std::size_t breadth_ = 0, expanded_ = 0, size_ = 0, living_ = 0, next_ = 0;
};

struct Scratch {
  Seen seen;
  Pool pool;
  std::vector<std::uint32_t> fresh;
  std::vector<float> squared;
  std::vector<float> query;
  std::vector<std::pair<float, std::uint32_t>> order;
};

}  // namespace resmem
