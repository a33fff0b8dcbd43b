// The f32 kernels, written once with Highway and compiled for each instruction set. bf16 operands are widened
// on packing.
#include "cpu/gemm_kernel.h"

// On x86-64: one lane (portable), AVX2 and AVX-512; what lies between gains little. Vectors of a size unknown
// to the compiler (SVE, RVV) cannot stand in arrays.
#include <hwy/detect_targets.h>
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/gemm_f32.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/cache_control.h>

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace nf::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Wide = hn::ScalableTag<float>;

constexpr int kLanes = HWY_LANES(float);
// 28 accumulators, 2 vectors of b and a broadcast fill 32 registers; 12, 2 and 1 leave one of 16.
constexpr int kRows = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 14 : 6;
constexpr int kVectors = 2;
constexpr int kRowPitch = static_cast<int>(round_up(kRows, kLanes));

HWY_INLINE float load_one(const float* from) { return *from; }
HWY_INLINE float load_one(const bf16* from) { return to_float(*from); }

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const bf16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::LoadU(d16, &from->bits);
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

#if HWY_TARGET == HWY_SCALAR

template <typename T>
void pack_transposed(const T* from, const PanelSource& s, int64_t readable, int64_t pitch, float* to) {
  for (int64_t i = 0; i < pitch; ++i)
    for (int64_t k = 0; k < s.k; ++k)
      to[k * pitch + i] = i < readable ? load_one(from + i * s.width_stride + k) : 0;
}

#else

using Units = hn::RebindToUnsigned<Wide>;  // one f32, or two bf16 that are neighbours along k
using Block = hn::FixedTag<float, 4>;

constexpr int kQuad = 4;

// Within each 128-bit block: lane e of row i becomes lane i of row e.
template <class D>
HWY_INLINE void transpose_quads(D d, hn::Vec<D> (&rows)[4]) {
  const hn::Repartition<uint64_t, D> pairs;
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, rows[0], rows[1]));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, rows[2], rows[3]));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, rows[0], rows[1]));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, rows[2], rows[3]));
  rows[0] = hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23));
  rows[1] = hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23));
  rows[2] = hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23));
  rows[3] = hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23));
}

// Four units of every fourth row (or column); rows lie `row_bytes` apart.
template <class D>
HWY_INLINE hn::Vec<D> load_quads(D d, const char* from, int64_t row_bytes) {
  if constexpr (hn::MaxLanes(D()) == kQuad) {
    return hn::LoadU(d, reinterpret_cast<const uint32_t*>(from));
  } else {
    const hn::Half<D> half;
    const int64_t middle = static_cast<int64_t>(hn::MaxLanes(D()) / 2) * row_bytes;
    return hn::Combine(d, load_quads(half, from + middle, row_bytes), load_quads(half, from, row_bytes));
  }
}

// Four rows of `from`, four elements along k each, into four steps. Rows from `rows` on are zero.
template <typename T>
HWY_INLINE void transpose_block(const T* from, int64_t stride, int64_t rows, int64_t pitch, float* to) {
  const Block d;
  const auto zero = hn::Zero(d);
  hn::Vec<Block> steps[kQuad] = {rows > 0 ? load(d, from) : zero, rows > 1 ? load(d, from + stride) : zero,
                                 rows > 2 ? load(d, from + 2 * stride) : zero,
                                 rows > 3 ? load(d, from + 3 * stride) : zero};
  transpose_quads(d, steps);
  HWY_UNROLL(4)
  for (int i = 0; i < kQuad; ++i) hn::StoreU(steps[i], d, to + i * pitch);
}

// The same of a vector of rows, all there.
HWY_INLINE void transpose_vector(const float* from, int64_t stride, int64_t pitch, float* to) {
  const Units d;
  const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(float));
  hn::Vec<Units> steps[kQuad];
  HWY_UNROLL(4)
  for (int i = 0; i < kQuad; ++i)
    steps[i] = load_quads(d, reinterpret_cast<const char*>(from + i * stride), row_bytes);
  transpose_quads(d, steps);
  HWY_UNROLL(4)
  for (int i = 0; i < kQuad; ++i) hn::Store(hn::BitCast(Wide(), steps[i]), Wide(), to + i * pitch);
}

