// The part of the matrix product that depends on the instruction set: packing panels, multiplying one
// register tile.
//
// Both operands are packed into panels of 32-bit units: one f32, or two bf16 that are neighbours along k.
// Unit (step, i) of a panel lies at step * pitch + i, where i counts rows of a (or columns of b) and a step
// is one unit along k. A tile is then the sum over steps of outer products of one column of a panel of a and
// one row of a panel of b.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "nf/dtype.h"

namespace nf::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Where part `index` of `parts` nearly equal parts of `size` begins.
constexpr int64_t part_begin(int64_t size, int64_t parts, int64_t index) { return size * index / parts; }

// A cut of a width into panels of nearly equal pitch, each a multiple of `lanes` (1 for a, a vector for b).
struct Panels {
  int64_t width = 0, lanes = 1, count = 0;

  Panels() = default;
  Panels(int64_t size, int64_t lanes_, int64_t max_pitch)
      : width(size), lanes(lanes_), count(ceil_div(round_up(size, lanes_), max_pitch)) {}
  int64_t begin(int64_t panel) const { return part_begin(ceil_div(width, lanes), count, panel) * lanes; }
  int64_t pitch(int64_t panel) const { return begin(panel + 1) - begin(panel); }  // padding included
  int64_t used(int64_t panel) const { return std::min(width, begin(panel + 1)) - begin(panel); }
};

// Part of an operand: rows of a or columns of b, over `k` elements.
struct PanelSource {
  const void* data;  // address of the first element of panel 0
  DType dtype;
  int64_t width_stride;  // in elements, from one row of a (column of b) to the next
  int64_t k_stride;
  int64_t k;
};

enum class TileStore : uint8_t { set_f32, add_f32, set_bf16 };

// Bytes of an element of c.
constexpr int64_t store_size(TileStore store) { return store == TileStore::set_bf16 ? 2 : 4; }

struct TileArgs {
  int64_t steps = 0;
  const void* a = nullptr;  // panel with pitch = rows of the tile, or the operand's own first row
  int64_t a_row_bytes = 0;  // from one row of the operand to the next; 0: a is a panel
  const void* b = nullptr;  // panel with pitch = vectors of the tile x lanes, 64-byte aligned
  void* c = nullptr;        // address of the tile's first element
  int64_t c_stride = 0;
  int64_t columns = 0;  // how many to store, at least pitch of b - lanes + 1
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

struct GemmKernel {
  std::string_view name;
  DType operand;    // what a unit holds
  int k_per_step;   // elements of k in a unit: 1 (f32) or 2 (bf16)
  int lanes;        // columns in a vector
  int max_rows;     // of a tile
  int max_vectors;  // of a row of a tile

  // Packs panels [first, last) of ceil(k / k_per_step) steps, one after the other from `to` on. Units beyond
  // a panel's used width and the missing half of a last pair are zero. Panels whose pitch is no multiple of
  // lanes may spill up to kPackSlack units behind the last.
  void (*pack)(const PanelSource& source, const Panels& panels, int64_t first, int64_t last, void* to);

  // The tile of rows in [1, max_rows] and vectors in [1, max_vectors].
  void (*tile)(int rows, int vectors, const TileArgs& args);

  // Multiplies and adds in registers alone, `spin_flops` operations per round; returns a number that depends
  // on all.
  float (*spin)(int64_t rounds, float seed);
  int64_t spin_flops;
};

inline constexpr int64_t kPackSlack = 16;

// The best kernel that the features allow: Highway's targets.
const GemmKernel& f32_kernel(bool avx2, bool avx512);

// The VDPBF16PS kernel, or null where the build has none.
const GemmKernel* bf16_kernel();

}  // namespace nf::cpu
