// Goto's blocking with nothing shared between threads: a task is one block of c. For each block of k it packs
// its rows of a once (they stay in the second-level cache) and the columns of b panel by panel (each stays in
// the first level while all rows pass over it). Packing b again for every block of rows costs about 2 % and
// saves every barrier. Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS
// 34(3), 2008.
#include "cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <chrono>

#include "base/parallel.h"
#include "cpu/gemm_kernel.h"
#include "cpu/isa.h"
#include "nf/error.h"

namespace nf::cpu {
namespace {

constexpr int64_t kMaxSteps = 256;      // of k in a block: a panel of b, 32 columns wide, takes 32 KiB
constexpr int64_t kMaxBlockRows = 504;  // 504 rows of 256 units take half a MiB
constexpr int64_t kMaxBlockColumns = 1024;
constexpr int64_t kSmallWork =
    1 << 17;  // multiplications below which a second thread costs more than it gives

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Where part `index` of `parts` nearly equal parts of `size` begins.
int64_t part_begin(int64_t size, int64_t parts, int64_t index) { return size * index / parts; }

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
  int64_t k_blocks, k_block;          // number, and size in elements (the last one may be shorter)
  int64_t row_blocks, column_blocks;  // of c
  int64_t block_rows, block_columns;  // upper bounds of a block's sizes
  bool partial;                       // c is bf16 and k has several blocks: sums wait in f32
  int threads;

  int64_t steps() const { return ceil_div(k_block, kernel->k_per_step); }
  int64_t a_units() const { return block_rows * steps() + kPackSlack; }
  int64_t b_units() const { return steps() * kernel->lanes * kernel->max_vectors + kPackSlack; }
  int64_t c_units() const { return partial ? block_rows * block_columns : 0; }
  // Bytes of a thread's scratch, in whole cache lines.
  int64_t thread_bytes() const {
    return (round_up(a_units(), 16) + round_up(b_units(), 16) + round_up(c_units(), 16)) * 4;
  }
};

// Halves blocks until there are four tasks for every thread, so that one that is held up is made up for by
// the others.
void cut_for_threads(const GemmArgs& args, Cut& cut) {
  const int64_t panel = cut.kernel->lanes * cut.kernel->max_vectors;
  while (args.batch * cut.row_blocks * cut.column_blocks < 4 * cut.threads) {
    const int64_t rows = ceil_div(args.m, cut.row_blocks), columns = ceil_div(args.n, cut.column_blocks);
    if (rows * columns * args.k < 4 * kSmallWork) break;
    const bool split_columns =
        columns >= 2 * panel && (columns >= 2 * rows || rows < 2 * cut.kernel->max_rows);
    if (!split_columns && rows < 2 * cut.kernel->max_rows) break;
    (split_columns ? cut.column_blocks : cut.row_blocks) *= 2;
  }
}

Cut cut_of(const GemmArgs& args, int threads) {
  Cut cut{};
  cut.kernel = &kernel_for(args.a.dtype, args.b.dtype);
  const int64_t panel = cut.kernel->lanes * cut.kernel->max_vectors, per_step = cut.kernel->k_per_step;
  cut.k_blocks = std::max<int64_t>(1, ceil_div(args.k, kMaxSteps * per_step));
  cut.k_block = std::max(per_step, round_up(ceil_div(args.k, cut.k_blocks), per_step));
  cut.partial = args.c_dtype == DType::bf16 && cut.k_blocks > 1;
  cut.threads = args.batch * args.m * args.n * args.k < kSmallWork ? 1 : std::max(threads, 1);
  cut.row_blocks = std::max<int64_t>(1, ceil_div(args.m, kMaxBlockRows));
  cut.column_blocks = std::max<int64_t>(1, ceil_div(args.n, kMaxBlockColumns));
  cut_for_threads(args, cut);
  // Blocks of columns are whole panels, so that only the last panel of c is narrow.
  cut.block_columns = round_up(ceil_div(args.n, cut.column_blocks), panel);
  cut.column_blocks = ceil_div(args.n, cut.block_columns);
  cut.block_rows = ceil_div(args.m, cut.row_blocks);
  return cut;
}

const void* element(const MatrixView& view, int64_t index) {
  return static_cast<const char*>(view.data) + index * size_of(view.dtype);
}

// One block of c: rows [row, row + rows) and columns [column, column + columns) of batch item `item`.
struct BlockTask {
  const GemmArgs& args;
  const Cut& cut;
  int64_t item, row, rows, column, columns;
  char* scratch;

