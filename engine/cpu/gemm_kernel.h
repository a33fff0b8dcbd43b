// The part of the matrix product that depends on the instruction set: packing a panel, multiplying one
// register tile.
//
// Both operands are packed into panels of 32-bit units: one f32, or two bf16 that are neighbours along k.
// Unit (step, i) of a panel lies at step * pitch + i, where i counts rows of a (or columns of b) and a step
// is one unit along k. A tile is then the sum over steps of outer products of one column of the panel of a
// and one row of the panel of b.
#pragma once

#include <cstdint>
#include <string_view>

#include "nf/dtype.h"

namespace nf::cpu {

// A strip of an operand: `width` rows of a or columns of b, over `k` elements.
struct PanelSource {
  const void* data;  // address of element (0, 0)
  DType dtype;
  int64_t width_stride;  // in elements, from one row of a (column of b) to the next
  int64_t k_stride;
  int64_t width;
  int64_t k;
};

enum class TileStore : uint8_t { set_f32, add_f32, set_bf16 };

struct TileArgs {
  int64_t steps = 0;
  const void* a = nullptr;  // panel with pitch = rows of the tile
  const void* b = nullptr;  // panel with pitch = vectors of the tile x lanes, 64-byte aligned
  void* c = nullptr;        // address of the tile's first element
  int64_t c_stride = 0;
  int64_t columns = 0;  // how many to store, at least pitch of b - lanes + 1
  TileStore store = TileStore::set_f32;
};

struct GemmKernel {
  std::string_view name;
  int k_per_step;   // elements of k in a unit: 1 (f32) or 2 (bf16)
  int lanes;        // columns in a vector
  int max_rows;     // of a tile
  int max_vectors;  // of a row of a tile

  // Writes ceil(k / k_per_step) steps; units from width up to pitch and the missing half of a last pair are
  // zero. May write up to kPackSlack units behind the panel.
  void (*pack)(const PanelSource& source, int64_t pitch, void* panel);

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
