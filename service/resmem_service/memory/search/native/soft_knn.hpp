// The soft k-nearest-neighbour average over several segments.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "segments.hpp"

namespace resmem {

struct Rule {
  std::size_t k, ef;
  double sigma, alpha;
};

// A segment as one batch sees it: rows published after the batch began are not in it.
struct View {
  const Segment* segment;
  const SealedSegment* sealed;    // the same segment where it is sealed, else null
  const GrowingSegment* growing;  // the same where it is growing
  std::size_t rows;
};

// Queries that are searched for together; their distances and hits stay in the cache.
constexpr std::size_t kSearched = 32;

struct Neighbour {
  double distance;
  double weight;
  std::int64_t sequence;
  const Segment* segment;
  std::uint32_t row;
};

class SoftKnn {
 public:
  // Begins a search for `n` queries, at most kSearched: scans the growing segments for all of them.
  // `correct` is then called for each in turn.
  void begin(const std::vector<View>& views, const float* queries, std::size_t n,
             const Rule& rule) {
    for (std::size_t q = 0; q < n; ++q) found_[q].clear();
    for (const View& view : views) {
      if (view.growing == nullptr) continue;
      for (std::size_t q = 0; q < n; ++q) hits_[q].clear();
      view.growing->nearest(queries, n, view.rows, rule.k, hits_);
      for (std::size_t q = 0; q < n; ++q)
        for (const Hit& hit : hits_[q])
          found_[q].push_back({{hit.squared, hit.row, hit.row}, &view});
    }
    queries_ = queries;
    count_ = n;
  }

  // Fills `neighbours()`, the nearest first, and writes the weighted sum of residuals `[L]`, for
  // the `q`-th of the queries.
  void correct(const std::vector<View>& views, std::size_t q, const Rule& rule, std::size_t width,
               float* correction) {
    // Not for all at once: what one query has read would be out of the cache again when it is
    // weighed.
    if (q % Graph::kTogether == 0)
      search_sealed(views, q, std::min(Graph::kTogether, count_ - q), rule);
    collect(q, rule);
    weigh(rule);
    sum_.assign(width, 0.0);
    double shared = 0.0;
    for (const Neighbour& n : neighbours_) {
      const Codec& codec = n.segment->codec();
      const std::uint8_t* code = n.segment->code(n.row);
      if (n.weight > 0 && !codec.add(code, n.weight, sum_.data(), shared))
        n.segment->fail("a residual names a class that there is not");
    }
    for (std::size_t j = 0; j < width; ++j) correction[j] = static_cast<float>(sum_[j] + shared);
  }

  const std::vector<Neighbour>& neighbours() const { return neighbours_; }

 private:
  struct Found {
    SealedHit hit;  // of a growing segment the row is the element as well
    const View* view;

    std::uint32_t row() const {
      return hit.row == SealedHit::kAnyRow ? view->sealed->row(hit.element) : hit.row;
    }
    std::int64_t sequence() const { return view->segment->sequence(row()); }
  };

  void search_sealed(const std::vector<View>& views, std::size_t first, std::size_t n,
                     const Rule& rule) {
    for (const View& view : views) {
      if (view.sealed == nullptr) continue;
      for (std::size_t q = 0; q < n; ++q) sealed_hits_[q].clear();
      const float* queries = queries_ + first * view.segment->dim();
      view.sealed->nearest(queries, n, rule.k, rule.ef, scratches_, sealed_hits_);
      for (std::size_t q = 0; q < n; ++q)
        for (const SealedHit& hit : sealed_hits_[q]) found_[first + q].push_back({hit, &view});
    }
  }

  // Leaves the `kept` nearest, of equal distances the newest.
  void keep_nearest(std::vector<Found>& found, std::size_t kept) {
    if (found.size() <= kept) return;
    const auto nth = found.begin() + static_cast<std::ptrdiff_t>(kept);
    std::nth_element(found.begin(), nth, found.end(),
                     [](const Found& a, const Found& b) { return a.hit.squared < b.hit.squared; });
    const float edge = nth->hit.squared;
    const auto ties = std::partition(found.begin(), found.end(),
                                     [edge](const Found& f) { return f.hit.squared < edge; });
    const auto end =
        std::partition(ties, found.end(), [edge](const Found& f) { return f.hit.squared == edge; });
    const std::ptrdiff_t places = nth - ties;
    if (places > 0) {
      // Sequences lie in a mapped file, and an order that changes while it is sorted leads a sort
      // out of its bounds: each is read once.
      ties_.clear();
      for (auto f = ties; f != end; ++f) ties_.emplace_back(f->sequence(), *f);
      std::nth_element(ties_.begin(), ties_.begin() + places, ties_.end(),
                       [](const auto& a, const auto& b) { return a.first > b.first; });
      for (std::ptrdiff_t i = 0; i < places; ++i)
        ties[i] = ties_[static_cast<std::size_t>(i)].second;
    }
    found.resize(kept);
  }

  void collect(std::size_t q, const Rule& rule) {
    std::vector<Found>& found = found_[q];
    keep_nearest(found, rule.k + GrowingSegment::kMargin);
    neighbours_.clear();
    for (const Found& f : found) {
      const Segment& segment = *f.view->segment;
      const float* query = queries_ + q * segment.dim();
      const double squared = distance.exact(query, segment.vector(f.hit.element), segment.dim());
      // Every vector that was added is finite.
      if (std::isnan(squared)) segment.fail("a vector is no number");
      const std::uint32_t row = f.row();
      segment.prefetch(row);
      neighbours_.push_back({std::sqrt(squared), 0, 0, &segment, row});
    }
    for (Neighbour& n : neighbours_) n.sequence = n.segment->sequence(n.row);
    // Of equal distances the newer memory comes first: what was taught last is named first.
    std::sort(neighbours_.begin(), neighbours_.end(), [](const Neighbour& a, const Neighbour& b) {
      return a.distance != b.distance ? a.distance < b.distance : a.sequence > b.sequence;
    });
    if (neighbours_.size() > rule.k) neighbours_.resize(rule.k);
  }

  // w_i = m_i e_i / (alpha + sum_j m_j e_j) with e_i = exp(-d_i/sigma), both sides multiplied by
  // exp(d_min/sigma) so that the sum can never be 0.
  void weigh(const Rule& rule) {
    if (neighbours_.empty()) return;
    const double nearest = neighbours_.front().distance;
    double total = rule.alpha > 0 ? rule.alpha * std::exp(nearest / rule.sigma) : 0.0;
    for (Neighbour& n : neighbours_) {
      n.weight = n.segment->weight(n.row) * std::exp((nearest - n.distance) / rule.sigma);
      total += n.weight;
    }
    // 0 or NaN where a segment of an earlier release holds such importances: nothing votes then.
    const bool sound = total > 0 && !std::isinf(total);
    for (Neighbour& n : neighbours_) n.weight = sound ? n.weight / total : 0.0;
  }

  Scratch scratches_[Graph::kTogether];
  std::vector<Hit> hits_[kSearched];
  std::vector<SealedHit> sealed_hits_[Graph::kTogether];
  std::vector<Found> found_[kSearched];
  std::vector<std::pair<std::int64_t, Found>> ties_;
  std::vector<Neighbour> neighbours_;
  std::vector<double> sum_;
  const float* queries_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace resmem
