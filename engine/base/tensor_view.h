// What a kernel sees of a tensor: memory it does not own, with any strides.
#pragma once

#include "nf/dtype.h"
#include "nf/shape.h"

namespace nf {

struct TensorView {
  void* data = nullptr;  // address of element [0, 0, …]
  DType dtype = DType::f32;
  Shape shape;
  Strides strides;  // in elements; 0 repeats, negative walks backwards

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t bytes() const { return shape.elements() * size_of(dtype); }
};

}  // namespace nf
