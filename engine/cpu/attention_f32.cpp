// The attention kernels with f32 products, for every instruction set; bf16 operands are widened when packed.
#include "cpu/attention_internal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_f32.cpp"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
#include <hwy/foreach_target.h>
// Must follow foreach_target.h.
#include "cpu/attention_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

struct F32Policy {
  static constexpr int kPair = 1;
  static constexpr bool kBf16Cells = false;
  using Cells = Vector;

  static HWY_INLINE Cells load(const Cell* cells) {
    return hn::LoadU(Floats(), reinterpret_cast<const float*>(cells));
  }
  static HWY_INLINE Cells load_any(const Cell* cells) { return load(cells); }
  static HWY_INLINE Cells broadcast(const Cell* cell) { return set(*reinterpret_cast<const float*>(cell)); }
  static HWY_INLINE Vector multiply_add(Cells a, Cells b, Vector sum) { return hn::MulAdd(a, b, sum); }
  static HWY_INLINE void pack_row(const char* src, bool bf16, int64_t width, Cell* dst, int64_t padded) {
    read_row(src, bf16, width, reinterpret_cast<float*>(dst), padded);
  }
  static HWY_INLINE void transpose(const CellRows& src, int64_t rows, int64_t columns, Cell* HWY_RESTRICT dst,
                                   int64_t dst_row) {
    transpose_cells(src, rows, columns, dst, dst_row);
  }
  static HWY_INLINE void pair_rows(const CellRows&, int64_t, int64_t, Cell*) {}
  static HWY_INLINE void store_row(Vector value, Cell* row, int64_t column) {
    hn::Store(value, Floats(), reinterpret_cast<float*>(row) + column);
  }
  static HWY_INLINE void store_pair(const Vector* values, Cell* cells) { store_row(values[0], cells, 0); }
  static HWY_INLINE void store_both(const Vector* values, Cell* cells, Cell* rows, int64_t, int64_t column) {
    store_row(values[0], cells, 0);
    store_row(values[0], rows, column);
  }
  static HWY_INLINE Vector exp2(Vector y) { return HWY_NAMESPACE::exp2(y); }
  static HWY_INLINE void write_values(Vector values, uint16_t* to) {
    hn::StoreU(round_to_bf16(values), hn::Rebind<uint16_t, Floats>(), to);
  }
};

const Kernels& f32_kernels_of_target() {
  static constexpr Kernels kKernels = kernels<F32Policy>("f32");
  return kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu::attention {

const Kernels& f32_kernels([[maybe_unused]] bool avx2, [[maybe_unused]] bool avx512) {
#if HWY_TARGETS & HWY_AVX3
  if (avx512) return N_AVX3::f32_kernels_of_target();
#endif
#if HWY_TARGETS & HWY_AVX2
  if (avx2) return N_AVX2::f32_kernels_of_target();
#endif
  return HWY_STATIC_DISPATCH(f32_kernels_of_target)();
}

}  // namespace nf::cpu::attention
#endif  // HWY_ONCE
