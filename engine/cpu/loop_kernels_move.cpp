// Loads, stores, counters, random numbers and reductions of fused loops.
#include "cpu/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/loop_kernels_move.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <bit>

#include "base/philox.h"
#include "cpu/loop_kernels.h"
#include "cpu/simd_math-inl.h"
#include "nf/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

template <typename T>
HWY_INLINE const T* in_row(const LoopArgs& args, int operand, int64_t row) {
  return reinterpret_cast<const T*>(static_cast<const char*>(args.in[operand]) + row * args.step[operand]);
}
template <typename T>
HWY_INLINE T* out_row(const LoopArgs& args, int64_t row) {
  return reinterpret_cast<T*>(static_cast<char*>(args.out) + row * args.out_step);
}

// ---- loads and stores: an element's bits in memory and the lane that stands for it ----

struct Word {
  using Memory = uint32_t;
  static uint32_t to_lane(uint32_t memory) { return memory; }
  static uint32_t from_lane(uint32_t lane) { return lane; }
};
struct Bf16 {
  using Memory = uint16_t;
  static uint32_t to_lane(uint16_t memory) { return uint32_t{memory} << 16; }
  static uint16_t from_lane(uint32_t lane) { return to_bf16(std::bit_cast<float>(lane)).bits; }
};
struct F16 {
  using Memory = uint16_t;
  static uint32_t to_lane(uint16_t memory) { return std::bit_cast<uint32_t>(to_float(f16{memory})); }
  static uint16_t from_lane(uint32_t lane) { return to_f16(std::bit_cast<float>(lane)).bits; }
};
struct U8 {
  using Memory = uint8_t;
  static uint32_t to_lane(uint8_t memory) { return memory; }
  static uint8_t from_lane(uint32_t lane) { return static_cast<uint8_t>(lane); }
};

template <class Type>
void load_strided(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<char>(args, 0, row);
    auto* out = out_row<uint32_t>(args, row);
    for (int64_t c = 0; c < args.cols; ++c)
      out[c] = Type::to_lane(*reinterpret_cast<const typename Type::Memory*>(from + c * args.stride));
  }
}

template <class Type>
void store_strided(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<uint32_t>(args, 0, row);
    auto* out = out_row<char>(args, row);
    for (int64_t c = 0; c < args.cols; ++c)
      *reinterpret_cast<typename Type::Memory*>(out + c * args.stride) = Type::from_lane(from[c]);
  }
}

template <class Type>
void load_each(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<typename Type::Memory>(args, 0, row);
    auto* out = out_row<uint32_t>(args, row);
    for (int64_t c = 0; c < args.cols; ++c) out[c] = Type::to_lane(from[c]);
  }
}

template <class Type>
void store_each(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<uint32_t>(args, 0, row);
    auto* out = out_row<typename Type::Memory>(args, row);
    for (int64_t c = 0; c < args.cols; ++c) out[c] = Type::from_lane(from[c]);
  }
}

void load_bf16(const LoopArgs& args) {
  const hn::Rebind<uint16_t, Floats> narrow;
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<uint16_t>(args, 0, row);
    auto* out = out_row<uint32_t>(args, row);
    int64_t c = 0;
    for (; c + kLanes <= args.cols; c += kLanes)
      hn::StoreU(hn::ShiftLeft<16>(hn::PromoteTo(Words(), hn::LoadU(narrow, from + c))), Words(), out + c);
    for (; c < args.cols; ++c) out[c] = Bf16::to_lane(from[c]);
  }
}

void store_bf16(const LoopArgs& args) {
  const hn::Rebind<uint16_t, Floats> narrow;
  for (int64_t row = 0; row < args.rows; ++row) {
    const auto* from = in_row<float>(args, 0, row);
    auto* out = out_row<uint16_t>(args, row);
    int64_t c = 0;
    for (; c + kLanes <= args.cols; c += kLanes) {
      const IntVector bits = hn::BitCast(Ints(), bf16_bits(hn::LoadU(Floats(), from + c)));
      hn::StoreU(hn::DemoteTo(narrow, bits), narrow, out + c);
    }
    for (; c < args.cols; ++c) out[c] = to_bf16(from[c]).bits;
  }
}

// ---- counters ----

void iota(const LoopArgs& args) {
  const auto base = reinterpret_cast<intptr_t>(args.in[0]);
  for (int64_t row = 0; row < args.rows; ++row) {
    auto* out = out_row<int32_t>(args, row);
    const auto first = static_cast<int32_t>(base + row * args.step[0]);
    const auto stride = static_cast<int32_t>(args.stride);
    for (int64_t c = 0; c < args.cols; ++c) out[c] = first + static_cast<int32_t>(c) * stride;
  }
}