// k is contiguous.
template <typename T>
void pack_transposed(const T* from, const PanelSource& s, int64_t readable, int64_t pitch, float* to) {
  const int64_t whole = s.k / kQuad * kQuad;
  for (int64_t i = 0; i < pitch; i += kLanes) {
    const T* const first = from + i * s.width_stride;
    if constexpr (std::is_same_v<T, float>) {
      if (i + kLanes <= readable) {
        constexpr int64_t kLine = 16,
                          kAhead = 8 * kLine;  // so many rows the processor may not follow by itself
        for (int64_t k = 0; k < whole; k += kQuad) {
          for (int64_t row = 0; k % kLine == 0 && row < kLanes; ++row)
            hwy::Prefetch(first + row * s.width_stride + k + kAhead);
          transpose_vector(first + k, s.width_stride, pitch, to + k * pitch + i);
        }
        continue;
      }
    }
    for (int64_t j = 0; j < kLanes; j += kQuad)
      for (int64_t k = 0; k < whole; k += kQuad)
        transpose_block(first + j * s.width_stride + k, s.width_stride, readable - i - j, pitch,
                        to + k * pitch + i + j);
  }
  for (int64_t k = whole; k < s.k; ++k)
    for (int64_t i = 0; i < pitch; ++i)
      to[k * pitch + i] = i < readable ? load_one(from + i * s.width_stride + k) : 0;
}

#endif

// The width is contiguous, and `readable` elements of each row may be read; `k` elements are packed. The rows
// of the next group are called early, since a row's part is too short for the processor to see a stream in
// it.
template <typename T>
void pack_rows(const T* from, const PanelSource& s, int64_t k, int64_t readable, int64_t pitch, float* to) {
  const Wide wide;
  for (; k > 0; --k, from += s.k_stride, to += pitch) {
    int64_t i = 0;
    for (; i < pitch && i + kLanes <= readable; i += kLanes) {
      hwy::Prefetch(from + kRowGroup * s.k_stride + i);
      hn::Store(load(wide, from + i), wide, to + i);
    }
    for (; i < std::min(pitch, readable); ++i) to[i] = load_one(from + i);
  }
}

template <typename T>
void pack_any(const T* from, const PanelSource& s, int64_t readable, int64_t pitch, float* to) {
  for (int64_t k = 0; k < s.k; ++k, from += s.k_stride, to += pitch)
    for (int64_t i = 0; i < pitch; ++i) to[i] = i < readable ? load_one(from + i * s.width_stride) : 0;
}

template <typename T>
void pack_as(const PanelSource& s, const Panels& panels, int64_t first, int64_t last, float* to) {
  const T* from = static_cast<const T*>(s.data);
  const auto target = [&](int64_t p) { return to + (panels.offset(p) - panels.offset(first)) * s.k; };
  if (s.k_stride != 1 && s.width_stride == 1) {
    in_row_groups(s, panels, first, last, [&](int64_t k, std::span<const RowPart> parts) {
      for (const RowPart& part : parts)
        pack_rows(from + part.begin + k * s.k_stride, s, std::min(kRowGroup, s.k - k), part.readable,
                  part.pitch, to + part.offset * s.k + k * part.pitch);
    });
    return;
  }
  for (int64_t p = first; p < last; ++p) {
    const auto one = s.k_stride == 1 ? pack_transposed<T> : pack_any<T>;
    one(from + panels.begin(p) * s.width_stride, s, panels.readable(p), panels.pitch(p), target(p));
  }
}

void pack(const PanelSource& source, const Panels& panels, int64_t first, int64_t last, void* to) {
  if (source.dtype == DType::f32)
    pack_as<float>(source, panels, first, last, static_cast<float*>(to));
  else
    pack_as<bf16>(source, panels, first, last, static_cast<float*>(to));
}

