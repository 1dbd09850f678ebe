// What a body of JSON would cost, and where it is no plain JSON, without parsing it.
//
// All functions take one pass over the bytes and allocate next to nothing, whatever they are given:
// they run on bodies that nobody has looked at yet, and on those that a parser has refused.

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace {

using Size = std::size_t;
using Span = std::pair<Size, Size>;

constexpr Size kDeepestPath = 40;
constexpr Span kNone{0, 0};

struct Count {
  Size values = 0, lists = 0, objects = 0, strings = 0;

  bool within(const Count& limit) const {
    return values <= limit.values && lists <= limit.lists && objects <= limit.objects &&
           strings <= limit.strings;
  }
};

// Commas, openings and pairs of quotes, those inside of strings as well: never fewer than there
// are.
Count count_at_most(const char* text, Size size) {
  Count total;
  constexpr Size kBlock = 128;  // a byte holds the count of a block
  for (Size start = 0; start < size; start += kBlock) {
    std::uint8_t commas = 0, lists = 0, objects = 0, quotes = 0;
    const Size stop = std::min(start + kBlock, size);
    for (Size i = start; i < stop; ++i) {
      commas = static_cast<std::uint8_t>(commas + (text[i] == ','));
      lists = static_cast<std::uint8_t>(lists + (text[i] == '['));
      objects = static_cast<std::uint8_t>(objects + (text[i] == '{'));
      quotes = static_cast<std::uint8_t>(quotes + (text[i] == '"'));
    }
    total.values += commas;
    total.lists += lists;
    total.objects += objects;
    total.strings += quotes;
  }
  total.strings = (total.strings + 1) / 2;
  return total;
}

// The place after the string that begins at `at`, or the end.
Size after_string(const char* text, Size size, Size at) {
  for (++at; at < size; ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return size;
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// Walks over tokens and keeps what the top-level object is at: the key, and how many elements of
// the lists around a token came before it.
class Walk {
 public:
  Walk(const char* text, Size size) : text_(text), size_(size) {}

  // Where a token stands: a key's span (`is_key`) or an index in a list for each level.
  struct Step {
    bool is_object;
    Span key;
    Size index;
  };

  // Calls `on_begin(span)` for each string and each opening, once the walk is inside, and
  // `on_token(span)` for each comma, number and word; either ends the walk by returning false.
  template <class OnBegin, class OnToken>
  void run(OnBegin on_begin, OnToken on_token) {
    Size at = 0;
    while (at < size_) {
      const char c = text_[at];
      Size next = at + 1;
      if (c == '"') {
        next = after_string(text_, size_, at);
        note_key({at, next});
        if (!on_begin(Span{at, next})) return;
      } else if (c == '[' || c == '{') {
        ++depth_;
        if (depth_ <= kDeepestPath) top() = {c == '{', kNone, 0};
        if (!on_begin(Span{at, next})) return;
      } else if (c == ']' || c == '}') {
        if (depth_ > 0) --depth_;
      } else if (c == ',') {
        if (depth_ > 0 && depth_ <= kDeepestPath) ++top().index;
        if (!on_token(Span{at, next})) return;
      } else if (c != ':' && !is_space(c)) {
        while (next < size_ && !ends_token(text_[next])) ++next;
        if (!on_token(Span{at, next})) return;
      }
      at = next;
    }
  }

  Size depth() const { return depth_; }
  Span field() const { return depth_ > 0 && steps_[0].is_object ? steps_[0].key : kNone; }
  const Step& step(Size level) const { return steps_[level]; }

  // Elements before this place in the outermost list below the field's key.
  Size elements() const {
    for (Size level = 1; level < std::min(depth_, kDeepestPath); ++level)
      if (!steps_[level].is_object) return steps_[level].index;
    return 0;
  }

 private:
  Step& top() { return steps_[depth_ - 1]; }

  static bool ends_token(char c) {
    return c == ',' || c == ':' || c == '"' || c == '[' || c == ']' || c == '{' || c == '}' ||
           is_space(c);
  }

  // A string that a colon follows is a key.
  void note_key(Span span) {
    if (depth_ == 0 || depth_ > kDeepestPath || !top().is_object) return;
    Size next = span.second;
    while (next < size_ && is_space(text_[next])) ++next;
    if (next == size_ || text_[next] != ':') return;
    top().key = span;
  }

  const char* text_;
  Size size_, depth_ = 0;
  Step steps_[kDeepestPath] = {};
};

// What a token is that no JSON can say or no float64 hold: NaN or an infinity; else 0.
class NotFinite {
 public:
  static double of(std::string_view token) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (token == "NaN") return std::numeric_limits<double>::quiet_NaN();
    const bool negative = token[0] == '-';
    if (negative) token.remove_prefix(1);
    if (token != "Infinity" && !overflows(token)) return 0.0;
    return negative ? -kInfinity : kInfinity;
  }

 private:
  static constexpr long kPlaces = 309;  // before the point, of the largest float64
  static constexpr std::string_view kTooLarge = "17976931348623158079372897140530341507993";

  static bool overflows(std::string_view token) {
    std::string digits;  // from the first that is not 0, as many as are compared
    long places = 0;     // before the point, counted from there
    bool point = false, any = false;
    Size at = 0;
    for (; at < token.size(); ++at) {
      const char c = token[at];
      if (c == '.' && !point) {
        point = true;
        continue;
      }
      if (c < '0' || c > '9') break;
      any |= c != '0';
      if (any && digits.size() < kTooLarge.size()) digits.push_back(c);
      if (any && !point) ++places;
      if (!any && point) --places;
    }
    if (!any) return false;
    if (at < token.size()) {
      if (token[at] != 'e' && token[at] != 'E') return false;
      places += exponent(token.substr(at + 1));
    }
    if (places != kPlaces) return places > kPlaces;
    digits.resize(kTooLarge.size(), '0');
    return digits >= kTooLarge;
  }

  static long exponent(std::string_view text) {
    const bool negative = !text.empty() && text[0] == '-';
    if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
    long value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') break;
      value = std::min(value * 10 + (c - '0'), 1L << 40);
    }
    return negative ? -value : value;
  }
};

// Whether bytes begin as JSON does, strictly but for NaN and the infinities, which pass as numbers.
// One pass that keeps a bit for each level of nesting; a body that ends early is no fault by itself.
class Grammar {
 public:
  enum class Fault { kNone, kSyntax, kTooLong, kTooDeep };

  Grammar(const char* text, Size size, Size longest, Size deepest)
      : text_(text), size_(size), longest_(longest), deepest_(deepest) {}

  Fault check() {
    while (fault_ == Fault::kNone && skip_space()) step();
    return fault_;
  }

  Size at() const { return at_; }  // of the fault, or of the end
  bool complete() const { return expected_ == Expected::kEnd; }
  bool odd() const { return odd_; }      // whether there is a number that no float64 may hold
  Span field() const { return field_; }  // the last key of the top-level object

 private:
  enum class Expected { kValue, kValueOrEnd, kKey, kKeyOrEnd, kColon, kCommaOrEnd, kEnd };

  static constexpr int kMostDigits = 300;  // before the point, of a number that is surely finite

  bool skip_space() {
    while (at_ < size_ && is_space(text_[at_])) ++at_;
    return at_ < size_;
  }

  void step() {
    const char c = text_[at_];
    switch (expected_) {
      case Expected::kValueOrEnd:
        if (c == ']') return close(false);
        [[fallthrough]];
      case Expected::kValue:
        return value(c);
      case Expected::kKeyOrEnd:
        if (c == '}') return close(true);
        [[fallthrough]];
      case Expected::kKey:
        if (c != '"') return fail();
        if (levels_.size() == 1) field_.first = at_;
        string();
        if (levels_.size() == 1) field_.second = at_;
        expected_ = Expected::kColon;
        return;
      case Expected::kColon:
        if (c != ':') return fail();
        ++at_;
        expected_ = Expected::kValue;
        return;
      case Expected::kCommaOrEnd:
        if (c == ']' || c == '}') return close(c == '}');
        if (c != ',') return fail();
        ++at_;
        expected_ = levels_.back() ? Expected::kKey : Expected::kValue;
        return;
      case Expected::kEnd:
        return fail();
    }
  }

  void value(char c) {
    if (c == '[' || c == '{') {
      if (levels_.size() == deepest_) return fail(Fault::kTooDeep);
      levels_.push_back(c == '{');
      ++at_;
      expected_ = c == '{' ? Expected::kKeyOrEnd : Expected::kValueOrEnd;
      return;
    }
    if (c == '"') {
      string();
    } else if (c == '-' || is_digit(c)) {
      number();
    } else if (c == 't') {
      word("true");
    } else if (c == 'f') {
      word("false");
    } else if (c == 'n') {
      word("null");
    } else if (c == 'N') {
      odd_ = true;
      word("NaN");
    } else if (c == 'I') {
      odd_ = true;
      word("Infinity");
    } else {
      return fail();
    }
    after_value();
  }

  void after_value() { expected_ = levels_.empty() ? Expected::kEnd : Expected::kCommaOrEnd; }

  void close(bool object) {
    if (levels_.back() != object) return fail();
    levels_.pop_back();
    ++at_;
    after_value();
  }

  void word(std::string_view whole) {
    for (const char c : whole) {
      if (at_ == size_) return;
      if (text_[at_] != c) return fail();
      ++at_;
    }
  }

  void number() {
    const Size start = at_;
    if (text_[at_] == '-') ++at_;
    if (at_ < size_ && text_[at_] == 'I') {
      odd_ = true;
      return word("Infinity");
    }
    const Size whole = at_;
    if (!digits()) return;
    if (text_[whole] == '0' && at_ - whole > 1) return fail(whole + 1);
    odd_ |= at_ - whole > kMostDigits;
    if (at_ < size_ && text_[at_] == '.') {
      ++at_;
      if (!digits()) return;
    }
    if (at_ < size_ && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < size_ && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      const Size exponent = at_;
      if (!digits()) return;
      odd_ |= at_ - exponent > 2;
    }
    if (at_ - start > longest_) fail(start, Fault::kTooLong);
  }

  // At least one, unless the bytes end here.
  bool digits() {
    if (at_ == size_) return true;
    if (!is_digit(text_[at_])) {
      fail();
      return false;
    }
    while (at_ < size_ && is_digit(text_[at_])) ++at_;
    return true;
  }

  void string() {
    const Size start = at_++;
    while (at_ < size_ && fault_ == Fault::kNone) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (at_ - start > longest_) return fail(start, Fault::kTooLong);
      if (c == '"') {
        ++at_;
        return;
      }
      if (c == '\\') {
        escape();
      } else if (c < 0x20) {
        fail();
      } else if (c < 0x80) {
        ++at_;
      } else {
        beyond_ascii(c);
      }
    }
  }

  void escape() {
    if (++at_ == size_) return;
    const char c = text_[at_];
    if (c == 'u') {
      ++at_;
      const int unit = hexadecimal();
      if (unit < 0) return;
      if (unit >= 0xdc00 && unit < 0xe000) return fail(at_ - 6);
      if (unit < 0xd800 || unit >= 0xdc00) return;
      if (at_ < size_ && text_[at_] != '\\') return fail();
      if (at_ + 1 < size_ && text_[at_ + 1] != 'u') return fail();
      at_ = std::min(at_ + 2, size_);
      const int low = hexadecimal();
      if (low >= 0 && (low < 0xdc00 || low >= 0xe000)) fail(at_ - 6);
      return;
    }
    if (std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) return fail();
    ++at_;
  }

  // Four digits; negative where one is none or the bytes end.
  int hexadecimal() {
    int unit = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ == size_) return -1;
      const char c = text_[at_];
      const int digit = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) {
        fail();
        return -1;
      }
      unit = unit * 16 + digit;
    }
    return unit;
  }

  // A character of UTF-8 (RFC 3629) that begins with `lead`.
  void beyond_ascii(unsigned char lead) {
    const Size start = at_;
    if (lead < 0xc2 || lead > 0xf4) return fail();
    const int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    unsigned char low = 0x80, high = 0xbf;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    ++at_;
    for (int i = 0; i < more && at_ < size_; ++i, ++at_) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c < low || c > high) return fail(start);
      low = 0x80;
      high = 0xbf;
    }
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  void fail(Fault fault = Fault::kSyntax) { fail(at_, fault); }

  void fail(Size at, Fault fault = Fault::kSyntax) {
    if (fault_ != Fault::kNone) return;
    fault_ = fault;
    at_ = at;
  }

  const char* text_;
  Size size_, longest_, deepest_, at_ = 0;
  Expected expected_ = Expected::kValue;
  Fault fault_ = Fault::kNone;
  std::vector<bool> levels_;  // whether each is an object
  Span field_ = kNone;
  bool odd_ = false;
};