// The words of `count` blocks from `block` on; writes up to 4 * kLanes words more.
HWY_INLINE void philox_blocks(uint64_t block, int64_t count, uint64_t stream, PhiloxKey key, uint32_t* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 4 * count; ++i)
    to[i] = philox_word(4 * block + static_cast<uint64_t>(i), stream, key);
#else
  const Words d;
  const hn::Repartition<uint64_t, Words> wide;
  const auto m0 = hn::Set(d, 0xD2511F53U), m1 = hn::Set(d, 0xCD9E8D57U);
  for (int64_t i = 0; i < count; i += kLanes, block += static_cast<uint64_t>(kLanes), to += 4 * kLanes) {
    const auto first = hn::Set(d, static_cast<uint32_t>(block));
    auto c0 = hn::Add(first, hn::Iota(d, 0U));
    const auto carry = hn::VecFromMask(d, hn::Lt(c0, first));  // -1 where the low word has wrapped around
    auto c1 = hn::Sub(hn::Set(d, static_cast<uint32_t>(block >> 32)), carry);
    auto c2 = hn::Set(d, static_cast<uint32_t>(stream)), c3 = hn::Set(d, static_cast<uint32_t>(stream >> 32));
    PhiloxKey k = key;
    for (int round = 0; round < 10; ++round, k.low += 0x9E3779B9U, k.high += 0xBB67AE85U) {
      // 64-bit products of the even lanes, then of the odd ones, moved down.
      const auto a0 = hn::MulEven(c0, m0), b0 = hn::MulEven(c2, m1);
      const auto a1 = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, c0))), m0);
      const auto b1 = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, c2))), m1);
      const auto low = [&](auto even, auto odd) HWY_ATTR {
        return hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
      };
      const auto high = [&](auto even, auto odd) HWY_ATTR {
        return hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
      };
      c0 = hn::Xor(hn::Xor(high(b0, b1), c1), hn::Set(d, k.low));
      c2 = hn::Xor(hn::Xor(high(a0, a1), c3), hn::Set(d, k.high));
      c1 = low(b0, b1);
      c3 = low(a0, a1);
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, to);
  }
#endif
}

void philox_kernel(const LoopArgs& args) {
  const auto word = [&](int i) {
    return *reinterpret_cast<const uint32_t*>(static_cast<const char*>(args.in[1]) + i * args.stride);
  };
  // The key mixes the step into the seed, so that each step has its own stream of bits.
  const PhiloxKey key = {word(0) ^ (word(2) * 0x9E3779B9U), word(1) ^ (word(3) * 0x85EBCA6BU)};
  constexpr int64_t kPiece = 256;
  uint32_t words[kPiece + 8 + 4 * kLanes];
  for (int64_t row = 0; row < args.rows; ++row) {
    auto index = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(args.in[0])) +
                 static_cast<uint64_t>(row * args.step[0]);
    auto* out = out_row<float>(args, row);
    for (int64_t c = 0; c < args.cols; c += kPiece, index += kPiece) {
      const int64_t count = std::min(kPiece, args.cols - c);
      const auto skip = static_cast<int64_t>(index % 4);
      philox_blocks(index / 4, (skip + count + 3) / 4, args.stream, key, words);
      for (int64_t i = 0; i < count; ++i) out[c + i] = philox_uniform(words[skip + i]);
    }
  }
}

// ---- reductions ----

struct SumF {
  static constexpr uint32_t kIdentity = 0;
  static HWY_INLINE Vector fold(Vector a, Vector b) { return hn::Add(a, b); }
};
struct MaxF {
  static constexpr uint32_t kIdentity = 0xff800000U;  // -infinity
  static HWY_INLINE Vector fold(Vector a, Vector b) { return max(a, b); }
};
struct SumI {
  static constexpr uint32_t kIdentity = 0;
  static HWY_INLINE Vector fold(Vector a, Vector b) { return floats(hn::Add(ints(a), ints(b))); }
};
struct MaxI {
  static constexpr uint32_t kIdentity = 0x80000000U;
  static HWY_INLINE Vector fold(Vector a, Vector b) { return floats(hn::Max(ints(a), ints(b))); }
};

template <class F>
HWY_INLINE Vector identity() {
  return set(std::bit_cast<float>(F::kIdentity));
}

