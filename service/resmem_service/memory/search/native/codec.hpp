// How a residual lies in memory, and how a weighted one is added to a sum without unpacking it.
//
//   float32, float16: L numbers.
//   top: u32 target, f32 rest, then for each of the m most probable classes its id (u16, or u32
//        beyond 65,536 classes) and f16 its probability less `rest`, which is the probability
//        that each class not kept is given: residual = onehot(target) - probabilities.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace resmem {

// Exact for every finite half, subnormals included; codecs never store another.
inline float half_to_float(std::uint16_t half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112F;
  return (half & 0x8000) != 0 ? -value : value;
}

class Codec {
 public:
  Codec(const std::string& kind, std::size_t width, std::size_t kept) : width_(width), kept_(kept) {
    if (kind == "float32") {
      kind_ = Kind::float32;
      stride_ = 4 * width;
    } else if (kind == "float16") {
      kind_ = Kind::float16;
      stride_ = 2 * width;
    } else if (kind == "top" && kept > 0 && kept <= width) {
      kind_ = Kind::top;
      id_bytes_ = width > 65536 ? 4 : 2;
      stride_ = 8 + kept * (id_bytes_ + 2);
    } else {
      throw std::invalid_argument("no such residual codec: " + kind);
    }
  }

  std::size_t width() const { return width_; }
  std::size_t stride() const { return stride_; }

  // sum[j] += weight * residual[j] for every j, where `shared` takes what all j have in common.
  // False where the code names a class that there is not: the sum is worth nothing then.
  bool add(const std::uint8_t* code, double weight, double* sum, double& shared) const {
    switch (kind_) {
      case Kind::float32:
        add_dense<float>(code, weight, sum, [](float value) { return value; });
        return true;
      case Kind::float16:
        add_dense<std::uint16_t>(code, weight, sum, half_to_float);
        return true;
      case Kind::top:
        return add_top(code, weight, sum, shared);
    }
    return false;
  }

 private:
  enum class Kind { float32, float16, top };

  template <typename T>
  static T read(const std::uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }

  std::uint32_t id(const std::uint8_t* code, std::size_t i) const {
    const std::uint8_t* at = code + 8 + i * (id_bytes_ + 2);
    return id_bytes_ == 2 ? read<std::uint16_t>(at) : read<std::uint32_t>(at);
  }

  template <typename T, typename ToFloat>
  void add_dense(const std::uint8_t* code, double weight, double* sum, ToFloat to_float) const {
    for (std::size_t j = 0; j < width_; ++j)
      sum[j] += weight * static_cast<double>(to_float(read<T>(code + j * sizeof(T))));
  }

  // Each name is read once: somebody may write to the file between a check and a use.
  bool add_top(const std::uint8_t* code, double weight, double* sum, double& shared) const {
    const auto target = read<std::uint32_t>(code);
    if (target >= width_) return false;
    sum[target] += weight;
    shared -= weight * static_cast<double>(read<float>(code + 4));
    for (std::size_t i = 0; i < kept_; ++i) {
      const std::uint8_t* at = code + 8 + i * (id_bytes_ + 2) + id_bytes_;
      const std::uint32_t named = id(code, i);
      if (named >= width_) return false;
      sum[named] -= weight * static_cast<double>(half_to_float(read<std::uint16_t>(at)));
    }
    return true;
  }

  Kind kind_;
  std::size_t width_, kept_, stride_, id_bytes_ = 2;
};

}  // namespace resmem