struct Body {
  explicit Body(const py::buffer& buffer) : info(buffer.request()) {
    if (info.ndim != 1 || info.itemsize != 1 || info.strides[0] != 1)
      throw py::value_error("expected bytes");
    text = static_cast<const char*>(info.ptr);
    size = static_cast<Size>(info.size);
  }

  py::object slice(Span span) const {
    if (span == kNone) return py::none();
    return py::bytes(text + span.first, span.second - span.first);
  }

  py::buffer_info info;
  const char* text;
  Size size;
};

// None where a body has at most so many values, lists, objects and strings; else the key of the
// top-level object where there are more, as it is written, and the elements that came before in its
// list.
py::object excess(const py::buffer& buffer, Size values, Size lists, Size objects, Size strings) {
  const Body body(buffer);
  const Count limit{values, lists, objects, strings};
  Span field = kNone;
  Size elements = 0;
  bool over = false;
  {
    const py::gil_scoped_release unlocked;
    if (!count_at_most(body.text, body.size).within(limit)) {
      Walk walk(body.text, body.size);
      Count count;
      const auto check = [&] {
        over = !count.within(limit);
        if (over) {
          field = walk.field();
          elements = walk.elements();
        }
        return !over;
      };
      walk.run(
          [&](Span span) {
            const char c = body.text[span.first];
            ++(c == '"' ? count.strings : c == '[' ? count.lists : count.objects);
            return check();
          },
          [&](Span span) {
            count.values += body.text[span.first] == ',';
            return check();
          });
    }
  }
  if (!over) return py::none();
  return py::make_tuple(body.slice(field), elements);
}