// Stores the first `count` lanes of one vector of sums.
HWY_INLINE void store_some(hn::Vec<Wide> sum, float* c, int64_t count, bool add) {
  const Wide d;
  if (count >= kLanes) {
    hn::StoreU(add ? hn::Add(hn::LoadU(d, c), sum) : sum, d, c);
    return;
  }
  HWY_ALIGN float lanes[kLanes];
  hn::Store(sum, d, lanes);
  for (int64_t i = 0; i < count; ++i) c[i] = add ? c[i] + lanes[i] : lanes[i];
}

// The same rounded as to_bf16 does.
HWY_INLINE void store_bf16(hn::Vec<Wide> sum, bf16* c, int64_t count) {
  const hn::RebindToUnsigned<Wide> d32;
  const hn::RebindToSigned<Wide> signed32;
  const hn::Rebind<uint16_t, Wide> d16;
  const auto bits = hn::BitCast(d32, sum);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fff)));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(sum));
  const auto kept = hn::IfThenElse(is_nan, hn::Or(bits, hn::Set(d32, 0x400000)), rounded);
  const auto upper = hn::DemoteTo(d16, hn::BitCast(signed32, hn::ShiftRight<16>(kept)));
  if (count >= kLanes) {
    hn::StoreU(upper, d16, &c->bits);
    return;
  }
  HWY_ALIGN uint16_t lanes[kLanes];
  hn::Store(upper, d16, lanes);
  for (int64_t i = 0; i < count; ++i) c[i].bits = lanes[i];
}

template <int kTileRows, int kTileVectors, bool kPacked>
void tile_of(const TileArgs& args) {
  const Wide d;
  const float* HWY_RESTRICT a = static_cast<const float*>(args.a);
  RowPointers<kTileRows> rows(args.a, args.a_row_bytes);
  const float* HWY_RESTRICT b = static_cast<const float*>(args.b);
  hn::Vec<Wide> sum[kTileRows][kTileVectors];
  HWY_UNROLL(14)
  for (int i = 0; i < kTileRows; ++i) HWY_UNROLL(2)
  for (int j = 0; j < kTileVectors; ++j) sum[i][j] = hn::Zero(d);
  const TileCalls<kTileRows> calls(args, (kTileVectors - 1) * kLanes);
  for (int64_t run = 0, step = 0; step < args.steps; ++run) {
    auto [line, stride] = calls.runs[static_cast<size_t>(run)];
    for (const int64_t end = calls.end(run); step < end; ++step, line += stride, b += kTileVectors * kLanes) {
      hn::Vec<Wide> row[kTileVectors];
      __builtin_prefetch(line);
      HWY_UNROLL(2)
      for (int j = 0; j < kTileVectors; ++j) row[j] = hn::Load(d, b + j * kLanes);
      HWY_UNROLL(14)
      for (int i = 0; i < kTileRows; ++i) {
        const auto factor = hn::Set(d, kPacked ? a[i] : rows.template load<float>(i));
        HWY_UNROLL(2)
        for (int j = 0; j < kTileVectors; ++j) sum[i][j] = hn::MulAdd(factor, row[j], sum[i][j]);
      }
      if constexpr (kPacked)
        a += kRowPitch;
      else
        rows.next();
    }
  }
  HWY_UNROLL(14)
  for (int i = 0; i < kTileRows; ++i) HWY_UNROLL(2)
  for (int j = 0; j < kTileVectors; ++j) {
    const int64_t at = i * args.c_stride + j * kLanes, count = args.columns - j * kLanes;
    if (args.store == TileStore::set_bf16)
      store_bf16(sum[i][j], static_cast<bf16*>(args.c) + at, count);
    else
      store_some(sum[i][j], static_cast<float*>(args.c) + at, count, args.store == TileStore::add_f32);
  }
}

