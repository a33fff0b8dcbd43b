// Blocking after Goto: a task is one block of c. Its rows of a stay in the second-level cache, where they
// stand or packed once for each block of k, and it takes b panel by panel, all rows passing over each. With
// few rows every panel of b is packed just before its use, by threads that share out the columns and pack all
// rows of a for themselves, or, with very few, multiplied as it is read: decoding is one pass over the
// weights, or over what pack_b() has made of them. With many, b is packed in chunks that the third-level
// cache holds, before any of it is used: by all threads together, or, if they are few, by each for itself,
// for to fetch what another core has just written takes longer than to pack it. Such threads share out the
// rows of c or, where they have less to pack and to read then, the columns of the chunk. Goto, van de Geijn,
// "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.
#include "cpu/gemm.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "base/parallel.h"
#include "cpu/gemm_kernel.h"
#include "cpu/isa.h"
#include "nf/error.h"

namespace nf::cpu {
namespace {

constexpr int64_t kMaxRows = 252;       // of a block that packs b; 252 rows of 1024 units take 1 MiB
constexpr int64_t kMaxSharedRows = 84;  // of a block where b is packed: smaller parts are shared out better
constexpr int64_t kMaxWholeRows = 512;  // of a block that takes all rows, since they are few
constexpr size_t kMaxTiles = 128;       // of a block: no kernel's tiles have fewer than 4 rows
constexpr int64_t kColumnsPrivate = 1024;  // most columns of a block
constexpr int64_t kChunkColumns = 2048;    // most columns of a chunk of b
constexpr int64_t kChunkUnits = 1 << 21;   // of a chunk of b: 8 MiB
constexpr int kMostCopies = 4;             // of a chunk of b
constexpr int64_t kCopyRows = 128;         // of a thread, for which a copy of its own pays
constexpr int64_t kLineUnits = 16;         // of a cache line
constexpr int64_t kSmallWork =
    1 << 17;  // multiplications below which a second thread costs more than it gives

void check(const GemmArgs& args) {
  const auto usable = [](DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; };
  require(args.batch >= 0 && args.m >= 0 && args.n >= 0 && args.k >= 0,
          "gemm: negative size in batch {}, m {}, n {}, k {}", args.batch, args.m, args.n, args.k);
  require(usable(args.a.dtype) && usable(args.b.dtype) && usable(args.c_dtype),
          "gemm: dtypes {} x {} -> {}, only f32 and bf16 are supported", name(args.a.dtype),
          name(args.b.dtype), name(args.c_dtype));
  require(!args.accumulate || args.c_dtype == DType::f32, "gemm: accumulation into {}, only f32 is supported",
          name(args.c_dtype));
}

const GemmKernel& kernel_for(DType a, DType b) {
  const CpuFeatures& cpu = cpu_features();
  const bool pairs = a == DType::bf16 && b == DType::bf16 && cpu.avx512_bf16 && bf16_kernel() != nullptr;
  return pairs ? *bf16_kernel() : f32_kernel(cpu.avx2, cpu.avx512);
}

// How a product is cut. Nothing here changes a bit of the result, save k_blocks, which depends on k alone.
struct Cut {
  const GemmKernel* kernel;
  int64_t k_blocks;       // k is cut into nearly equal blocks of whole steps
  bool shared;            // b is packed chunk by chunk
  bool copies;            // by every thread for itself, as far as it needs it, not by all together
  bool by_columns;        // threads share out the columns of a chunk, not the rows
  bool thin;              // b is read as it stands, or as pack_b() has left it; nothing is packed
  bool few_rows;          // a block takes all rows of c and packs a, which serves the thread's next one too
  bool partial;           // c is bf16 and k has several blocks: sums wait in f32
  int64_t chunk_columns;  // of b; all of them unless shared
  int64_t chunk_blocks;   // of k
  bool direct_a;          // a is read where it stands, not packed
  bool whole_a;  // a block's rows of a are there whole: each panel of b is read in one go over all of k
  int64_t panels_at_once;  // of b that a block packs before it uses them
  int64_t row_blocks;      // of c
  int64_t column_blocks;   // of a chunk
  int64_t rows, columns;   // of the largest block
  int64_t tile_rows;       // at most
  int threads;

