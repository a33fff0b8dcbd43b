#include "nf/shape.h"

namespace nf {

Strides dense_strides(const Shape& shape) {
  Strides strides = Shape::filled(shape.rank(), 1);
  for (int axis = shape.rank() - 2; axis >= 0; --axis) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
}

}  // namespace nf

fmt::format_context::iterator fmt::formatter<nf::Shape>::format(const nf::Shape& shape,
                                                                fmt::format_context& context) const {
  return fmt::format_to(context.out(), "[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}