using TileFunction = void (*)(const TileArgs&);

template <bool kPacked, size_t... kIndex>
constexpr std::array<TileFunction, sizeof...(kIndex)> all_tiles(std::index_sequence<kIndex...>) {
  return {tile_of<kIndex / kVectors + 1, kIndex % kVectors + 1, kPacked>...};
}

constexpr auto kPanelTiles = all_tiles<true>(std::make_index_sequence<kRows * kVectors>());
constexpr auto kRowTiles = all_tiles<false>(std::make_index_sequence<kRows * kVectors>());

void tile(int rows, int vectors, const TileArgs& args) {
  (args.a_row_bytes == 0 ? kPanelTiles : kRowTiles)[(rows - 1) * kVectors + vectors - 1](args);
}

// ---- few rows: b is read where it stands, or from the panels of pack_b()

#if HWY_TARGET == HWY_SCALAR

constexpr void (*kThin)(int rows, const ThinArgs& args) = nullptr;

#else

constexpr int kThinVectors = static_cast<int>(kThinColumns) / kLanes,
              kPackedVectors = static_cast<int>(kPackedColumns) / kLanes;
static_assert(kThinVectors * kLanes == kThinColumns && kPackedVectors * kLanes == kPackedColumns);

template <typename T>
HWY_INLINE hn::Vec<Wide> element(hn::Vec<Units> units, int which) {
  if constexpr (sizeof(T) == 4) return hn::BitCast(Wide(), units);
  const Units d;
  return hn::BitCast(Wide(), which == 0 ? hn::ShiftLeft<16>(units) : hn::And(units, hn::Set(d, 0xffff0000U)));
}

// Adds the products of `count` elements along k, those of a quad of units or fewer. A column is a lane.
template <int kThinRows, typename T>
HWY_INLINE void add_quad(const char* b, int64_t column_bytes, const float* const (&a)[kThinRows], int64_t k,
                         int64_t count, hn::Vec<Wide> (&sums)[kThinRows][kThinVectors]) {
  constexpr int kPerUnit = 4 / static_cast<int>(sizeof(T));
  const Units d;
  hn::Vec<Units> units[kThinVectors][kQuad];
  HWY_UNROLL(4)
  for (int v = 0; v < kThinVectors; ++v) {
    HWY_UNROLL(4)
    for (int i = 0; i < kQuad; ++i)
      units[v][i] = load_quads(d, b + (v * kLanes + i) * column_bytes, column_bytes);
    transpose_quads(d, units[v]);
  }
  HWY_UNROLL(8)
  for (int e = 0; e < kQuad * kPerUnit; ++e) {
    if (e == count) return;
    HWY_UNROLL(4)
    for (int v = 0; v < kThinVectors; ++v) {
      const auto column = element<T>(units[v][e / kPerUnit], e % kPerUnit);
      HWY_UNROLL(4)
      for (int row = 0; row < kThinRows; ++row)
        sums[row][v] = hn::MulAdd(hn::Set(Wide(), a[row][k + e]), column, sums[row][v]);
    }
  }
}

// Quads of `columns` columns at the edge of b, filled up with zeros.
HWY_INLINE void copy_quads(const char* b, int64_t column_bytes, int64_t columns, int64_t bytes,
                           uint32_t (&to)[kThinColumns * kQuad]) {
  for (uint32_t& unit : to) unit = 0;
  for (int64_t i = 0; i < columns; ++i)
    std::memcpy(to + i * kQuad, b + i * column_bytes, static_cast<size_t>(bytes));
}

