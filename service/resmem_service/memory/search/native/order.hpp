// A graph file whose elements lie in another order: those that a walk visits together, together.
//
// The order is that of Gorder (Wei et al., "Speedup Graph Processing by Graph Ordering", SIGMOD
// 2016): next comes the element with the most links to and from the last few that were placed. What
// is written is a file of hnswlib's as before: it may be loaded, searched and carried on there.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "graph.hpp"

namespace resmem {

// Elements by how many links they have with the window.
class LinkCounts {
 public:
  explicit LinkCounts(std::uint32_t count) : counts_(count, 0), before_(count), after_(count) {
    for (std::uint32_t element = count; element-- > 0;) insert(element);
  }

  bool placed(std::uint32_t element) const { return counts_[element] == kNone; }

  void place(std::uint32_t element) {
    remove(element);
    counts_[element] = kNone;
  }

  void change(std::uint32_t element, std::uint32_t by) {
    if (placed(element)) return;
    remove(element);
    counts_[element] += by;
    insert(element);
  }

  // An element of the highest count; there must be one.
  std::uint32_t highest() {
    while (first_[top_] == kNone) --top_;
    return first_[top_];
  }

 private:
  static constexpr std::uint32_t kNone = ~0U;

  void insert(std::uint32_t element) {
    const std::uint32_t count = counts_[element];
    if (count >= first_.size()) first_.resize(count + 1, kNone);
    before_[element] = kNone;
    after_[element] = first_[count];
    if (first_[count] != kNone) before_[first_[count]] = element;
    first_[count] = element;
    top_ = std::max(top_, count);
  }

  void remove(std::uint32_t element) {
    const std::uint32_t before = before_[element], after = after_[element];
    (before == kNone ? first_[counts_[element]] : after_[before]) = after;
    if (after != kNone) before_[after] = before;
  }

  std::vector<std::uint32_t> counts_, before_, after_, first_;
  std::uint32_t top_ = 0;
};

class Reordering {
 public:
  explicit Reordering(const Graph& graph) : graph_(graph), links_to_(graph) {
    const std::uint32_t n = graph.count();
    LinkCounts counts(n);
    order_.reserve(n);
    for (std::uint32_t element = graph.entry(); order_.size() < n; element = counts.highest()) {
      counts.place(element);
      order_.push_back(element);
      if (order_.size() == n) break;
      change(counts, element, 1);
      if (order_.size() > kWindow) change(counts, order_[order_.size() - 1 - kWindow], ~0U);
    }
    place_.resize(n);
    for (std::uint32_t at = 0; at < n; ++at) place_[order_[at]] = at;
  }

  // `to` has room for as many bytes as the graph file has.
  void write(std::uint8_t* to) const {
    const std::size_t header = Graph::kHeader, record = graph_.record_bytes();
    std::memcpy(to, graph_.bytes(), header);
    const std::uint32_t entry = place_[graph_.entry()];
    std::memcpy(to + Graph::kEntryAt, &entry, sizeof entry);
    std::uint8_t* at = to + header;
    for (const std::uint32_t element : order_) {
      std::memcpy(at, graph_.record(element), record);
      renumber(at, graph_.most_links());
      at += record;
    }
    for (const std::uint32_t element : order_) {
      const Graph::Upper* upper = graph_.upper(element);
      const std::uint32_t bytes = upper == nullptr ? 0 : upper->levels * graph_.level_bytes();
      std::memcpy(at, &bytes, sizeof bytes);
      at += sizeof bytes;
      if (upper == nullptr) continue;
      std::memcpy(at, graph_.bytes() + upper->offset, bytes);
      for (std::uint32_t level = 0; level < upper->levels; ++level, at += graph_.level_bytes())
        renumber(at, graph_.most_upper_links());
    }
  }

 private:
  static constexpr std::size_t kWindow = 5;

  // Who links to an element; of very many the first few count.
  class LinksTo {
   public:
    explicit LinksTo(const Graph& graph) : starts_(graph.count() + 1, 0) {
      each(graph, [this](std::uint32_t, std::uint32_t to) { ++starts_[to + 1]; });
      for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
      from_.resize(starts_.back());
      std::vector<std::uint64_t> next(starts_.begin(), starts_.end() - 1);
      each(graph,
           [this, &next](std::uint32_t from, std::uint32_t to) { from_[next[to]++] = from; });
    }
    template <typename Act>
    void each_of(std::uint32_t element, Act act) const {
      const std::uint64_t end = std::min(starts_[element + 1], starts_[element] + kMost);
      for (std::uint64_t i = starts_[element]; i < end; ++i) act(from_[i]);
    }

   private:
    static constexpr std::uint64_t kMost = 64;

    template <typename Act>
    static void each(const Graph& graph, Act act) {
      for (std::uint32_t element = 0; element < graph.count(); ++element) {
        const Graph::Links links = graph.links(element);
        for (std::size_t i = 0; i < links.n; ++i) act(element, links.first[i]);
      }
    }

    std::vector<std::uint64_t> starts_;
    std::vector<std::uint32_t> from_;
  };

  void change(LinkCounts& counts, std::uint32_t element, std::uint32_t by) const {
    const Graph::Links links = graph_.links(element);
    for (std::size_t i = 0; i < links.n; ++i) counts.change(links.first[i], by);
    links_to_.each_of(element, [&](std::uint32_t from) { counts.change(from, by); });
  }

  // Of a list that begins with its length and has room for `most`.
  void renumber(std::uint8_t* list, std::size_t most) const {
    std::uint16_t n;
    std::memcpy(&n, list, sizeof n);
    if (n > most) graph_.fail("a link list is too long");
    for (std::uint8_t* link = list + 4; n > 0; --n, link += 4) {
      std::uint32_t element;
      std::memcpy(&element, link, sizeof element);
      if (element >= place_.size()) graph_.fail("a link is out of range");
      element = place_[element];
      std::memcpy(link, &element, sizeof element);
    }
  }

  const Graph& graph_;
  LinksTo links_to_;
  std::vector<std::uint32_t> order_, place_;
};

}  // namespace resmem
