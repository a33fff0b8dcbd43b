#include "cpu/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/cross_entropy_rows.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cross_entropy_rows.h"
#include "cpu/isa.h"
#include "cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;
using Halves = hn::Rebind<uint16_t, Words>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

// Elements [at, at + n) of a row; n is at most a vector, and the rest of the lanes are zero.
HWY_INLINE Vector load_row(const void* row, DType dtype, int64_t at, int64_t n) {
  if (dtype == DType::f32) {
    const float* from = static_cast<const float*>(row) + at;
    return n == lanes() ? hn::LoadU(Floats(), from) : load_part(from, n);
  }
  const auto* from = static_cast<const uint16_t*>(row) + at;
  HWY_ALIGN uint16_t part[kLanes] = {};
  if (n < lanes()) {
    std::copy_n(from, n, part);
    from = part;
  }
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Words(), hn::LoadU(Halves(), from))));
}

HWY_INLINE void store_row(Vector x, void* row, DType dtype, int64_t at, int64_t n) {
  if (dtype == DType::f32) {
    float* to = static_cast<float*>(row) + at;
    return n == lanes() ? hn::StoreU(x, Floats(), to) : store_part(x, to, n);
  }
  auto* to = static_cast<uint16_t*>(row) + at;
  const auto halves = hn::DemoteTo(Halves(), hn::BitCast(Ints(), bf16_bits(x)));
  if (n == lanes()) return hn::StoreU(halves, Halves(), to);
  HWY_ALIGN uint16_t part[kLanes];
  hn::Store(halves, Halves(), part);
  std::copy_n(part, n, to);
}

// Calls function(first, count) for every vector of a row.
template <typename Function>
HWY_INLINE void each_vector(int64_t count, Function function) {
  const int64_t step = lanes();
  int64_t at = 0;
  for (; at + step <= count; at += step) function(at, step);
  if (at < count) function(at, count - at);
}

HWY_INLINE Vector finished(const LogitBlock& block, int64_t at, int64_t n) {
  Vector x = hn::Mul(load_row(block.projected, DType::f32, at, n), set(block.logit_scale));
  if (block.scale != nullptr) x = hn::Mul(x, load_row(block.scale, DType::f32, at, n));
  if (block.cap_type == CapType::soft)
    return hn::Mul(tanh(hn::Mul(x, set(1.0F / block.cap))), set(block.cap));
  if (block.cap_type == CapType::hard) return max(set(-block.cap), min(set(block.cap), x));
  return x;
}

HWY_INLINE Vector slope(const LogitBlock& block, Vector logit) {
  if (block.cap_type == CapType::soft) {
    const Vector t = hn::Mul(logit, set(1.0F / block.cap));
    return hn::Sub(set(1.0F), hn::Mul(t, t));
  }
  if (block.cap_type == CapType::hard)
    return hn::IfThenElseZero(hn::Lt(hn::Abs(logit), set(block.cap)), set(1.0F));
  return set(1.0F);
}

// `x` with `rest` in the lanes from n on.
HWY_INLINE Vector first_lanes(Vector x, int64_t n, float rest) {
  return n == lanes() ? x : hn::IfThenElse(hn::FirstN(Floats(), static_cast<size_t>(n)), x, set(rest));
}

float FinishedLogit(const LogitBlock& block, int64_t column) {
  return hn::GetLane(finished(block, column, 1));
}

float CapSlope(const LogitBlock& block, float logit) { return hn::GetLane(slope(block, set(logit))); }

float LargestLogit(const LogitBlock& block) {
  Vector largest = set(-kInfinity);
  each_vector(block.columns, [&](int64_t at, int64_t n) HWY_ATTR {
    largest = hn::Max(largest, first_lanes(finished(block, at, n), n, -kInfinity));
  });
  return hn::GetLane(hn::MaxOfLanes(Floats(), largest));
}

