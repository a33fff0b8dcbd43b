// The part of the matrix product that depends on the instruction set: packing panels, multiplying one
// register tile.
//
// Both operands are packed into panels of 32-bit units: one f32, or two bf16 that are neighbours along k.
// Unit (step, i) of a panel lies at step * pitch + i, where i counts rows of a (or columns of b), pitch is
// whole vectors, and a step is one unit along k. A tile is then the sum over steps of outer products of one
// column of a panel of a and one row of a panel of b.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "nf/dtype.h"

namespace nf::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Where part `index` of `parts` nearly equal parts of `size` begins.
constexpr int64_t part_begin(int64_t size, int64_t parts, int64_t index) { return size * index / parts; }

// A cut of a width into panels of nearly equal size: of b whole vectors, of a any number of rows, which are
// padded alike.
struct Panels {
  int64_t width = 0, lanes = 1, count = 0, padded = 0;

  // Of columns of b.
  static Panels of_vectors(int64_t width, int64_t lanes, int64_t most_vectors) {
    return {width, lanes, ceil_div(ceil_div(width, lanes), most_vectors), 0};
  }
  // Of rows of a.
  static Panels of_rows(int64_t width, int64_t most_rows, int64_t pitch) {
    return {width, 1, ceil_div(width, most_rows), pitch};
  }
  int64_t begin(int64_t panel) const { return part_begin(ceil_div(width, lanes), count, panel) * lanes; }
  int64_t used(int64_t panel) const { return std::min(width, begin(panel + 1)) - begin(panel); }
  // From the panel's begin to the operand's end.
  int64_t readable(int64_t panel) const { return width - begin(panel); }
  int64_t pitch(int64_t panel) const { return padded != 0 ? padded : begin(panel + 1) - begin(panel); }
  // Sum of the pitches of all panels before.
  int64_t offset(int64_t panel) const { return padded != 0 ? panel * padded : begin(panel); }
};

// Part of an operand: rows of a or columns of b, over `k` elements.
struct PanelSource {
  const void* data;  // address of the first element of panel 0
  DType dtype;
  int64_t width_stride;  // in elements, from one row of a (column of b) to the next
  int64_t k_stride;
  int64_t k;
};

// Packing an operand whose width is contiguous takes few elements of k from all panels that it is asked for,
// then the next ones: rows are read from end to end, as memory delivers them fastest, and cache lines that
// two panels share are still there for the second.
constexpr int64_t kRowGroup = 8;
constexpr int64_t kPanelsAtOnce = 128;  // more than the vector kernels are ever asked for

struct RowPart {
  int64_t begin, readable;  // the panel's place in a row, and elements from there to the row's end
  int64_t pitch, offset;
};

// Calls pack(k, parts) for each group of kRowGroup elements from k on; parts are the panels in [first, last),
// and their offsets count from the first one's.
template <typename Pack>
void in_row_groups(const PanelSource& source, const Panels& panels, int64_t first, int64_t last, Pack pack) {
  for (int64_t p = first; p < last; p += kPanelsAtOnce) {
    RowPart parts[kPanelsAtOnce];
    const int64_t count = std::min(kPanelsAtOnce, last - p);
    for (int64_t i = 0; i < count; ++i)
      parts[i] = {panels.begin(p + i), panels.readable(p + i), panels.pitch(p + i),
                  panels.offset(p + i) - panels.offset(first)};
    for (int64_t k = 0; k < source.k; k += kRowGroup) pack(k, std::span<const RowPart>(parts, count));
  }
}

constexpr int kMaxThinRows = 4;
constexpr int64_t kThinColumns = 16;    // that a kernel takes at once where there are few rows
constexpr int64_t kPackedColumns = 32;  // the same where b is packed for it
constexpr int64_t kMaxSteps = 1024;     // of k in a block: a panel of b, 32 columns wide, takes 128 KiB

enum class TileStore : uint8_t { set_f32, add_f32, set_bf16 };

// Bytes of an element of c.
constexpr int64_t store_size(TileStore store) { return store == TileStore::set_bf16 ? 2 : 4; }

struct TileArgs {
  int64_t steps = 0;
  const void* a = nullptr;       // panel, or the operand's own first row
  int64_t a_row_bytes = 0;       // from one row of the operand to the next; 0: a is a panel
  const void* next_a = nullptr;  // where the next tile's a begins
  const void* b = nullptr;       // panel with a pitch of the tile's vectors, 64-byte aligned
  void* c = nullptr;             // address of the tile's first element
  int64_t c_stride = 0;
  int64_t columns = 0;  // how many to store, at least pitch of b - lanes + 1
  TileStore store = TileStore::set_f32;
};

