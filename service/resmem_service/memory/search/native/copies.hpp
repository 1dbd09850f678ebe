// Rows with equal embeddings. They are one element of the graph, which is labelled with the first of
// them: hnswlib links elements at one place to each other alone, so that many of them would cut off
// everything behind them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace resmem {

class Copies {
 public:
  // `groups` [g, 2] in rising order: the label of an element with several rows, and where its rows
  // end in `copies` [c], which holds them group by group, the newest first. `sound` is false where
  // they contradict each other, and nothing else may be asked then.
  Copies(const std::uint32_t* groups, std::size_t g, const std::uint32_t* copies, std::size_t c,
         std::size_t rows)
      : copies_(copies), rows_(rows), words_(rows / 64 + 1, 0), ranks_(rows / 64 + 1, 0) {
    // Kept in RAM: a file that is cut must not lead a search out of it.
    ends_.reserve(g + 1);
    ends_.push_back(0);
    std::uint64_t next_label = 0;
    for (std::size_t i = 0; i < g; ++i) {
      const std::uint32_t label = groups[2 * i], end = groups[2 * i + 1];
      if (label < next_label || label >= rows || end < ends_.back() + 2 || end > c) return;
      next_label = static_cast<std::uint64_t>(label) + 1;
      words_[label / 64] |= std::uint64_t{1} << (label % 64);
      ends_.push_back(end);
    }
    if (ends_.back() != c) return;
    std::uint32_t before = 0;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      ranks_[i] = before;
      before += static_cast<std::uint32_t>(__builtin_popcountll(words_[i]));
    }
    after_dead_.reset(new std::atomic<std::uint32_t>[c]());
    sound_ = true;
  }

  bool sound() const { return sound_; }

  // Rows that are not the label of an element.
  std::size_t hidden() const { return ends_.back() - (ends_.size() - 1); }

  bool has(std::uint32_t label) const { return (words_[label / 64] >> (label % 64) & 1) != 0; }

  // The newest living rows of an element that has several, at most `most`, each given to `take`;
  // false where a row is out of range. Rows that are dead stay dead, so that the end of a run of
  // them is written down at its beginning: however many there are, they are walked over once.
  template <typename Take>
  bool each_living(std::uint32_t label, const std::atomic<std::uint8_t>* dead, std::size_t most,
                   Take take) const {
    const std::size_t group = group_of(label);
    const std::uint32_t end = ends_[group + 1];
    for (std::uint32_t at = ends_[group]; at < end && most > 0;) {
      const std::uint32_t row = row_at(at);
      if (row >= rows_) return false;
      if (lives(row, dead)) {
        take(row);
        ++at;
        --most;
        continue;
      }
      const std::uint32_t first = at;
      do {
        at = std::max(at + 1, after_dead_[at].load(std::memory_order_relaxed));
      } while (at < end && is_dead(row_at(at), dead));
      after_dead_[first].store(at, std::memory_order_relaxed);
    }
    return true;
  }

 private:
  std::size_t group_of(std::uint32_t label) const {
    const std::uint64_t before = words_[label / 64] & ((std::uint64_t{1} << (label % 64)) - 1);
    return ranks_[label / 64] + static_cast<std::size_t>(__builtin_popcountll(before));
  }

  // Read once, and checked then: somebody may write to the file between a check and a use.
  std::uint32_t row_at(std::uint32_t at) const {
    return __atomic_load_n(copies_ + at, __ATOMIC_RELAXED);
  }

  static bool lives(std::uint32_t row, const std::atomic<std::uint8_t>* dead) {
    return dead == nullptr || dead[row].load(std::memory_order_relaxed) == 0;
  }

  bool is_dead(std::uint32_t row, const std::atomic<std::uint8_t>* dead) const {
    return row < rows_ && !lives(row, dead);
  }

  const std::uint32_t* copies_;
  std::size_t rows_;
  // Which labels have several rows, and how many do before each word: of most rows one bit tells.
  std::vector<std::uint64_t> words_;
  std::vector<std::uint32_t> ranks_, ends_;
  std::unique_ptr<std::atomic<std::uint32_t>[]> after_dead_;
  bool sound_ = false;
};

// Which rows may be found.
struct Living {
  const std::atomic<std::uint8_t>* dead;  // by row; null where every row lives
  const Copies* copies;                   // null where every row is an element of its own

  // Whether an element of this label has a living row.
  bool has(std::uint32_t label) const {
    if (dead == nullptr) return true;
    if (copies == nullptr || !copies->has(label))
      return dead[label].load(std::memory_order_relaxed) == 0;
    bool found = false;
    copies->each_living(label, dead, 1, [&found](std::uint32_t) { found = true; });
    return found;
  }
};

}  // namespace resmem