  int64_t steps(int64_t k) const { return ceil_div(k, kernel->k_per_step); }
  // Where block `index` of k begins.
  int64_t k_begin(int64_t k, int64_t index) const {
    return std::min(k, part_begin(steps(k), k_blocks, index) * kernel->k_per_step);
  }
  Panels column_panels(int64_t n) const { return Panels::of_vectors(n, kernel->lanes, kernel->max_vectors); }
  Panels row_panels(int64_t m) const { return Panels::of_rows(m, tile_rows, kernel->row_pitch); }
  // Units that a step takes of `m` packed rows.
  int64_t row_units(int64_t m) const { return row_panels(m).count * kernel->row_pitch; }
};

// Scratch memory, in units of 4 bytes and whole cache lines: chunks of b, each after a line that says whether
// it is packed, then for each thread a line that says which rows of a are packed, a, b, sums.
struct Layout {
  int64_t chunk_b, chunks, a, b, sums;

  Layout(const GemmArgs& args, const Cut& cut) {
    const int64_t depth = ceil_div(cut.steps(args.k), cut.k_blocks), lanes = cut.kernel->lanes;
    const auto lines = [](int64_t units) { return round_up(units, kLineUnits); };
    const int64_t chunk_steps = std::min(cut.steps(args.k), depth * cut.chunk_blocks);
    chunks = cut.copies ? cut.threads : cut.shared ? 1 : 0;
    chunk_b = kLineUnits + lines(chunk_steps * round_up(cut.chunk_columns, lanes));
    a = cut.direct_a ? 0 : lines(cut.row_units(cut.rows) * (cut.whole_a ? cut.steps(args.k) : depth));
    b = cut.shared ? 0 : lines(cut.panels_at_once * depth * lanes * cut.kernel->max_vectors);
    sums = cut.partial ? lines(cut.rows * cut.columns) : 0;
  }
  int64_t thread_units() const { return kLineUnits + a + b + sums; }
  int64_t units(int threads) const { return chunks * chunk_b + threads * thread_units(); }
};

// Whether the rows of c, no more than its columns, are so few that a block takes them all. Threads then share
// out the columns: each packs a once for all its blocks, and only those panels of b that are its own. There
// must be columns enough for four tasks of every thread.
bool has_few_rows(const GemmArgs& args, const Cut& cut) {
  return !cut.direct_a && args.batch < 4 * cut.threads && args.m <= std::min(args.n, kMaxWholeRows) &&
         cut.row_units(args.m) * cut.steps(args.k) <= kMaxWholeRows * kMaxSteps &&
         cut.column_panels(args.n).count >= 4 * cut.threads;
}

// Halves blocks until there are four tasks for every thread, so that one that is held up is made up for by
// the others.
void cut_for_threads(const GemmArgs& args, Cut& cut) {
  const int64_t panel = cut.kernel->lanes * cut.kernel->max_vectors, items = cut.shared ? 1 : args.batch;
  while (cut.threads > 1 && items * cut.row_blocks * cut.column_blocks < 4 * cut.threads) {
    const int64_t rows = ceil_div(args.m, cut.row_blocks),
                  columns = ceil_div(cut.chunk_columns, cut.column_blocks);
    if (rows * columns * args.k < 4 * kSmallWork) break;
    const bool can_split_rows = !cut.few_rows && rows >= 4 * cut.kernel->max_rows;
    const bool can_split_columns = columns >= 2 * panel;
    if (!can_split_rows && !can_split_columns) break;
    // Shared panels of b cost a task nothing, so rows are split first; otherwise the longer side.
    const bool split_rows = can_split_rows && (cut.shared || !can_split_columns || rows > columns);
    (split_rows ? cut.row_blocks : cut.column_blocks) *= 2;
  }
}

// Whether a's own rows serve as they are.
bool reads_rows(const GemmArgs& args, const GemmKernel& kernel) {
  return args.a.col_stride == 1 && args.a.dtype == kernel.operand && args.k % kernel.k_per_step == 0 &&
         args.a.row_stride > 0;
}

// Rows of a tile. Those a multiple of 4 KiB apart compete for the same few places in the first-level cache,
// of which there are 8 or 12.
int64_t most_rows(const GemmArgs& args, const Cut& cut) {
  constexpr int64_t kCompeting = 11;
  const bool compete = cut.direct_a && args.a.row_stride * size_of(args.a.dtype) % 4096 == 0;
  return compete ? std::min<int64_t>(kCompeting, cut.kernel->max_rows) : cut.kernel->max_rows;
}

bool is_thin(const GemmArgs& args, const GemmKernel& kernel) {
  return kernel.thin != nullptr && args.m <= kMaxThinRows && args.a.col_stride == 1 &&
         args.b.row_stride == 1 && args.k % kernel.k_per_step == 0;
}

Cut cut_of(const GemmArgs& args, int threads) {
  Cut cut{};
  cut.kernel = &kernel_for(args.a.dtype, args.b.dtype);
  const int64_t panel = cut.kernel->lanes * cut.kernel->max_vectors;
  cut.k_blocks = std::max<int64_t>(1, ceil_div(cut.steps(args.k), kMaxSteps));
  cut.partial = args.c_dtype == DType::bf16 && cut.k_blocks > 1;
  cut.threads = args.batch * args.m * args.n * args.k < kSmallWork ? 1 : std::max(threads, 1);
  cut.thin = is_thin(args, *cut.kernel);
  cut.direct_a = reads_rows(args, *cut.kernel);
  cut.tile_rows = most_rows(args, cut);
  cut.few_rows = has_few_rows(args, cut);
  const bool few_items = args.batch < 4 * cut.threads;
  cut.shared = few_items && !cut.few_rows && args.m > kMaxRows;
  cut.copies = cut.shared && cut.threads <= kMostCopies && args.m >= cut.threads * kCopyRows;
  cut.chunk_columns = args.n;
  cut.chunk_blocks = cut.k_blocks;
  if (cut.shared) {
    const int64_t block_steps = std::max<int64_t>(1, ceil_div(cut.steps(args.k), cut.k_blocks));
    // Sums that wait in f32 need all of k in one chunk.
    const int64_t fitting = cut.partial ? kChunkUnits / cut.steps(args.k) : kChunkColumns;
    const int64_t chunks = ceil_div(args.n, std::clamp<int64_t>(fitting, panel, kChunkColumns));
    cut.chunk_columns = std::min(args.n, round_up(ceil_div(args.n, chunks), panel));
    if (!cut.partial)
      cut.chunk_blocks =
          std::clamp<int64_t>(kChunkUnits / (cut.chunk_columns * block_steps), 1, cut.k_blocks);
  }
  cut.row_blocks =
      cut.few_rows ? 1 : std::max<int64_t>(1, ceil_div(args.m, cut.shared ? kMaxSharedRows : kMaxRows));
  cut.column_blocks = cut.shared ? 1 : std::max<int64_t>(1, ceil_div(args.n, kColumnsPrivate));
  cut_for_threads(args, cut);
  // Rows of a cost their packing, which all threads do then, or only their reading.
  cut.by_columns = cut.copies && 2 * args.m <= args.n * (cut.direct_a ? 3 : 1);
  if (cut.by_columns)
    cut.column_blocks = cut.threads;
  else if (cut.shared)  // blocks of rows in equal number for every thread
    cut.row_blocks = std::min(round_up(cut.row_blocks, cut.threads), args.m);
  // A block takes whole panels.
  const int64_t panels = cut.column_panels(cut.chunk_columns).count;
  cut.column_blocks = std::min(cut.column_blocks, panels);
  cut.rows = ceil_div(args.m, cut.row_blocks);
  cut.columns = ceil_div(panels, cut.column_blocks) * panel;
  // Where rows of b are contiguous, several panels at once make runs that are long enough for the memory.
  cut.panels_at_once = !cut.shared && args.b.col_stride == 1 ? 8 : 1;
  cut.whole_a =
      cut.direct_a || cut.few_rows || (!cut.shared && cut.rows * cut.steps(args.k) <= kMaxRows * kMaxSteps);
  return cut;
}

const void* element(const MatrixView& view, int64_t index) {
  return static_cast<const char*>(view.data) + index * size_of(view.dtype);
}

// One product of a batch: chunk [column, column + columns) of c, blocks [first_block, last_block) of k.
struct Chunk {
  const GemmArgs& args;
  const Cut& cut;
  int64_t item, column;
  Panels panels;  // of the chunk's columns
  int64_t first_block, last_block;

