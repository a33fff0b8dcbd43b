// Sizes of a tensor's axes, and strides over them: up to eight, stored inline.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "nf/error.h"

namespace nf {

// A short list of axis sizes, strides or axis numbers. An empty list is the shape of a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> values) : Shape(std::span(values.begin(), values.size())) {}
  explicit Shape(std::span<const int64_t> values) {
    require(values.size() <= kMaxRank, "shape: {} axes, at most {} are supported", values.size(),
            int{kMaxRank});
    for (int64_t value : values) values_[static_cast<size_t>(rank_++)] = value;
  }
  static Shape filled(int rank, int64_t value) {
    Shape shape;
    for (int axis = 0; axis < rank; ++axis) shape.push_back(value);
    return shape;
  }

  int rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  int64_t operator[](int axis) const { return values_[static_cast<size_t>(axis)]; }
  int64_t& operator[](int axis) { return values_[static_cast<size_t>(axis)]; }
  int64_t back() const { return values_[static_cast<size_t>(rank_ - 1)]; }
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + rank_; }
  std::span<const int64_t> span() const { return {values_.data(), static_cast<size_t>(rank_)}; }

  void push_back(int64_t value) {
    require(rank_ < kMaxRank, "shape: more than {} axes", int{kMaxRank});
    values_[static_cast<size_t>(rank_++)] = value;
  }

  // Product of all sizes; 1 for a scalar.
  int64_t elements() const {
    int64_t product = 1;
    for (int64_t value : *this) product *= value;
    return product;
  }

  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxRank> values_{};
  int rank_ = 0;
};

using Strides = Shape;  // in elements, not bytes

// Strides of a dense row-major tensor.
Strides dense_strides(const Shape& shape);

}  // namespace nf

// "[8, 256, 1024]".
template <>
struct fmt::formatter<nf::Shape> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  fmt::format_context::iterator format(const nf::Shape& shape, fmt::format_context& context) const;
};
