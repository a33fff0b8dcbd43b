// cuBLASLt counts columns first. A row-major c = a b is a column-major c^T = b^T a^T over the same memory, so
// b is the library's first operand and a its second, and what it calls rows are columns here.
#include "cuda/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <optional>
#include <random>
#include <vector>

#include "base/hash.h"
#include "cuda/cache.h"
#include "cuda/dynamic_library.h"

namespace nf::cuda {

struct Cublas::Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtGetStatusString) status_text;
  cublasLtHandle_t handle = nullptr;

  Library() {
    const DynamicLibrary library(NF_CUBLASLT);
    library.find("cublasLtCreate", create);
    library.find("cublasLtDestroy", destroy);
    library.find("cublasLtGetVersion", version);
    library.find("cublasLtMatmul", matmul);
    library.find("cublasLtMatmulAlgoGetHeuristic", heuristic);
    library.find("cublasLtMatmulDescCreate", desc_create);
    library.find("cublasLtMatmulDescDestroy", desc_destroy);
    library.find("cublasLtMatmulDescSetAttribute", desc_set);
    library.find("cublasLtMatrixLayoutCreate", layout_create);
    library.find("cublasLtMatrixLayoutDestroy", layout_destroy);
    library.find("cublasLtMatrixLayoutSetAttribute", layout_set);
    library.find("cublasLtMatmulPreferenceCreate", preference_create);
    library.find("cublasLtMatmulPreferenceDestroy", preference_destroy);
    library.find("cublasLtMatmulPreferenceSetAttribute", preference_set);
    library.find("cublasLtGetStatusString", status_text);
    check(create(&handle), "start");
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { destroy(handle); }

  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS) fail("cuda: cuBLASLt cannot {}: {}", what, status_text(status));
  }
};

