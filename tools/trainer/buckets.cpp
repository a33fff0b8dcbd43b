#include "tools/trainer/buckets.h"

#include <algorithm>

namespace nf {
namespace {

constexpr int64_t kFineUpTo = 64, kCoarseMultiple = 32;

void lengthen_rows(std::vector<int32_t>& values, int64_t rows, int64_t from, int64_t to, int32_t padding) {
  values.resize(static_cast<size_t>(rows * to));
  for (int64_t row = rows - 1; row >= 0; --row) {  // the last one first: rows only move towards the end
    const auto begin = values.begin() + row * from, target = values.begin() + row * to;
    if (row > 0) std::move_backward(begin, begin + from, target + from);
    std::fill(target + from, target + to, padding);
  }
}

}  // namespace

int64_t bucket_length(int64_t length, int64_t longest) {
  const int64_t multiple = length <= kFineUpTo ? kLengthMultiple : kCoarseMultiple;
  const int64_t rounded = (length + multiple - 1) / multiple * multiple;
  return std::max(length, std::min(rounded, longest));
}

void lengthen(Batch& batch, int64_t length) {
  if (length <= batch.length) return;
  lengthen_rows(batch.ids, batch.batch, batch.length, length, 0);
  lengthen_rows(batch.targets, batch.batch, batch.length, length, kIgnoreIndex);
  lengthen_rows(batch.documents, batch.batch, batch.length, length, kPaddingDocument);
  lengthen_rows(batch.positions, batch.batch, batch.length, length, 0);
  batch.length = length;
}

}  // namespace nf
