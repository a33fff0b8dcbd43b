#include "cpu/rows.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/parallel.h"
#include "nf/dtype.h"

namespace nf::cpu {
namespace {

constexpr int64_t kRowsPerTask = 64;

int64_t task_count(int64_t items) { return (items + kRowsPerTask - 1) / kRowsPerTask; }

void add_row(float* sum, const float* row, int64_t width) {
  for (int64_t j = 0; j < width; ++j) sum[j] += row[j];
}

void add_row(float* sum, const bf16* row, int64_t width) {
  for (int64_t j = 0; j < width; ++j) sum[j] += to_float(row[j]);
}

}  // namespace

int64_t gather_rows(int64_t count, int64_t rows, int64_t width, int64_t element_bytes, const void* table,
                    const int32_t* ids, void* out, int threads) {
  const int64_t row_bytes = width * element_bytes;
  std::atomic<int64_t> first_bad{count};
  parallel_for(threads, task_count(count), [&](int64_t task) {
    for (int64_t i = task * kRowsPerTask; i < std::min(count, (task + 1) * kRowsPerTask); ++i) {
      auto* const to = static_cast<std::byte*>(out) + i * row_bytes;
      if (ids[i] >= 0 && ids[i] < rows) {
        std::memcpy(to, static_cast<const std::byte*>(table) + ids[i] * row_bytes,
                    static_cast<size_t>(row_bytes));
        continue;
      }
      std::memset(to, 0, static_cast<size_t>(row_bytes));
      int64_t seen = first_bad.load();
      while (i < seen && !first_bad.compare_exchange_weak(seen, i)) {
      }
    }
  });
  return first_bad < count ? first_bad.load() : -1;
}

// Where each row's segment starts, and the positions sorted by row.
size_t scatter_rows_workspace(int64_t count, int64_t rows) {
  return static_cast<size_t>(rows + 1 + count) * sizeof(int32_t);
}

void scatter_rows(int64_t count, int64_t rows, int64_t width, const int32_t* ids, TensorView updates,
                  float* sums, bool accumulate, void* workspace, int threads) {
  auto* const ends = static_cast<int32_t*>(workspace);
  int32_t* const sorted = ends + rows + 1;
  const auto inside = [&](int32_t id) { return id >= 0 && id < rows; };
  std::fill_n(ends, rows + 1, 0);
  for (int64_t i = 0; i < count; ++i)
    if (inside(ids[i])) ++ends[ids[i] + 1];
  for (int64_t row = 0; row < rows; ++row) ends[row + 1] += ends[row];
  for (int64_t i = 0; i < count; ++i)
    if (inside(ids[i]))
      sorted[ends[ids[i]]++] = static_cast<int32_t>(i);  // ends[r] moves from r's start to its end
  parallel_for(threads, task_count(rows), [&](int64_t task) {
    for (int64_t row = task * kRowsPerTask; row < std::min(rows, (task + 1) * kRowsPerTask); ++row) {
      float* const sum = sums + row * width;
      if (!accumulate) std::fill_n(sum, width, 0.0F);
      for (int32_t s = row == 0 ? 0 : ends[row - 1]; s < ends[row]; ++s)
        if (updates.dtype == DType::f32)
          add_row(sum, updates.as<float>() + sorted[s] * width, width);
        else
          add_row(sum, updates.as<bf16>() + sorted[s] * width, width);
    }
  });
}

void copy_tensor(const TensorView& from, const TensorView& to, int threads) {
  const int64_t element = size_of(from.dtype);
  const int rank = from.shape.rank();
  if (from.shape.elements() == 0) return;
  const bool row_is_dense =
      rank == 0 || ((from.strides.back() == 1 && to.strides.back() == 1) || from.shape.back() == 1);
  const int64_t row = rank == 0 ? 1 : from.shape.back();
  const int64_t count = from.shape.elements() / row;
  parallel_for(threads, task_count(count), [&](int64_t task) {
    for (int64_t i = task * kRowsPerTask; i < std::min(count, (task + 1) * kRowsPerTask); ++i) {
      int64_t rest = i, from_at = 0, to_at = 0;
      for (int axis = rank - 2; axis >= 0; --axis) {
        const int64_t index = rest % from.shape[axis];
        rest /= from.shape[axis];
        from_at += index * from.strides[axis];
        to_at += index * to.strides[axis];
      }
      const std::byte* source = from.as<std::byte>() + from_at * element;
      std::byte* target = to.as<std::byte>() + to_at * element;
      if (row_is_dense) {
        std::memcpy(target, source, static_cast<size_t>(row * element));
        continue;
      }
      for (int64_t j = 0; j < row; ++j)
        std::memcpy(target + j * to.strides.back() * element, source + j * from.strides.back() * element,
                    static_cast<size_t>(element));
    }
  });
}

}  // namespace nf::cpu
