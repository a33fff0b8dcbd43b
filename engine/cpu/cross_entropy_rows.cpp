#include "cpu/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/cross_entropy_rows.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cross_entropy_rows.h"
#include "cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

Vector capped(Vector x, const LogitRow& row) {
  if (row.cap_type == CapType::soft) return hn::Mul(tanh(hn::Mul(x, set(1.0F / row.cap))), set(row.cap));
  if (row.cap_type == CapType::hard) return max(set(-row.cap), min(set(row.cap), x));
  return x;
}

float FinishLogits(const LogitRow& row) {
  const int64_t step = lanes();
  Vector largest = set(-std::numeric_limits<float>::infinity());
  for (int64_t v = 0; v < row.real; v += step) {
    const int64_t n = std::min(step, row.real - v);
    Vector x = hn::Mul(load_part(row.logits + v, n), set(row.logit_scale));
    if (row.scale != nullptr) x = hn::Mul(x, load_part(row.scale + v, n));
    x = capped(x, row);
    store_part(x, row.logits + v, n);
    if (n < step)
      x = hn::IfThenElse(hn::FirstN(Floats(), static_cast<size_t>(n)), x,
                         set(-std::numeric_limits<float>::infinity()));
    largest = hn::Max(largest, x);
  }
  const float top = hn::GetLane(hn::MaxOfLanes(Floats(), largest));
  Vector total = set(0.0F);
  for (int64_t v = 0; v < row.real; v += step) {
    const int64_t n = std::min(step, row.real - v);
    Vector e = exp(hn::Sub(load_part(row.logits + v, n), set(top)));
    if (n < step) e = hn::IfThenElseZero(hn::FirstN(Floats(), static_cast<size_t>(n)), e);
    total = hn::Add(total, e);
  }
  return top + std::log(hn::GetLane(hn::SumOfLanes(Floats(), total)));
}

Vector cap_slope(Vector logit, const LogitRow& row) {
  if (row.cap_type == CapType::soft) {
    const Vector t = hn::Mul(logit, set(1.0F / row.cap));
    return hn::Sub(set(1.0F), hn::Mul(t, t));
  }
  return hn::IfThenElseZero(hn::Lt(hn::Abs(logit), set(row.cap)), set(1.0F));
}

void store_as(Vector x, void* out, DType dtype, int64_t at, int64_t n) {
  if (dtype == DType::f32) return store_part(x, static_cast<float*>(out) + at, n);
  alignas(64) uint32_t bits[hn::MaxLanes(Floats())];
  hn::Store(bf16_bits(x), Words(), bits);
  auto* to = static_cast<uint16_t*>(out) + at;
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint16_t>(bits[i]);
}

void LogitsGradient(const GradientRow& g) {
  const LogitRow& row = g.row;
  const int64_t step = lanes();
  for (int64_t v = 0; v < row.vocab; v += step) {
    const int64_t n = std::min(step, row.vocab - v);
    const Vector logit = load_part(row.logits + v, n);
    Vector p = hn::Mul(exp(hn::Sub(logit, set(g.logsumexp))), set(g.z_factor));
    if (v <= g.target && g.target < v + step) {
      const auto lane =
          hn::Eq(hn::Iota(Ints(), static_cast<int32_t>(v)), hn::Set(Ints(), static_cast<int32_t>(g.target)));
      p = hn::Sub(p, hn::IfThenElseZero(hn::RebindMask(Floats(), lane), set(1.0F)));
    }
    Vector grad = hn::Mul(set(g.grad), p);
    if (row.cap_type != CapType::none) grad = hn::Mul(grad, cap_slope(logit, row));
    if (v + step > row.real)
      grad = hn::IfThenElseZero(hn::FirstN(Floats(), static_cast<size_t>(std::max<int64_t>(0, row.real - v))),
                                grad);
    if (g.scale_terms != nullptr) {
      const Vector raw = load_part(g.projected + v, n);
      store_part(hn::Mul(hn::Mul(grad, raw), set(row.logit_scale)), g.scale_terms + v, n);
      grad = hn::Mul(grad, load_part(row.scale + v, n));
    }
    store_as(hn::Mul(grad, set(row.logit_scale)), g.out, g.out_dtype, v, n);
  }
}

void AddTo(float* sums, const float* terms, int64_t count) {
  const int64_t step = lanes();
  for (int64_t v = 0; v < count; v += step) {
    const int64_t n = std::min(step, count - v);
    store_part(hn::Add(load_part(sums + v, n), load_part(terms + v, n)), sums + v, n);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu {

HWY_EXPORT(FinishLogits);
HWY_EXPORT(LogitsGradient);
HWY_EXPORT(AddTo);

float finish_logits(const LogitRow& row) { return HWY_DYNAMIC_DISPATCH(FinishLogits)(row); }
void logits_gradient(const GradientRow& row) { HWY_DYNAMIC_DISPATCH(LogitsGradient)(row); }
void add_to(float* sums, const float* terms, int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddTo)(sums, terms, count);
}

}  // namespace nf::cpu
#endif