ExponentialSum Exponentials(const LogitBlock& block, float reference, void* out, DType dtype, int64_t width) {
  Vector sum = set(0.0F), largest = set(-kInfinity);
  const bool capped = block.cap_type != CapType::none;
  each_vector(block.columns, [&](int64_t at, int64_t n) HWY_ATTR {
    const Vector logit = first_lanes(finished(block, at, n), n, -kInfinity);
    const Vector e = exp(hn::Sub(logit, set(reference)));
    sum = hn::Add(sum, e);
    largest = hn::Max(largest, logit);
    if (out != nullptr) store_row(capped ? hn::Mul(e, slope(block, logit)) : e, out, dtype, at, n);
  });
  if (out != nullptr && block.columns < width)
    std::fill_n(static_cast<std::byte*>(out) + block.columns * size_of(dtype),
                (width - block.columns) * size_of(dtype), std::byte{0});
  return {hn::GetLane(hn::SumOfLanes(Floats(), sum)), hn::GetLane(hn::MaxOfLanes(Floats(), largest))};
}

void ScaledRow(const void* row, float factor, void* out, DType dtype, int64_t count) {
  each_vector(count, [&](int64_t at, int64_t n) HWY_ATTR {
    store_row(hn::Mul(load_row(row, dtype, at, n), set(factor)), out, dtype, at, n);
  });
}

void CombinedRow(const float* sums, float factor, const void* row, float row_factor, void* out, DType dtype,
                 int64_t count) {
  each_vector(count, [&](int64_t at, int64_t n) HWY_ATTR {
    const Vector sum = hn::Mul(load_row(sums, DType::f32, at, n), set(factor));
    store_row(hn::MulAdd(load_row(row, dtype, at, n), set(row_factor), sum), out, dtype, at, n);
  });
}

void AddRow(float* sums, const void* row, float factor, DType dtype, int64_t count) {
  each_vector(count, [&](int64_t at, int64_t n) HWY_ATTR {
    const Vector sum = load_row(sums, DType::f32, at, n);
    store_row(hn::MulAdd(load_row(row, dtype, at, n), set(factor), sum), sums, DType::f32, at, n);
  });
}

float AddScaledSums(const float* sums, const void* row, DType dtype, float factor, bool accumulate,
                    float* out, int64_t count) {
  Vector product = set(0.0F);
  each_vector(count, [&](int64_t at, int64_t n) HWY_ATTR {
    const Vector sum = load_row(sums, DType::f32, at, n);
    product = hn::MulAdd(sum, load_row(row, dtype, at, n), product);
    Vector scaled = hn::Mul(sum, set(factor));
    if (accumulate) scaled = hn::Add(load_row(out, DType::f32, at, n), scaled);
    store_row(scaled, out, DType::f32, at, n);
  });
  return hn::GetLane(hn::SumOfLanes(Floats(), product));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu {

HWY_EXPORT(FinishedLogit);
HWY_EXPORT(CapSlope);
HWY_EXPORT(LargestLogit);
HWY_EXPORT(Exponentials);
HWY_EXPORT(ScaledRow);
HWY_EXPORT(CombinedRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(AddScaledSums);

float finished_logit(const LogitBlock& block, int64_t column) {
  return HWY_DYNAMIC_DISPATCH(FinishedLogit)(block, column);
}
float cap_slope(const LogitBlock& block, float logit) { return HWY_DYNAMIC_DISPATCH(CapSlope)(block, logit); }
float largest_logit(const LogitBlock& block) { return HWY_DYNAMIC_DISPATCH(LargestLogit)(block); }
ExponentialSum exponentials(const LogitBlock& block, float reference, void* out, DType dtype, int64_t width) {
  static const Bf16Exponentials special = cpu_features().avx512_bf16 ? bf16_exponentials() : nullptr;
  if (special != nullptr && dtype == DType::bf16 && block.cap_type == CapType::none)
    return special(block, reference, static_cast<uint16_t*>(out), width);
  return HWY_DYNAMIC_DISPATCH(Exponentials)(block, reference, out, dtype, width);
}
void scaled_row(const void* row, float factor, void* out, DType dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(ScaledRow)(row, factor, out, dtype, count);
}
void combined_row(const float* sums, float factor, const void* row, float row_factor, void* out, DType dtype,
                  int64_t count) {
  HWY_DYNAMIC_DISPATCH(CombinedRow)(sums, factor, row, row_factor, out, dtype, count);
}
void add_row(float* sums, const void* row, float factor, DType dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddRow)(sums, row, factor, dtype, count);
}
float add_scaled_sums(const float* sums, const void* row, DType dtype, float factor, bool accumulate,
                      float* out, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(AddScaledSums)(sums, row, dtype, factor, accumulate, out, count);
}

}  // namespace nf::cpu
#endif