namespace {

constexpr int kCandidates = 8;
constexpr int kTimedRuns = 5;

// Sums over a long inner dimension may be cut into parts, which are added in f32, in an order of their own:
// not in c, where a part is rounded to c's dtype and the order may be that in which blocks are done.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

cudaDataType_t data_type(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// A matrix as the library sees it: `rows` adjacent elements, `columns` of them a leading dimension apart.
struct ColumnMajor {
  int64_t rows, columns, leading;
  bool transposed;  // with respect to what the product needs
};

// An operand [rows, columns] of ours, needed transposed.
ColumnMajor column_major(const MatrixLayout& m, int64_t rows, int64_t columns) {
  const bool row_major = (m.col_stride == 1 || columns == 1) && (m.row_stride >= columns || rows == 1);
  const int64_t inner = row_major ? columns : rows, outer = row_major ? rows : columns;
  return {inner, outer, std::max(row_major ? m.row_stride : m.col_stride, inner), !row_major};
}

// The largest power of two, up to what the library asks about, that divides the addresses of all matrices.
uint32_t common_alignment(const Product& p, std::initializer_list<const void*> addresses) {
  uint64_t bits = 256;
  for (const void* address : addresses) bits |= reinterpret_cast<uintptr_t>(address);
  if (p.batch > 1)
    for (const MatrixLayout& m : {p.a, p.b, p.c})
      bits |= static_cast<uint64_t>(m.batch_stride * size_of(m.dtype));
  return static_cast<uint32_t>(bits & -bits);
}

// What the library calls descriptors: its own memory, since their sizes differ between its versions.
using Operation = std::shared_ptr<cublasLtMatmulDescOpaque_t>;
using Layout = std::shared_ptr<cublasLtMatrixLayoutOpaque_t>;
using Preference = std::shared_ptr<cublasLtMatmulPreferenceOpaque_t>;

// Everything of one product that the library reads when it runs.
struct Prepared {
  Operation operation = {};
  Layout first = {}, second = {}, result = {};
  float alpha = 1, beta = 0;
};

template <typename Library>
class Preparation {
 public:
  Preparation(const Library& library, const Product& product) : lt_(library), p_(product) {
    describe_operation();
    made_.first = layout(p_.b.dtype, first_, p_.b.batch_stride);
    made_.second = layout(p_.a.dtype, second_, p_.a.batch_stride);
    made_.result = layout(p_.c.dtype, result_, p_.c.batch_stride);
  }

  const Prepared& made() const { return made_; }

  // The algorithms that the library proposes, what it thinks fastest first.
  std::vector<cublasLtMatmulHeuristicResult_t> candidates(uint32_t alignment) const {
    const Preference wanted = preference(alignment);
    std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
    int count = 0;
    cublasLtMatrixLayoutOpaque_t* const result = made_.result.get();
    const cublasStatus_t status =
        lt_.heuristic(lt_.handle, made_.operation.get(), made_.first.get(), made_.second.get(), result,
                      result, wanted.get(), kCandidates, found.data(), &count);
    found.resize(static_cast<size_t>(count));
    std::erase_if(found, [](const auto& candidate) { return candidate.state != CUBLAS_STATUS_SUCCESS; });
    if (status != CUBLAS_STATUS_SUCCESS || found.empty())
      fail("cuda: cuBLASLt knows no algorithm for {} products [{}, {}] x [{}, {}] of {}: {}", p_.batch, p_.m,
           p_.k, p_.k, p_.n, name(p_.a.dtype), lt_.status_text(status));
    return found;
  }

 private:
  void describe_operation() {
    made_.beta = p_.accumulate ? 1 : 0;
    cublasLtMatmulDesc_t created = nullptr;
    lt_.check(lt_.desc_create(&created, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
    made_.operation = Operation(created, lt_.desc_destroy);
    const auto set = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
      const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      lt_.check(lt_.desc_set(created, which, &operation, sizeof operation), "transpose");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, first_.transposed);
    set(CUBLASLT_MATMUL_DESC_TRANSB, second_.transposed);
  }

  Layout layout(DType dtype, const ColumnMajor& matrix, int64_t batch_stride) const {
    cublasLtMatrixLayout_t created = nullptr;
    lt_.check(lt_.layout_create(&created, data_type(dtype), static_cast<uint64_t>(matrix.rows),
                                static_cast<uint64_t>(matrix.columns), matrix.leading),
              "describe an operand");
    Layout result(created, lt_.layout_destroy);
    const auto batch = static_cast<int32_t>(p_.batch);
    lt_.check(lt_.layout_set(created, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "batch");
    lt_.check(lt_.layout_set(created, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                             sizeof batch_stride),
              "batch");
    return result;
  }

  Preference preference(uint32_t alignment) const {
    cublasLtMatmulPreference_t created = nullptr;
    lt_.check(lt_.preference_create(&created), "take a preference");
    Preference result(created, lt_.preference_destroy);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      lt_.check(lt_.preference_set(created, which, &value, sizeof value), "take a preference");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(Gpu::kProductWorkspace));
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
    for (const cublasLtMatmulPreferenceAttributes_t operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(operand, alignment);
    return result;
  }

  const Library& lt_;
  Product p_;
  ColumnMajor first_ = column_major(p_.b, p_.k, p_.n);
  ColumnMajor second_ = column_major(p_.a, p_.m, p_.k);
  ColumnMajor result_{p_.n, p_.m, std::max(p_.c.row_stride, p_.n), false};
  Prepared made_;
};

// ---- the choice

// Fills memory with numbers near one in size, none like the next: a GPU multiplies zeros faster. A first part
// comes from the host and doubles until it has filled the rest.
void fill(std::byte* memory, size_t bytes, DType dtype, cudaStream_t stream) {
  constexpr size_t kPart = 1 << 16;
  std::vector<std::byte> part(std::min(bytes, kPart));
  const auto width = static_cast<size_t>(size_of(dtype));
  std::minstd_rand random;
  for (size_t i = 0; i < part.size(); i += width) {
    const auto number = static_cast<uint32_t>(random());
    const float x = std::bit_cast<float>(0x3F000000 | (number & 0x7FFFFF) | (number >> 23 & 1) << 31);
    const bf16 narrow = to_bf16(x);
    std::memcpy(&part[i], width == sizeof narrow ? static_cast<const void*>(&narrow) : &x, width);
  }
  cudaMemcpyAsync(memory, part.data(), part.size(), cudaMemcpyHostToDevice, stream);
  for (size_t done = part.size(); done < bytes; done *= 2)
    cudaMemcpyAsync(memory + done, memory, std::min(done, bytes - done), cudaMemcpyDeviceToDevice, stream);
}

// Scratch operands to try algorithms on; null when they do not fit.
std::shared_ptr<void> scratch(const MatrixLayout& m, int64_t rows, int64_t columns, int64_t batch,
                              cudaStream_t stream) {
  const int64_t elements =
      (rows - 1) * m.row_stride + (columns - 1) * m.col_stride + (batch - 1) * m.batch_stride + 1;
  const auto bytes = static_cast<size_t>(elements * size_of(m.dtype));
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  fill(static_cast<std::byte*>(memory), bytes, m.dtype, stream);
  return {memory, [](void* p) { cudaFree(p); }};
}

// Seconds of `run`, the best of several; nothing when it fails.
std::optional<float> best_time(cudaStream_t stream, const std::function<bool()>& run) {
  cudaEvent_t start = nullptr, stop = nullptr;
  cudaEventCreate(&start);
  cudaEventCreate(&stop);
  std::optional<float> best;
  for (int i = 0; i < kTimedRuns; ++i) {
    cudaEventRecord(start, stream);
    const bool ran = run();
    cudaEventRecord(stop, stream);
    float time = 0;
    if (!ran || cudaEventSynchronize(stop) != cudaSuccess ||
        cudaEventElapsedTime(&time, start, stop) != cudaSuccess)
      break;
    best = best ? std::min(*best, time) : time;
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  return best;
}

// Everything that decides which algorithm is fastest.
std::string cache_name(const Product& p, uint32_t alignment, const std::string& gpu, size_t version) {
  const auto layout = [](const MatrixLayout& m) {
    return fmt::format("{} {} {} {}", name(m.dtype), m.row_stride, m.col_stride, m.batch_stride);
  };
  const std::string text =
      fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {}", gpu, version, kReductions, Gpu::kProductWorkspace,
                  alignment, p.batch, p.m, p.n, p.k, layout(p.a), layout(p.b), layout(p.c), p.accumulate);
  return fmt::format("product-{:016x}", hash(text));
}

// An algorithm as the cache keeps it: valid for the same version of the library.
struct Choice {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes;
};

std::optional<Choice> read_choice(const std::string& file) {
  const std::string bytes = read_cached(file);
  Choice choice;
  if (bytes.size() != sizeof choice) return {};
  std::memcpy(&choice, bytes.data(), sizeof choice);
  if (choice.workspace_bytes > Gpu::kProductWorkspace) return {};  // the file has been damaged
  return choice;
}

void write_choice(const std::string& file, const Choice& choice) {
  write_cached(file, {reinterpret_cast<const char*>(&choice), sizeof choice});
}

// The candidate for which `run` takes least time; the first when none can be timed.
Choice fastest(const std::vector<cublasLtMatmulHeuristicResult_t>& candidates, cudaStream_t stream,
               const std::function<bool(const Choice&)>& run) {
  Choice best{candidates[0].algo, candidates[0].workspaceSize};
  std::optional<float> least;
  for (const cublasLtMatmulHeuristicResult_t& candidate : candidates) {
    const Choice choice{candidate.algo, candidate.workspaceSize};
    const std::optional<float> time = best_time(stream, [&] { return run(choice); });
    if (!time || (least && *time >= *least)) continue;
    least = time;
    best = choice;
  }
  return best;
}

}  // namespace

Cublas::Cublas(cudaStream_t stream, std::string gpu)
    : library_(std::make_shared<Library>()), stream_(stream), gpu_(std::move(gpu)) {}
Cublas::~Cublas() = default;

Launch Cublas::product(const Product& p, const void* a, const void* b, void* c, void* workspace) const {
  const uint32_t alignment = common_alignment(p, {a, b, c});
  Preparation preparation(*library_, p);
  const auto made = std::make_shared<Prepared>(preparation.made());
  const auto run = [made, library = library_, stream = stream_, workspace](
                       const Choice& choice, const void* a_data, const void* b_data, void* c_data) {
    return library->matmul(library->handle, made->operation.get(), &made->alpha, b_data, made->first.get(),
                           a_data, made->second.get(), &made->beta, c_data, made->result.get(), c_data,
                           made->result.get(), &choice.algorithm, workspace, choice.workspace_bytes, stream);
  };

  const std::string file = cache_name(p, alignment, gpu_, library_->version());
  std::optional<Choice> choice = read_choice(file);
  if (!choice) {
    const auto candidates = preparation.candidates(alignment);
    choice = Choice{candidates[0].algo, candidates[0].workspaceSize};
    if (has_cache()) {
      const auto first = scratch(p.a, p.m, p.k, p.batch, stream_),
                 second = scratch(p.b, p.k, p.n, p.batch, stream_),
                 result = scratch(p.c, p.m, p.n, p.batch, stream_);
      if (first && second && result) {
        choice = fastest(candidates, stream_, [&](const Choice& tried) {
          return run(tried, first.get(), second.get(), result.get()) == CUBLAS_STATUS_SUCCESS;
        });
        write_choice(file, *choice);
      }
    }
  }
  return [run, choice = *choice, library = library_, a, b, c] {
    library->check(run(choice, a, b, c), "multiply");
  };
}

}  // namespace nf::cuda