// Adds the products over k in [begin, end) of kThinColumns columns, of which `columns` exist.
template <int kThinRows, typename T>
HWY_INLINE void add_columns(const char* b, int64_t column_bytes, int64_t columns,
                            const float* const (&a)[kThinRows], int64_t begin, int64_t end,
                            hn::Vec<Wide> (&sums)[kThinRows][kThinVectors]) {
  constexpr int64_t kElements = kQuad * 4 / sizeof(T), kLine = 64 / sizeof(T), kQuadBytes = 4 * kQuad;
  int64_t k = begin;
  for (; columns >= kThinColumns && k + kElements <= end; k += kElements) {
    const char* const from = b + k * static_cast<int64_t>(sizeof(T));
    if ((k - begin) % kLine == 0)  // the columns after these are called
      for (int i = 0; i < kThinColumns; ++i) hwy::Prefetch(from + (kThinColumns + i) * column_bytes);
    add_quad<kThinRows, T>(from, column_bytes, a, k - begin, kElements, sums);
  }
  for (; k < end; k += kElements) {
    HWY_ALIGN uint32_t edge[kThinColumns * kQuad];
    const int64_t count = std::min(kElements, end - k), size = sizeof(T);
    copy_quads(b + k * size, column_bytes, std::min(columns, kThinColumns), count * size, edge);
    add_quad<kThinRows, T>(reinterpret_cast<const char*>(edge), kQuadBytes, a, k - begin, count, sums);
  }
}

// The same of a packed panel, whose columns all exist: memory is one stream.
template <int kThinRows, typename T>
HWY_INLINE void add_panel(const T* b, const float* const (&a)[kThinRows], int64_t begin, int64_t end,
                          hn::Vec<Wide> (&sums)[kThinRows][kPackedVectors]) {
  constexpr int64_t kAhead = 4096 / sizeof(T), kLine = 64 / sizeof(T);
  const T* step = b + begin * kPackedColumns;
  for (int64_t k = begin; k < end; ++k, step += kPackedColumns) {
    for (int64_t i = 0; i < kPackedColumns; i += kLine) hwy::Prefetch(step + kAhead + i);
    HWY_UNROLL(8)
    for (int v = 0; v < kPackedVectors; ++v) {
      const auto column = load(Wide(), step + v * kLanes);
      HWY_UNROLL(4)
      for (int row = 0; row < kThinRows; ++row)
        sums[row][v] = hn::MulAdd(hn::Set(Wide(), a[row][k - begin]), column, sums[row][v]);
    }
  }
}

HWY_INLINE void widen(const bf16* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::Store(load(Wide(), from + i), Wide(), to + i);
  for (; i < count; ++i) to[i] = load_one(from + i);
}

// Sums of columns [column, …) of row `row` -> c.
HWY_INLINE void store_thin(const ThinArgs& s, hn::Vec<Wide> sums, int64_t row, int64_t column) {
  const int64_t at = row * s.c_stride + column, count = s.columns - column;
  if (s.store == TileStore::set_bf16)
    store_bf16(sums, static_cast<bf16*>(s.c) + at, count);
  else
    store_some(sums, static_cast<float*>(s.c) + at, count, s.store == TileStore::add_f32);
}