constexpr int kVectors = static_cast<int>(kReduceLanes / kLanes);

// What is reduced: operand 0, or its product with operand 1. kPart: only the first `left` lanes exist.
template <bool kProduct, bool kPart>
HWY_INLINE Vector element(const float* a, const float* b, int64_t left) {
  const Vector x = kPart ? load_part(a, left) : hn::LoadU(Floats(), a);
  if constexpr (!kProduct) return x;
  return hn::Mul(x, kPart ? load_part(b, left) : hn::LoadU(Floats(), b));
}

// Folds a row of `cols` elements into the 64 lanes.
template <class F, bool kProduct>
HWY_INLINE void fold_row(const float* a, const float* b, int64_t cols, Vector* lanes) {
  int64_t c = 0;
  for (; c + kReduceLanes <= cols; c += kReduceLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      lanes[v] = F::fold(lanes[v], element<kProduct, false>(a + c + v * kLanes, b + c + v * kLanes, 0));
  }
  if (c == cols) return;
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v, c += kLanes) {
    if (c + kLanes <= cols) {
      lanes[v] = F::fold(lanes[v], element<kProduct, false>(a + c, b + c, 0));
    } else if (c < cols) {
      const auto exists = hn::FirstN(Floats(), static_cast<size_t>(cols - c));
      const Vector x = element<kProduct, true>(a + c, b + c, cols - c);
      lanes[v] = F::fold(lanes[v], hn::IfThenElse(exists, x, identity<F>()));
    }
  }
}

// The 64 lanes as one: l with l + 32, l with l + 16, …
template <class F>
HWY_INLINE float fold_lanes(Vector* lanes) {
#pragma GCC unroll 16
  for (int v = 0; v < kVectors / 2; ++v) lanes[v] = F::fold(lanes[v], lanes[v + kVectors / 2]);
  for (int width = kVectors / 4; width > 0; width /= 2)
    for (int v = 0; v < width; ++v) lanes[v] = F::fold(lanes[v], lanes[v + width]);
  Vector v = lanes[0];
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kLanes >= 8) v = F::fold(v, hn::ConcatLowerUpper(Floats(), v, v));
  if constexpr (kLanes == 16) v = F::fold(v, hn::SwapAdjacentBlocks(v));
  v = F::fold(v, hn::Shuffle1032(v));
  v = F::fold(v, hn::Shuffle2301(v));
#endif
  return hn::GetLane(v);
}

template <class F, bool kProduct>
void reduce(const LoopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    Vector lanes[kVectors];
    for (Vector& lane : lanes) lane = identity<F>();
    fold_row<F, kProduct>(in_row<float>(args, 0, row), in_row<float>(args, kProduct ? 1 : 0, row), args.cols,
                          lanes);
    *out_row<float>(args, row) = fold_lanes<F>(lanes);
  }
}

template <class F>
void begin(const LoopArgs& args) {
  auto* out = static_cast<float*>(args.out);
  for (int v = 0; v < kVectors; ++v) hn::StoreU(identity<F>(), Floats(), out + v * kLanes);
}

template <class F, bool kProduct>
void part(const LoopArgs& args) {
  auto* out = static_cast<float*>(args.out);
  Vector lanes[kVectors];
  for (int v = 0; v < kVectors; ++v) lanes[v] = hn::LoadU(Floats(), out + v * kLanes);
  fold_row<F, kProduct>(in_row<float>(args, 0, 0), in_row<float>(args, kProduct ? 1 : 0, 0), args.cols,
                        lanes);
  for (int v = 0; v < kVectors; ++v) hn::StoreU(lanes[v], Floats(), out + v * kLanes);
}

template <class F>
void end(const LoopArgs& args) {
  const auto* in = static_cast<const float*>(args.in[0]);
  Vector lanes[kVectors];
  for (int v = 0; v < kVectors; ++v) lanes[v] = hn::LoadU(Floats(), in + v * kLanes);
  *static_cast<float*>(args.out) = fold_lanes<F>(lanes);
}

