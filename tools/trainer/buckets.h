// Lengths that batches are rounded up to: shapes are compiled, so there must be few.
#pragma once

#include "tools/data/batches.h"

namespace nf {

// The length a batch of `length` tokens runs at: the next multiple of kLengthMultiple, beyond 64 of 32. At
// most `longest`, unless the batch itself is longer.
int64_t bucket_length(int64_t length, int64_t longest);

// Appends padding (id 0) to every row until the batch is `length` long; nothing when it is. Allocates nothing
// once the batch's vectors have held so much.
void lengthen(Batch& batch, int64_t length);

}  // namespace nf