  void run() const;
  void pack_a(int64_t k, int64_t depth, int32_t* panels) const;
  void multiply(int64_t k, int64_t depth, const int32_t* a, int32_t* b, float* sums) const;
  void round_sums(const float* sums) const;
  int64_t tiles() const { return ceil_div(rows, cut.kernel->max_rows); }
};

void BlockTask::pack_a(int64_t k, int64_t depth, int32_t* panels) const {
  const int64_t steps = ceil_div(depth, cut.kernel->k_per_step);
  for (int64_t tile = 0; tile < tiles(); ++tile) {
    const int64_t begin = part_begin(rows, tiles(), tile),
                  height = part_begin(rows, tiles(), tile + 1) - begin;
    const int64_t first =
        item * args.a_batch_stride + (row + begin) * args.a.row_stride + k * args.a.col_stride;
    cut.kernel->pack(
        {element(args.a, first), args.a.dtype, args.a.row_stride, args.a.col_stride, height, depth}, height,
        panels + begin * steps);
  }
}

// Adds block k of the products to c, or to `sums` when those are kept.
void BlockTask::multiply(int64_t k, int64_t depth, const int32_t* a, int32_t* b, float* sums) const {
  const GemmKernel& kernel = *cut.kernel;
  const int64_t panel = kernel.lanes * kernel.max_vectors, steps = ceil_div(depth, kernel.k_per_step);
  TileArgs tile;
  tile.steps = steps;
  tile.b = b;
  tile.store = k > 0 || args.accumulate                         ? TileStore::add_f32
               : args.c_dtype == DType::bf16 && sums == nullptr ? TileStore::set_bf16
                                                                : TileStore::set_f32;
  for (int64_t j = 0; j < columns; j += panel) {
    tile.columns = std::min(panel, columns - j);
    const int64_t vectors = ceil_div(tile.columns, kernel.lanes);
    const int64_t first =
        item * args.b_batch_stride + k * args.b.row_stride + (column + j) * args.b.col_stride;
    kernel.pack(
        {element(args.b, first), args.b.dtype, args.b.col_stride, args.b.row_stride, tile.columns, depth},
        vectors * kernel.lanes, b);
    for (int64_t t = 0; t < tiles(); ++t) {
      const int64_t begin = part_begin(rows, tiles(), t), end = part_begin(rows, tiles(), t + 1);
      tile.a = a + begin * steps;
      if (sums != nullptr) {
        tile.c = sums + begin * columns + j;
        tile.c_stride = columns;
      } else {
        const int64_t at = item * args.c_batch_stride + (row + begin) * args.c_row_stride + column + j;
        tile.c = static_cast<char*>(args.c) + at * size_of(args.c_dtype);
        tile.c_stride = args.c_row_stride;
      }
      kernel.tile(static_cast<int>(end - begin), static_cast<int>(vectors), tile);
    }
  }
}

void BlockTask::round_sums(const float* sums) const {
  for (int64_t i = 0; i < rows; ++i) {
    bf16* c =
        static_cast<bf16*>(args.c) + item * args.c_batch_stride + (row + i) * args.c_row_stride + column;
    for (int64_t j = 0; j < columns; ++j) c[j] = to_bf16(sums[i * columns + j]);
  }
}

void BlockTask::run() const {
  auto* a = reinterpret_cast<int32_t*>(scratch);
  int32_t* b = a + round_up(cut.a_units(), 16);
  float* sums = cut.partial ? reinterpret_cast<float*>(b + round_up(cut.b_units(), 16)) : nullptr;
  int64_t k = 0;
  do {
    const int64_t depth = std::min(cut.k_block, args.k - k);
    pack_a(k, depth, a);
    multiply(k, depth, a, b, sums);
    k += cut.k_block;
  } while (k < args.k);
  if (sums != nullptr) round_sums(sums);
}

}  // namespace

size_t gemm_workspace(const GemmArgs& args, int threads) {
  check(args);
  if (args.batch == 0 || args.m == 0 || args.n == 0) return 0;
  const Cut cut = cut_of(args, threads);
  return static_cast<size_t>(cut.threads * cut.thread_bytes()) + 64;
}

void gemm(const GemmArgs& args, void* workspace, int threads) {
  check(args);
  if (args.batch == 0 || args.m == 0 || args.n == 0) return;
  const Cut cut = cut_of(args, threads);
  char* scratch = static_cast<char*>(workspace);
  scratch += -reinterpret_cast<uintptr_t>(scratch) & 63U;
  const int64_t blocks = cut.row_blocks * cut.column_blocks, tasks = args.batch * blocks;
  const bool serial = cut.threads == 1 || tasks == 1;
  parallel_for(cut.threads, tasks, [&](int64_t task) {
    const int64_t row_block = task % blocks / cut.column_blocks, column_block = task % cut.column_blocks;
    const int64_t row = part_begin(args.m, cut.row_blocks, row_block),
                  column = column_block * cut.block_columns;
    const int thread = serial ? 0 : omp_get_thread_num();
    BlockTask{args,
              cut,
              task / blocks,
              row,
              part_begin(args.m, cut.row_blocks, row_block + 1) - row,
              column,
              std::min(cut.block_columns, args.n - column),
              scratch + thread * cut.thread_bytes()}
        .run();
  });
}

std::string_view gemm_kernel_name(const GemmArgs& args) {
  return kernel_for(args.a.dtype, args.b.dtype).name;
}

double measure_peak_gflops(DType dtype, int threads) {
  const GemmKernel& kernel = kernel_for(dtype, dtype);
  const auto seconds_for = [&](int64_t rounds) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, threads, [&](int64_t task) {
      volatile float sink = kernel.spin(rounds, 0.25F + static_cast<float>(task) * 0x1p-20F);
      static_cast<void>(sink);
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  constexpr int64_t kTrial = 20'000;
  const int64_t rounds = std::max(kTrial, static_cast<int64_t>(0.02 / seconds_for(kTrial) * kTrial));
  return static_cast<double>(rounds * threads * kernel.spin_flops) / seconds_for(rounds) * 1e-9;
}

}  // namespace nf::cpu