// Few rows of a, read where they stand, against columns of b. k is contiguous along those, or they are
// packed: panels of kPackedColumns columns, one after the other, whose unit (step, i) lies at step *
// kPackedColumns + i; a unit is k_per_step elements of b's own dtype.
struct ThinArgs {
  const void* a = nullptr;  // first row; rows are contiguous
  int64_t a_row_bytes = 0;
  DType a_dtype = DType::f32, b_dtype = DType::f32;
  const void* b = nullptr;     // first column, or panel, 64-byte aligned
  int64_t b_column_bytes = 0;  // from one column to the next
  bool packed = false;
  int64_t columns = 0;
  int64_t k = 0;         // whole steps
  int64_t k_blocks = 1;  // nearly equal parts of k, each with a sum of its own
  void* c = nullptr;     // first row
  int64_t c_stride = 0;
  TileStore store = TileStore::set_f32;
};

// The rows of an operand as it stands, whose units are contiguous: addresses of every third one, so that a
// few registers and the processor's own scaling reach all.
template <int kRows>
struct RowPointers {
  const char* every_third[(kRows + 2) / 3];
  int64_t row_bytes;

  RowPointers(const void* first, int64_t row_bytes_) : row_bytes(row_bytes_) {
    for (int i = 0; i < kRows; i += 3) every_third[i / 3] = static_cast<const char*>(first) + i * row_bytes;
  }
  // Unit of row `i`, of any alignment.
  template <typename Unit>
  Unit load(int i) const {
    Unit unit;
    std::memcpy(&unit, every_third[i / 3] + i % 3 * row_bytes, sizeof unit);
    return unit;
  }
  void next() {
    for (const char*& row : every_third) row += 4;
  }
};

// What a tile calls while it multiplies, a line in each step: where the next tile's rows of a begin, then its
// own lines of c. All at once they would keep the first steps' operands waiting.
template <int kRows>
struct TileCalls {
  struct Lines {
    const char* first;
    int64_t stride;
  };
  static constexpr int64_t kRuns = 3;
  std::array<Lines, kRuns + 1> runs;  // of kRows steps each, save the last, which calls nothing new
  int64_t steps;

  [[gnu::always_inline]] TileCalls(const TileArgs& tile, int64_t last_vector) : steps(tile.steps) {
    const auto* c = static_cast<const char*>(tile.c);
    const int64_t size = store_size(tile.store), row_bytes = tile.c_stride * size;
    runs = {Lines{static_cast<const char*>(tile.next_a), tile.a_row_bytes != 0 ? tile.a_row_bytes : 64},
            Lines{c, row_bytes}, Lines{c + last_vector * size, row_bytes}, Lines{c, 0}};
  }
  [[gnu::always_inline]] int64_t end(int64_t run) const {
    return run == kRuns ? steps : std::min((run + 1) * kRows, steps);
  }
};

struct GemmKernel {
  std::string_view name;
  DType operand;    // what a unit holds
  int k_per_step;   // elements of k in a unit: 1 (f32) or 2 (bf16)
  int lanes;        // columns in a vector
  int max_rows;     // of a tile
  int row_pitch;    // of a panel of a
  int max_vectors;  // of a row of a tile

  // Packs panels [first, last) of ceil(k / k_per_step) steps, one after the other from `to` on, which is
  // aligned like a vector. The missing half of a last pair is zero; units beyond a panel's used width are
  // anything: what the operand has there is read.
  void (*pack)(const PanelSource& source, const Panels& panels, int64_t first, int64_t last, void* to);

  // The tile of rows in [1, max_rows] and vectors in [1, max_vectors].
  void (*tile)(int rows, int vectors, const TileArgs& args);

  // The same sums for rows in [1, kMaxThinRows] and any number of columns, at the speed of memory; null:
  // none.
  void (*thin)(int rows, const ThinArgs& args);

  // Multiplies and adds in registers alone, `spin_flops` operations per round; returns a number that depends
  // on all.
  float (*spin)(int64_t rounds, float seed);
  int64_t spin_flops;
};

// The best kernel that the features allow: Highway's targets.
const GemmKernel& f32_kernel(bool avx2, bool avx512);

// The VDPBF16PS kernel, or null where the build has none.
const GemmKernel* bf16_kernel();

}  // namespace nf::cpu