// Appends a code point in UTF-8; half of a surrogate pair, which no valid body has alone, as if it
// were one, so that equal keys stay equal.
void append_utf8(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::uint32_t hexadecimal(std::string_view digits) {
  std::uint32_t value = 0;
  for (const char c : digits) {
    const std::uint32_t digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    value = value * 16 + (digit & 0xF);
  }
  return value;
}

// What the inside of a string means whose escapes are valid.
std::string unescaped(std::string_view text) {
  constexpr std::string_view kLetters = "bfnrt", kMeant = "\b\f\n\r\t";
  std::string plain;
  for (Size at = 0; at < text.size(); ++at) {
    if (text[at] != '\\' || at + 1 == text.size()) {
      plain.push_back(text[at]);
      continue;
    }
    const char c = text[++at];
    const Size letter = kLetters.find(c);
    if (c != 'u' || text.size() - at < 5) {
      plain.push_back(letter == std::string_view::npos ? c : kMeant[letter]);
      continue;
    }
    std::uint32_t code = hexadecimal(text.substr(at + 1, 4));
    at += 4;
    const std::string_view next = text.substr(at + 1);
    if (code >= 0xD800 && code < 0xDC00 && next.size() >= 6 && next[0] == '\\' && next[1] == 'u') {
      code =
          0x10000 + ((code - 0xD800) << 10) + ((hexadecimal(next.substr(2, 4)) - 0xDC00) & 0x3FF);
      at += 6;
    }
    append_utf8(plain, code);
  }
  return plain;
}

// The first key, as it is written, that its object has had already, and the key of the top-level
// object below which it stands, the same for one of that object itself. None where there is none,
// of objects down to a depth of kDeepestPath. The body is valid JSON.
py::object repeated_key(const py::buffer& buffer) {
  const Body body(buffer);
  Span found = kNone, field = kNone;
  {
    const py::gil_scoped_release unlocked;
    Walk walk(body.text, body.size);
    std::vector<std::set<std::string_view>> seen(kDeepestPath);
    std::deque<std::string> decoded;  // keys with escapes, which the sets point into
    walk.run(
        [&](Span span) {
          const Size depth = walk.depth();
          if (depth == 0 || depth > kDeepestPath) return true;
          std::set<std::string_view>& keys = seen[depth - 1];
          if (body.text[span.first] == '{') keys.clear();
          const Walk::Step& step = walk.step(depth - 1);
          if (!step.is_object || step.key != span) return true;
          std::string_view key(body.text + span.first + 1, span.second - span.first - 2);
          if (key.find('\\') != std::string_view::npos) key = decoded.emplace_back(unescaped(key));
          if (keys.insert(key).second) return true;
          found = span;
          field = walk.field();
          return false;
        },
        [](Span) { return true; });
  }
  if (found == kNone) return py::none();
  return py::make_tuple(body.slice(found), body.slice(field));
}

// Whether values are nested in more than `depth` lists and objects; then the key of the top-level
// object where they are, as it is written, or an empty one where there is no object.
py::object too_deep(const py::buffer& buffer, Size depth) {
  const Body body(buffer);
  bool found = false;
  Span field = kNone;
  {
    const py::gil_scoped_release unlocked;
    Walk walk(body.text, body.size);
    walk.run(
        [&](Span) {
          found = walk.depth() > depth;
          if (found) field = walk.field();
          return !found;
        },
        [](Span) { return true; });
  }
  if (!found) return py::none();
  return field == kNone ? py::bytes() : body.slice(field);
}

// The body with `null` in the place of every NaN, infinity and number too large for a float64, and
// of the first `most` of them the value and the way to it: keys, as they are written, and indexes.
// None where there is none.
py::object without_not_finite(const py::buffer& buffer, Size most) {
  struct Place {
    double value;
    std::vector<Walk::Step> path;
  };
  const Body body(buffer);
  std::vector<Place> places;
  std::string rewritten;
  {
    const py::gil_scoped_release unlocked;
    Size copied = 0;
    Walk walk(body.text, body.size);
    walk.run([](Span) { return true; },
             [&](Span span) {
               const double value =
                   NotFinite::of({body.text + span.first, span.second - span.first});
               if (value == 0.0) return true;
               rewritten.append(body.text + copied, span.first - copied).append("null");
               copied = span.second;
               if (places.size() == most) return true;
               places.push_back({value, {}});
               for (Size level = 0; level < std::min(walk.depth(), kDeepestPath); ++level)
                 places.back().path.push_back(walk.step(level));
               return true;
             });
    if (copied > 0) rewritten.append(body.text + copied, body.size - copied);
  }
  if (places.empty()) return py::none();
  py::list listed;
  for (const Place& place : places) {
    py::list path;
    for (const Walk::Step& step : place.path)
      path.append(step.is_object ? body.slice(step.key) : py::object(py::int_(step.index)));
    listed.append(py::make_tuple(place.value, path));
  }
  return py::make_tuple(py::bytes(rewritten), listed);
}

// What is wrong with a body, found without a parser: what kind of fault it is, where it is, and the
// key of the top-level object, as it is written but `most_of_key` bytes at most, that came last
// before it. See the stub.
py::tuple first_fault(const py::buffer& buffer, Size longest, Size deepest, Size most_of_key) {
  const Body body(buffer);
  Grammar grammar(body.text, body.size, longest, deepest);
  Grammar::Fault fault;
  {
    const py::gil_scoped_release unlocked;
    fault = grammar.check();
  }
  const char* kind = "";
  switch (fault) {
    case Grammar::Fault::kNone:
      kind = !grammar.complete() ? "end" : grammar.odd() ? "odd" : "";
      break;
    case Grammar::Fault::kSyntax:
      kind = "syntax";
      break;
    case Grammar::Fault::kTooLong:
      kind = "long";
      break;
    case Grammar::Fault::kTooDeep:
      kind = "deep";
      break;
  }
  Span field = grammar.field();
  if (field != kNone) {
    if (grammar.at() == field.first) field.second = body.size;  // the key itself is too long
    field.second = std::min(field.second, field.first + most_of_key);
  }
  return py::make_tuple(kind, grammar.at(), body.slice(field));
}

}  // namespace

PYBIND11_MODULE(_json_scan, m) {
  m.doc() = "Bodies of JSON, looked at without parsing them.";
  m.def("excess", &excess, py::arg("body"), py::arg("values"), py::arg("lists"), py::arg("objects"),
        py::arg("strings"));
  m.def("first_fault", &first_fault, py::arg("body"), py::arg("longest"), py::arg("deepest"),
        py::arg("most_of_key"));
  m.def("too_deep", &too_deep, py::arg("body"), py::arg("depth"));
  m.def("repeated_key", &repeated_key, py::arg("body"));
  m.def("without_not_finite", &without_not_finite, py::arg("body"), py::arg("most"));
}