template <int kThinRows, typename T, bool kPacked>
void thin_of(const ThinArgs& s) {
  constexpr int kVectors = kPacked ? kPackedVectors : kThinVectors;
  const int64_t column_bytes = kPacked ? s.k * static_cast<int64_t>(sizeof(T)) : s.b_column_bytes;
  const bool adds = s.store == TileStore::add_f32;
  HWY_ALIGN float widened[kThinRows][kMaxSteps];  // a block of a
  const float* a[kThinRows] = {};
  int64_t block_of_a = -1;
  const auto take_a = [&](int64_t block, int64_t begin, int64_t end) HWY_ATTR {
    if (block == block_of_a) return;
    block_of_a = block;
    for (int row = 0; row < kThinRows; ++row) {
      const char* const from = static_cast<const char*>(s.a) + row * s.a_row_bytes;
      a[row] = s.a_dtype == DType::f32 ? reinterpret_cast<const float*>(from) + begin : widened[row];
      if (s.a_dtype == DType::bf16)
        widen(reinterpret_cast<const bf16*>(from) + begin, end - begin, widened[row]);
    }
  };
  for (int64_t j = 0; j < s.columns; j += kVectors * kLanes) {
    const char* const b = static_cast<const char*>(s.b) + j * column_bytes;
    hn::Vec<Wide> total[kThinRows][kVectors];
    for (int64_t block = 0; block < s.k_blocks; ++block) {
      const int64_t begin = part_begin(s.k, s.k_blocks, block), end = part_begin(s.k, s.k_blocks, block + 1);
      take_a(block, begin, end);
      hn::Vec<Wide> sums[kThinRows][kVectors];
      for (auto& row : sums)
        for (auto& sum : row) sum = hn::Zero(Wide());
      if constexpr (kPacked)
        add_panel<kThinRows, T>(reinterpret_cast<const T*>(b), a, begin, end, sums);
      else
        add_columns<kThinRows, T>(b, column_bytes, s.columns - j, a, begin, end, sums);
      for (int row = 0; row < kThinRows; ++row)
        for (int v = 0; v < kVectors; ++v)
          if (adds)  // block by block, as a tile does
            store_thin(s, sums[row][v], row, j + v * kLanes);
          else
            total[row][v] = block == 0 ? sums[row][v] : hn::Add(total[row][v], sums[row][v]);
    }
    for (int row = 0; row < (adds ? 0 : kThinRows); ++row)
      for (int v = 0; v < kVectors; ++v) store_thin(s, total[row][v], row, j + v * kLanes);
  }
}

template <typename T, bool kPacked, int... kThinRows>
void thin_any(int rows, const ThinArgs& args, std::integer_sequence<int, kThinRows...>) {
  static constexpr void (*kFunctions[])(const ThinArgs&) = {thin_of<kThinRows + 1, T, kPacked>...};
  kFunctions[rows - 1](args);
}

void thin(int rows, const ThinArgs& args) {
  const std::make_integer_sequence<int, kMaxThinRows> all;
  if (args.packed)
    args.b_dtype == DType::f32 ? thin_any<float, true>(rows, args, all)
                               : thin_any<bf16, true>(rows, args, all);
  else
    args.b_dtype == DType::f32 ? thin_any<float, false>(rows, args, all)
                               : thin_any<bf16, false>(rows, args, all);
}

constexpr void (*kThin)(int rows, const ThinArgs& args) = thin;

#endif

constexpr int kSpinVectors = 12;

float spin(int64_t rounds, float seed) {
  const Wide d;
  const auto x = hn::Set(d, seed), y = hn::Set(d, 0.5F * seed);
  hn::Vec<Wide> sum[kSpinVectors];
  HWY_UNROLL(12)
  for (int i = 0; i < kSpinVectors; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) HWY_UNROLL(12)
  for (int i = 0; i < kSpinVectors; ++i) sum[i] = hn::MulAdd(sum[i], x, y);
  auto total = sum[0];
  HWY_UNROLL(12)
  for (int i = 1; i < kSpinVectors; ++i) total = hn::Add(total, sum[i]);
  return hn::GetLane(hn::SumOfLanes(d, total));
}

constexpr GemmKernel kernel(std::string_view name) {
  return {name,     DType::f32, 1,    kLanes, kRows, kRowPitch,
          kVectors, pack,       tile, kThin,  spin,  2 * kLanes * kSpinVectors};
}

}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nf::cpu {

const GemmKernel& f32_kernel([[maybe_unused]] bool avx2, [[maybe_unused]] bool avx512) {
#if HWY_TARGETS & HWY_AVX3
  static constexpr GemmKernel kAvx512 = N_AVX3::kernel("avx512_f32");
  if (avx512) return kAvx512;
#endif
#if HWY_TARGETS & HWY_AVX2
  static constexpr GemmKernel kAvx2 = N_AVX2::kernel("avx2_f32");
  if (avx2) return kAvx2;
#endif
  static constexpr GemmKernel kPortable = HWY_NAMESPACE::kernel("portable");
  return kPortable;
}

}  // namespace nf::cpu
#endif  // HWY_ONCE