// One vector of columns: all rows into one accumulator when out_step is 0, else each into its own.
template <class F, bool kProduct, bool kSplat, bool kPart>
HWY_INLINE void fold_columns(const LoopArgs& args, int64_t c, int64_t left) {
  const bool shared = args.out_step == 0;
  Vector sum = identity<F>();
  for (int64_t row = 0; row < args.rows; ++row) {
    float* out = out_row<float>(args, row) + c;
    if (!shared || row == 0) sum = kPart ? load_part(out, left) : hn::LoadU(Floats(), out);
    Vector x = sum;
    if constexpr (kSplat)
      x = set(*in_row<float>(args, 0, row));
    else
      x = element<kProduct, kPart>(in_row<float>(args, 0, row) + c,
                                   in_row<float>(args, kProduct ? 1 : 0, row) + c, left);
    sum = F::fold(sum, x);
    if (shared && row + 1 < args.rows) continue;
    if constexpr (kPart)
      store_part(sum, out, left);
    else
      hn::StoreU(sum, Floats(), out);
  }
}

template <class F, bool kProduct, bool kSplat>
void column(const LoopArgs& args) {
  int64_t c = 0;
  for (; c + kLanes <= args.cols; c += kLanes) fold_columns<F, kProduct, kSplat, false>(args, c, 0);
  if (c < args.cols) fold_columns<F, kProduct, kSplat, true>(args, c, args.cols - c);
}

}  // namespace

void fill_moves(LoopTable& table) {
  const auto set_row = [&](Code code, LoopFunction function, LoopFunction splat = nullptr) {
    table[static_cast<size_t>(code)] = {function, splat};
  };
  set_row(Code::load_bf16, load_bf16);
  set_row(Code::load_f16, load_each<F16>);
  set_row(Code::load_u8, load_each<U8>);
  set_row(Code::load_32_strided, load_strided<Word>);
  set_row(Code::load_bf16_strided, load_strided<Bf16>);
  set_row(Code::load_f16_strided, load_strided<F16>);
  set_row(Code::load_u8_strided, load_strided<U8>);
  set_row(Code::store_bf16, store_bf16);
  set_row(Code::store_f16, store_each<F16>);
  set_row(Code::store_u8, store_each<U8>);
  set_row(Code::store_32_strided, store_strided<Word>);
  set_row(Code::store_bf16_strided, store_strided<Bf16>);
  set_row(Code::store_f16_strided, store_strided<F16>);
  set_row(Code::store_u8_strided, store_strided<U8>);
  set_row(Code::iota, iota);
  set_row(Code::philox, philox_kernel);
  set_row(Code::reduce_sum_f, reduce<SumF, false>);
  set_row(Code::reduce_max_f, reduce<MaxF, false>);
  set_row(Code::reduce_sum_i, reduce<SumI, false>);
  set_row(Code::reduce_max_i, reduce<MaxI, false>);
  set_row(Code::reduce_sum_product, reduce<SumF, true>);
  set_row(Code::begin_sum_f, begin<SumF>);
  set_row(Code::begin_max_f, begin<MaxF>);
  set_row(Code::begin_sum_i, begin<SumI>);
  set_row(Code::begin_max_i, begin<MaxI>);
  set_row(Code::begin_sum_product, begin<SumF>);
  set_row(Code::part_sum_f, part<SumF, false>);
  set_row(Code::part_max_f, part<MaxF, false>);
  set_row(Code::part_sum_i, part<SumI, false>);
  set_row(Code::part_max_i, part<MaxI, false>);
  set_row(Code::part_sum_product, part<SumF, true>);
  set_row(Code::end_sum_f, end<SumF>);
  set_row(Code::end_max_f, end<MaxF>);
  set_row(Code::end_sum_i, end<SumI>);
  set_row(Code::end_max_i, end<MaxI>);
  set_row(Code::end_sum_product, end<SumF>);
  set_row(Code::column_sum_f, column<SumF, false, false>, column<SumF, false, true>);
  set_row(Code::column_max_f, column<MaxF, false, false>, column<MaxF, false, true>);
  set_row(Code::column_sum_i, column<SumI, false, false>, column<SumI, false, true>);
  set_row(Code::column_max_i, column<MaxI, false, false>, column<MaxI, false, true>);
  set_row(Code::column_sum_product, column<SumF, true, false>);
}

}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu {

void fill_move_kernels(LoopTable& table, LoopIsa isa) {
#if (HWY_TARGETS & HWY_AVX3) && HWY_STATIC_TARGET != HWY_AVX3
  if (isa == LoopIsa::avx512) return N_AVX3::fill_moves(table);
#endif
#if (HWY_TARGETS & HWY_AVX2) && HWY_STATIC_TARGET != HWY_AVX2
  if (isa == LoopIsa::avx2) return N_AVX2::fill_moves(table);
#endif
  HWY_STATIC_DISPATCH(fill_moves)(table);
}

}  // namespace nf::cpu
#endif