  const void* a_element(int64_t row, int64_t k) const {
    return element(args.a, item * args.a_batch_stride + row * args.a.row_stride + k * args.a.col_stride);
  }
  PanelSource a_source(int64_t row, int64_t k, int64_t depth) const {
    return {a_element(row, k), args.a.dtype, args.a.row_stride, args.a.col_stride, depth};
  }
  PanelSource b_source(int64_t k, int64_t depth) const {
    const int64_t first = item * args.b_batch_stride + k * args.b.row_stride + column * args.b.col_stride;
    return {element(args.b, first), args.b.dtype, args.b.col_stride, args.b.row_stride, depth};
  }
  int64_t k_begin(int64_t block) const { return cut.k_begin(args.k, block); }
  int64_t depth(int64_t block) const { return k_begin(block + 1) - k_begin(block); }
  // Where block `block` of k of the shared b begins; its panels follow one another.
  int64_t shared_offset(int64_t block) const {
    return (cut.steps(k_begin(block)) - cut.steps(k_begin(first_block))) * panels.offset(panels.count);
  }
};

// A block of c: `rows` rows from `row` on, panels [first_panel, last_panel) of the chunk. `rows_id`: a
// number above 0, the same for all blocks of these rows of this product.
struct Block {
  const Chunk& chunk;
  int32_t rows_id;
  int64_t row, rows, first_panel, last_panel;
  const int32_t* shared_b;  // null: panels of b are packed here
  int32_t* scratch;
  Panels tiles = chunk.cut.row_panels(rows);
  std::array<int64_t, kMaxTiles + 1> tile_begins = {};  // of each tile's rows, and the end of the last

