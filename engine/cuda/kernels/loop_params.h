#pragma once

#include "types.h"

namespace nf::cuda {

// Where a loop's tensors lie.
template <int count>
struct Pointers {
  void* at[count];
};

}  // namespace nf::cuda