  void run();
  void multiply(int64_t k_block, int64_t first, int64_t last, const int32_t* a, int32_t* own_b,
                float* sums) const;
  void round_sums(const float* sums) const;
  int64_t first_column() const { return chunk.panels.begin(first_panel); }
  int64_t columns() const {
    return std::min(chunk.panels.width, chunk.panels.begin(last_panel)) - first_column();
  }
  int64_t c_index(int64_t i, int64_t column) const {
    const GemmArgs& args = chunk.args;
    return chunk.item * args.c_batch_stride + (row + i) * args.c_row_stride + chunk.column + column;
  }
};

// Adds one block of k to panels [first, last) of columns of c, or of `sums` where those are kept.
void Block::multiply(int64_t k_block, int64_t first, int64_t last, const int32_t* a, int32_t* own_b,
                     float* sums) const {
  const GemmArgs& args = chunk.args;
  const GemmKernel& kernel = *chunk.cut.kernel;
  const Panels& panels = chunk.panels;
  const int64_t k = chunk.k_begin(k_block), depth = chunk.depth(k_block);
  TileArgs tile;
  tile.steps = chunk.cut.steps(depth);
  if (chunk.cut.direct_a) tile.a_row_bytes = args.a.row_stride * size_of(args.a.dtype);
  tile.c_stride = sums != nullptr ? columns() : args.c_row_stride;
  const bool rounded = args.c_dtype == DType::bf16 && sums == nullptr;
  tile.store = k_block > 0 || args.accumulate ? TileStore::add_f32
               : rounded                      ? TileStore::set_bf16
                                              : TileStore::set_f32;
  const int32_t* b = own_b;
  if (shared_b != nullptr)
    b = shared_b + chunk.shared_offset(k_block) + panels.offset(first) * tile.steps;
  else
    kernel.pack(chunk.b_source(k, depth), panels, first, last, own_b);
  const auto a_of_tile = [&](int64_t i) {
    return chunk.cut.direct_a ? chunk.a_element(row + tile_begins[static_cast<size_t>(i)], k)
                              : a + tiles.offset(i) * tile.steps;
  };
  for (int64_t panel = first; panel < last; ++panel) {
    const int64_t column = panels.begin(panel);
    tile.b = b + (panels.offset(panel) - panels.offset(first)) * tile.steps;
    tile.columns = panels.used(panel);
    const auto vectors = static_cast<int>(panels.pitch(panel) / kernel.lanes);
    tile.next_a = a_of_tile(0);
    for (int64_t i = 0; i < tiles.count; ++i) {
      const int64_t begin = tile_begins[static_cast<size_t>(i)];
      tile.a = tile.next_a;
      tile.next_a = a_of_tile(i + 1 < tiles.count ? i + 1 : 0);
      tile.c = sums != nullptr ? static_cast<void*>(sums + begin * columns() + column - first_column())
                               : static_cast<char*>(args.c) + c_index(begin, column) * size_of(args.c_dtype);
      kernel.tile(static_cast<int>(tile_begins[static_cast<size_t>(i) + 1] - begin), vectors, tile);
    }
  }
}

void Block::round_sums(const float* sums) const {
  for (int64_t i = 0; i < rows; ++i) {
    bf16* c = static_cast<bf16*>(chunk.args.c) + c_index(i, first_column());
    for (int64_t j = 0; j < columns(); ++j) c[j] = to_bf16(sums[i * columns() + j]);
  }
}

void Block::run() {
  const Cut& cut = chunk.cut;
  const Layout layout(chunk.args, cut);
  int32_t* a = scratch + kLineUnits;
  int32_t* own_b = a + layout.a;
  float* sums = cut.partial ? reinterpret_cast<float*>(own_b + layout.b) : nullptr;
  const auto pack_a = [&](int64_t block, int32_t* to) {
    if (cut.direct_a) return;
    cut.kernel->pack(chunk.a_source(row, chunk.k_begin(block), chunk.depth(block)), tiles, 0, tiles.count,
                     to);
  };
  const auto a_offset = [&](int64_t block) {
    return cut.whole_a ? cut.row_units(rows) * cut.steps(chunk.k_begin(block)) : 0;
  };
  for (int64_t i = 0; i <= tiles.count; ++i) tile_begins[static_cast<size_t>(i)] = tiles.begin(i);
  const auto multiply_all = [&](int64_t first_block, int64_t last_block) {
    for (int64_t panel = first_panel; panel < last_panel; panel += cut.panels_at_once)
      for (int64_t block = first_block; block < last_block; ++block)
        multiply(block, panel, std::min(panel + cut.panels_at_once, last_panel), a + a_offset(block), own_b,
                 sums);
  };
  // Where all of its rows of a are packed at once, the thread's block before may have left the same ones.
  int32_t& packed = *scratch;
  const bool is_packed = cut.whole_a && packed == rows_id;
  packed = rows_id;
  for (int64_t block = chunk.first_block; block < chunk.last_block; ++block) {
    if (!is_packed) pack_a(block, a + a_offset(block));
    if (!cut.whole_a) multiply_all(block, block + 1);
  }
  if (cut.whole_a) multiply_all(chunk.first_block, chunk.last_block);
  if (sums != nullptr) round_sums(sums);
}

constexpr int64_t kPanelsPerTask = 4;

// Into so many parts the packing of a chunk is cut: groups of panels, for each block of k.
int64_t pack_tasks(const Chunk& chunk) {
  return ceil_div(chunk.panels.count, kPanelsPerTask) * (chunk.last_block - chunk.first_block);
}

void pack_part(const Chunk& chunk, int64_t block, int64_t first, int64_t last, int32_t* packed) {
  chunk.cut.kernel->pack(
      chunk.b_source(chunk.k_begin(block), chunk.depth(block)), chunk.panels, first, last,
      packed + chunk.shared_offset(block) + chunk.panels.offset(first) * chunk.cut.steps(chunk.depth(block)));
}

void pack_task(const Chunk& chunk, int64_t task, int32_t* packed) {
  const int64_t groups = ceil_div(chunk.panels.count, kPanelsPerTask), first = task % groups * kPanelsPerTask;
  pack_part(chunk, chunk.first_block + task / groups, first,
            std::min(first + kPanelsPerTask, chunk.panels.count), packed);
}

// A thread's copy of a chunk of b; of its columns, part by part, those are packed that the thread comes to.
// `memory`: a line that says which parts are, then b.
static_assert(4 * kMostCopies <= kLineUnits);  // see cut_for_threads
const int32_t* own_copy(const Chunk& chunk, int64_t part, int32_t* memory) {
  int32_t *const b = memory + kLineUnits, &is_packed = memory[part];
  if (is_packed == 0)
    for (int64_t block = chunk.first_block; block < chunk.last_block; ++block)
      pack_part(chunk, block, part_begin(chunk.panels.count, chunk.cut.column_blocks, part),
                part_begin(chunk.panels.count, chunk.cut.column_blocks, part + 1), b);
  is_packed = 1;
  return b;
}

// All blocks of c in `items` chunks, equal in all but the batch item. `workspace`: see Layout.
void run_blocks(const Chunk& first, int64_t items, int32_t* workspace) {
  const Cut& cut = first.cut;
  const Layout layout(first.args, cut);
  int32_t* const scratch = workspace + layout.chunks * layout.chunk_b;
  const int64_t blocks = cut.row_blocks * cut.column_blocks, tasks = items * blocks;
  for (int thread = 0; thread < cut.threads; ++thread)
    scratch[thread * layout.thread_units()] = 0;  // no rows of a are packed
  parallel_for(cut.threads, tasks, [&](int64_t task, int thread) {
    Chunk chunk = first;
    chunk.item += task / blocks;
    const int64_t block = task % blocks;
    const int64_t i = cut.by_columns ? block % cut.row_blocks : block / cut.column_blocks;
    const int64_t j = cut.by_columns ? block / cut.row_blocks : block % cut.column_blocks;
    const int64_t row = part_begin(first.args.m, cut.row_blocks, i);
    Block{chunk,
          static_cast<int32_t>(task / blocks * cut.row_blocks + i + 1),
          row,
          part_begin(first.args.m, cut.row_blocks, i + 1) - row,
          part_begin(chunk.panels.count, cut.column_blocks, j),
          part_begin(chunk.panels.count, cut.column_blocks, j + 1),
          cut.copies   ? own_copy(chunk, j, workspace + thread * layout.chunk_b)
          : cut.shared ? workspace + kLineUnits
                       : nullptr,
          scratch + thread * layout.thread_units()}
        .run();
  });
}

// A task is some columns of one product of the batch.
void run_thin(const GemmArgs& args, const Cut& cut) {
  const int64_t groups = ceil_div(args.n, kPackedColumns), parts = std::min<int64_t>(groups, 8 * cut.threads);
  parallel_for(cut.threads, args.batch * parts, [&](int64_t task) {
    const auto column = [&](int64_t part) {
      return std::min(args.n, part_begin(groups, parts, part) * kPackedColumns);
    };
    const int64_t item = task / parts, first = column(task % parts);
    ThinArgs part;
    part.a = element(args.a, item * args.a_batch_stride);
    part.a_row_bytes = args.a.row_stride * size_of(args.a.dtype);
    part.a_dtype = args.a.dtype;
    part.b_dtype = args.b.dtype;
    part.packed = args.packed_b != nullptr;
    part.b = part.packed ? static_cast<const char*>(args.packed_b) + first * args.k * size_of(args.b.dtype)
                         : element(args.b, item * args.b_batch_stride + first * args.b.col_stride);
    part.b_column_bytes = args.b.col_stride * size_of(args.b.dtype);
    part.columns = column(task % parts + 1) - first;
    part.k = args.k;
    part.k_blocks = cut.k_blocks;
    part.c = static_cast<char*>(args.c) + (item * args.c_batch_stride + first) * size_of(args.c_dtype);
    part.c_stride = args.c_row_stride;
    part.store = args.accumulate               ? TileStore::add_f32
                 : args.c_dtype == DType::bf16 ? TileStore::set_bf16
                                               : TileStore::set_f32;
    cut.kernel->thin(static_cast<int>(args.m), part);
  });
}

// One of the panels that ThinArgs describes, of `columns` columns; units of those that are missing are
// anything.
void pack_thin_panel(const GemmKernel& kernel, const PanelSource& from, int64_t columns, void* to) {
  if (from.dtype == kernel.operand)
    return kernel.pack(from, Panels::of_rows(columns, kPackedColumns, kPackedColumns), 0, 1, to);
  // bf16 where sums are of f32: packing for tiles would widen it.
  const auto* b = static_cast<const bf16*>(from.data);
  auto* panel = static_cast<bf16*>(to);
  for (int64_t k = 0; k < from.k; k += kLineUnits)
    for (int64_t i = 0; i < columns; ++i)
      for (int64_t at = k; at < std::min(k + kLineUnits, from.k); ++at)
        panel[at * kPackedColumns + i] = b[i * from.width_stride + at];
}

void run_chunk(const Chunk& chunk, int32_t* workspace) {
  const Cut& cut = chunk.cut;
  const Layout layout(chunk.args, cut);
  if (cut.copies)
    for (int64_t copy = 0; copy < layout.chunks; ++copy)
      std::fill_n(workspace + copy * layout.chunk_b, cut.column_blocks, 0);
  else
    parallel_for(cut.threads, pack_tasks(chunk),
                 [&](int64_t task) { pack_task(chunk, task, workspace + kLineUnits); });
  run_blocks(chunk, 1, workspace);
}

}  // namespace

size_t gemm_workspace(const GemmArgs& args, int threads) {
  check(args);
  if (args.batch == 0 || args.m == 0 || args.n == 0) return 0;
  const Cut cut = cut_of(args, threads);
  if (cut.thin) return 0;
  return static_cast<size_t>(Layout(args, cut).units(cut.threads)) * 4 + 64;
}

size_t gemm_workspace_of_any_strides(const GemmArgs& args, int threads) {
  constexpr MatrixView kByRows{.row_stride = 1, .col_stride = 1},
      kByColumns{.row_stride = 1, .col_stride = 2};
  size_t most = 0;
  for (const MatrixView& a : {kByRows, kByColumns})
    for (const MatrixView& b : {kByRows, kByColumns}) {
      GemmArgs one = args;
      one.a.row_stride = a.row_stride;
      one.a.col_stride = a.col_stride;
      one.b.row_stride = b.col_stride;
      one.b.col_stride = b.row_stride;
      most = std::max(most, gemm_workspace(one, threads));
    }
  return most;
}

void gemm(const GemmArgs& args, void* workspace, int threads) {
  check(args);
  if (args.batch == 0 || args.m == 0 || args.n == 0) return;
  const Cut cut = cut_of(args, threads);
  require(args.packed_b == nullptr || (cut.thin && args.batch == 1),
          "gemm: b is packed for another product than {} x {} x {} x {}", args.batch, args.m, args.n, args.k);
  if (cut.thin) return run_thin(args, cut);
  auto* const aligned = reinterpret_cast<int32_t*>(round_up(reinterpret_cast<intptr_t>(workspace), 64));
  if (!cut.shared)
    return run_blocks({args, cut, 0, 0, cut.column_panels(args.n), 0, cut.k_blocks}, args.batch, aligned);
  for (int64_t item = 0; item < args.batch; ++item)
    for (int64_t column = 0; column < args.n; column += cut.chunk_columns) {
      const Panels panels = cut.column_panels(std::min(cut.chunk_columns, args.n - column));
      for (int64_t block = 0; block < cut.k_blocks; block += cut.chunk_blocks)
        run_chunk({args, cut, item, column, panels, block, std::min(block + cut.chunk_blocks, cut.k_blocks)},
                  aligned);
    }
}

size_t packed_b_bytes(const GemmArgs& args) {
  check(args);
  const bool useful = args.batch == 1 && args.m > 0 && is_thin(args, kernel_for(args.a.dtype, args.b.dtype));
  return useful ? static_cast<size_t>(round_up(args.n, kPackedColumns) * args.k * size_of(args.b.dtype)) : 0;
}

void pack_b(const GemmArgs& args, void* packed, int threads) {
  const size_t bytes = packed_b_bytes(args);
  const GemmKernel& kernel = kernel_for(args.a.dtype, args.b.dtype);
  const int64_t panels = ceil_div(args.n, kPackedColumns);
  parallel_for(threads, bytes == 0 ? 0 : panels, [&](int64_t panel) {
    const int64_t first = panel * kPackedColumns;
    pack_thin_panel(kernel,
                    {element(args.b, first * args.b.col_stride), args.b.dtype, args.b.col_stride, 1, args.k},
                    std::min(kPackedColumns, args.n - first),
                    static_cast<char*>(packed) + panel * static_cast<int64_t>(bytes) / panels);
  });
}

std::string_view gemm_kernel_name(const GemmArgs& args) {
  return kernel_for(args.a.dtype, args.b.dtype).name;
}

// Each thread's best slice counts, so that a moment in which it did not have its core to itself is left out.
double measure_peak_gflops(DType dtype, int threads) {
  using Clock = std::chrono::steady_clock;
  constexpr int kSlices = 40;
  constexpr double kSliceSeconds = 0.5e-3;
  const GemmKernel& kernel = kernel_for(dtype, dtype);
  std::array<double, 256> rates{};
  const int cores = std::clamp(threads, 1, std::min<int>(processor_count(), rates.size()));
  const auto seconds_for = [&kernel](int64_t rounds) {
    const auto start = Clock::now();
    [[maybe_unused]] const volatile float sink = kernel.spin(rounds, 0.25F);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  parallel_for(cores, cores, [&](int64_t core) {
    double rounds_per_second = 0;
    int64_t rounds = 1000;
    for (int slice = 0; slice < kSlices; ++slice) {
      rounds_per_second = std::max(rounds_per_second, static_cast<double>(rounds) / seconds_for(rounds));
      rounds = static_cast<int64_t>(rounds_per_second * kSliceSeconds) + 1;
    }
    rates[static_cast<size_t>(core)] = rounds_per_second;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0) * static_cast<double>(kernel.spin_flops) * 1e-9;
}

}  // namespace nf::cpu
