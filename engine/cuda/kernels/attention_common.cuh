// What attention's kernels share: which keys a query sees, scores to exponents, dropout, tiles of shared
// memory. Meaning: engine/graph/op_attention.cpp.
#pragma once

#include "attention_product.cuh"

namespace nf::cuda {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

// All that changes a kernel's code. Widths are the heads' rounded up to multiples of 16; `aligned`: every row
// of every tensor begins at a multiple of 16 bytes and is a whole number of 16 bytes long. A window makes
// attention causal.
template <typename T, int key_width, int value_width, bool aligned, bool causal, bool window, bool documents,
          ScoreCap cap, bool dropout>
struct Attention {
  using Element = T;
  static constexpr int kKeyWidth = key_width, kValueWidth = value_width;
  static constexpr bool kAligned = aligned, kCausal = causal || window, kWindow = window,
                        kDocuments = documents, kDropout = dropout;
  static constexpr ScoreCap kCap = cap;
};

// ---- tensors and tiles

template <typename T>
struct Rows {  // of one batch and head
  T* data;
  int64_t stride;

  __device__ __forceinline__ Rows(const AttentionOperand& operand, int batch, int head)
      : data(static_cast<T*>(operand.data) + batch * operand.batch_stride + head * operand.head_stride),
        stride(operand.row_stride) {}
};

// Begins to copy the rows from `first` on into a tile; zeros for rows from `end` on and columns from `width`
// on. The tile can be read after wait_copies and a barrier.
template <int threads, int rows, int padded_width, bool aligned, typename T>
__device__ __forceinline__ void load_tile(T* tile, const Rows<const T>& from, int first, int end, int width) {
  constexpr int kChunk = 16 / int(sizeof(T)), kChunks = padded_width / kChunk;
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * kChunks; i += threads) {
    const int row = i / kChunks, column = i % kChunks * kChunk;
    T* const to = tile + row * kTileStride<T, padded_width> + column;
    const bool inside = first + row < end;
    const T* const source = from.data + (inside ? first + row : 0) * from.stride + column;
    if (aligned) {
      const bool valid = inside && column < width;
      copy_async(to, valid ? source : from.data, valid);
    } else {
#pragma unroll
      for (int e = 0; e < kChunk; ++e) to[e] = inside && column + e < width ? source[e] : T{};
    }
  }
}

// Stores one row of a result in c's layout, times `factor`; `half`: 0 for row `lane / 4`, 1 for the one 8
// below.
template <int padded_width, bool aligned, typename T>
__device__ __forceinline__ void store_row(T* row, const float (&c)[padded_width / 8][4], int half,
                                          float factor, int width) {
#pragma unroll
  for (int j = 0; j < padded_width / 8; ++j) {
    const int column = 8 * j + threadIdx.x % 4 * 2;
    Vector<T, 2> pair;
    from_float(c[j][2 * half] * factor, pair.items[0]);
    from_float(c[j][2 * half + 1] * factor, pair.items[1]);
    if (aligned) {
      if (column < width) store_vector(row + column, pair);
    } else {
      if (column < width) row[column] = pair.items[0];
      if (column + 1 < width) row[column + 1] = pair.items[1];
    }
  }
}

// ---- masks

struct KeyRange {
  int first, last;  // first <= key < last

  __device__ __forceinline__ bool contains(int key) const { return key >= first && key < last; }
};

template <typename A>
struct Sight {
  int limit;     // keys from here on are invisible
  int position;  // of query 0
  int window;

  __device__ __forceinline__ explicit Sight(const AttentionParams& p) : window(p.window) {
    constexpr int kFar = 1 << 29;  // a length from memory may be anything
    const int length = p.length == nullptr ? p.keys : max(-kFar, min(kFar, *p.length));
    limit = max(0, min(length, p.keys));
    position = length - p.queries;
  }

  // Keys that a query sees, documents aside.
  __device__ __forceinline__ KeyRange keys_of(int query) const {
    return {A::kWindow ? max(0, position + query + 1 - window) : 0,
            A::kCausal ? min(limit, position + query + 1) : limit};
  }
  // Keys that any, and that all, of the queries first to last see.
  __device__ __forceinline__ KeyRange keys_of_any(int first, int last) const {
    return {keys_of(first).first, keys_of(last).last};
  }
  __device__ __forceinline__ KeyRange keys_of_all(int first, int last) const {
    return {keys_of(last).first, keys_of(first).last};
  }
  // Queries that see any of the keys first to last.
  __device__ __forceinline__ KeyRange queries_of(int first, int last, int queries) const {
    if (first >= limit) return {0, 0};
    return {A::kCausal ? max(0, first - position) : 0,
            A::kWindow ? min(queries, min(last, limit - 1) + window - position) : queries};
  }
};

// Visibility of single pairs: a key in the query's range, of the same document. Queries without one have
// kNoQuery, keys without one kNoKey, which differ.
template <typename A>
struct Visibility {
  static constexpr int kNoQuery = -1, kNoKey = -2;

  Sight<A> sight;
  const int32_t *q_documents, *k_documents;  // of this batch
  int queries;

  __device__ __forceinline__ Visibility(const AttentionParams& p, int batch)
      : sight(p), q_documents(p.q_documents), k_documents(p.k_documents), queries(p.queries) {
    if (!A::kDocuments) return;
    q_documents += int64_t(batch) * p.queries;
    k_documents += int64_t(batch) * p.keys;
  }

  __device__ __forceinline__ int document_of_query(int query) const {
    return A::kDocuments && query < queries ? max(kNoQuery, q_documents[query]) : kNoQuery;
  }
  __device__ __forceinline__ int document_of_key(int key) const {
    const int document = A::kDocuments && key < sight.limit ? k_documents[key] : kNoKey;
    return document < 0 ? kNoKey : document;
  }
  __device__ __forceinline__ bool sees(int query, int query_document, int key, int key_document) const {
    return sight.keys_of(query).contains(key) && (!A::kDocuments || query_document == key_document);
  }
};

// Threads that work together: their number, this one's, and a barrier of theirs.
template <int threads>
struct WholeBlock {
  static constexpr int kThreads = threads;
  static __device__ __forceinline__ int thread() { return threadIdx.x; }
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};

// The greatest of what a team's threads give, of two numbers at once.
template <typename Team>
__device__ __forceinline__ void team_greatest(int& a, int& b) {
  constexpr int kWarps = Team::kThreads / 32;
  __shared__ int greatest[2][kWarps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    a = max(a, __shfl_xor_sync(kAllLanes, a, offset));
    b = max(b, __shfl_xor_sync(kAllLanes, b, offset));
  }
  Team::sync();  // what was there has been read
  if (Team::thread() % 32 == 0) {
    greatest[0][Team::thread() / 32] = a;
    greatest[1][Team::thread() / 32] = b;
  }
  Team::sync();
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    a = max(a, greatest[0][warp]);
    b = max(b, greatest[1][warp]);
  }
}

// Of the rows `range`, those from the first to the last whose document may be one of the team's own rows':
// rows hold their documents one after another, so that most tiles of the others' need not be visited. All
// threads of the team call it.
template <typename Team>
__device__ __forceinline__ KeyRange meet_documents(KeyRange range, const int32_t* documents,
                                                   KeyRange own_range, const int32_t* own_documents) {
  constexpr int kNone = -0x7FFFFFFF;
  int high = kNone, minus_low = kNone;
  for (int i = own_range.first + Team::thread(); i < own_range.last; i += Team::kThreads) {
    const int document = own_documents[i];
    if (document < 0) continue;
    high = max(high, document);
    minus_low = max(minus_low, -document);
  }
  team_greatest<Team>(high, minus_low);
  int last = kNone, minus_first = kNone;
  for (int i = range.first + Team::thread(); i < range.last; i += Team::kThreads) {
    if (documents[i] > high || documents[i] < -minus_low) continue;
    last = max(last, i);
    minus_first = max(minus_first, -i);
  }
  team_greatest<Team>(last, minus_first);
  return last == kNone ? KeyRange{0, 0} : KeyRange{-minus_first, last + 1};
}

// ---- scores

// tanh for arguments that are bf16 products anyway: absolute error below 1e-6.
__device__ __forceinline__ float fast_tanh(float x) {
  x = x > 12.0f ? 12.0f : x < -12.0f ? -12.0f : x;  // a NaN stays one
  return 1.0f - __fdividef(2.0f, fast_exp2(x * (2 * kLog2E)) + 1.0f);
}
__device__ __forceinline__ float cap_tanh(float x, float) { return tanhf(x); }
__device__ __forceinline__ float cap_tanh(float x, bf16) { return fast_tanh(x); }

// A product <q, k> as exponent of 2: scaled and capped, `unit` times `value`; `slope` becomes the cap's
// derivative.
template <typename A>
struct Scores {
  float scale, cap, unit;

  __device__ __forceinline__ explicit Scores(const AttentionParams& p)
      : scale(A::kCap == ScoreCap::soft ? p.scale / p.cap : p.scale),
        cap(p.cap),
        unit(A::kCap == ScoreCap::none   ? p.scale * kLog2E
             : A::kCap == ScoreCap::soft ? p.cap * kLog2E
                                         : kLog2E) {}

  __device__ __forceinline__ float value(float product, float& slope) const {
    slope = 1.0f;
    if (A::kCap == ScoreCap::none) return product;
    const float x = product * scale;
    if (A::kCap == ScoreCap::soft) {
      const float y = cap_tanh(x, typename A::Element{});
      slope = 1.0f - y * y;
      return y;
    }
    slope = fabsf(x) < cap ? 1.0f : 0.0f;
    return x > cap ? cap : x < -cap ? -cap : x;
  }
  __device__ __forceinline__ float exponent(float product, float& slope) const {
    return value(product, slope) * unit;
  }
};

// What is subtracted from a row's exponents; rows that see nothing have no weights.
__device__ __forceinline__ float exponent_shift(float logsumexp) {
  return logsumexp == -infinity() ? infinity() : logsumexp * kLog2E;
}

// The factors of dropout: 0, or 1 / (1 - p).
template <typename A>
struct Dropout {
  uint64_t first = 0, keys = 0, stream = 0;
  uint32_t key0 = 0, key1 = 0;
  float probability = 0, kept = 1;

  __device__ __forceinline__ Dropout(const AttentionParams& p, int batch, int head) {
    if (!A::kDropout) return;
    first = (uint64_t(batch) * p.heads + head) * p.queries;
    keys = p.keys;
    stream = p.dropout_stream;
    key0 = p.rng[0] ^ (p.rng[2] * 0x9E3779B9u);
    key1 = p.rng[1] ^ (p.rng[3] * 0x85EBCA6Bu);
    probability = p.dropout;
    kept = 1.0f / (1.0f - p.dropout);
  }
  __device__ __forceinline__ float factor(int query, int key) const {
    if (!A::kDropout) return 1.0f;
    const uint32_t word = philox_word((first + query) * keys + key, stream, key0, key1);
    return float(word >> 8) * 0x1p-24f < probability ? 0.0f : kept;
  }
};

// ---- the softmax of rows of scores, in c's layout, a tile of keys at a time

// Where this thread's elements lie: m counts tiles of 16 rows, j tiles of 8 columns.
struct Place {
  int first_row, first_column;  // of the warp's rows and the tile's columns

  __device__ __forceinline__ int row(int m, int e) const {
    return first_row + 16 * m + e / 2 * 8 + threadIdx.x % 32 / 4;
  }
  __device__ __forceinline__ int column(int j, int e) const {
    return first_column + 8 * j + threadIdx.x % 4 * 2 + e % 2;
  }
};

// Makes the scores of keys that a query does not see -infinity. Rows are queries; `documents` are theirs.
template <typename A, int m_tiles, int tiles>
__device__ __forceinline__ void hide_unseen(float (&s)[m_tiles][tiles][4], const Place& place,
                                            const Visibility<A>& visibility,
                                            const int (&documents)[m_tiles][2]) {
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int key = place.column(j, column), key_document = visibility.document_of_key(key);
#pragma unroll
      for (int m = 0; m < m_tiles; ++m)
#pragma unroll
        for (int e = column; e < 4; e += 2)
          if (!visibility.sees(place.row(m, e), documents[m][e / 2], key, key_document))
            s[m][j][e] = -infinity();
    }
}

// Per row the greatest score so far, and the sum of weights relative to it. Scores are exponents of 2 but for
// the factor `unit`, which is not negative.
template <int m_tiles>
struct OnlineSoftmax {
  float unit, largest[m_tiles][2], sum[m_tiles][2];

  __device__ __forceinline__ explicit OnlineSoftmax(float unit) : unit(unit) {
#pragma unroll
    for (int i = 0; i < 2 * m_tiles; ++i) {
      largest[i / 2][i % 2] = -infinity();
      sum[i / 2][i % 2] = 0;
    }
  }

  // Turns scores into weights; what was summed with earlier ones must be multiplied by `rescale`. A NaN among
  // the scores makes a NaN of the sum.
  template <int tiles>
  __device__ __forceinline__ void add(float (&s)[m_tiles][tiles][4], float (&rescale)[m_tiles][2]) {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float high = largest[m][half];
#pragma unroll
        for (int j = 0; j < tiles; ++j) high = fmaxf(high, fmaxf(s[m][j][2 * half], s[m][j][2 * half + 1]));
#pragma unroll
        for (int offset = 2; offset > 0; offset /= 2)
          high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, offset));
        const float shift = high == -infinity() ? 0.0f : high * unit;
        rescale[m][half] = fast_exp2(largest[m][half] * unit - shift);
        largest[m][half] = high;
        sum[m][half] *= rescale[m][half];
#pragma unroll
        for (int j = 0; j < tiles; ++j)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[m][j][e] = fast_exp2(s[m][j][e] * unit - shift);
            sum[m][half] += s[m][j][e];
          }
      }
  }

  template <int tiles>
  static __device__ __forceinline__ void multiply_rows(float (&sums)[m_tiles][tiles][4],
                                                       const float (&factors)[m_tiles][2]) {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m)
#pragma unroll
      for (int j = 0; j < tiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[m][j][e] *= factors[m][e / 2];
  }

  // The sum of a row's weights: 0 when it sees nothing. All lanes get it.
  __device__ __forceinline__ float total(int m, int half) const { return warp_reduce<Sum, 4>(sum[m][half]); }
  // The natural logarithm.
  __device__ __forceinline__ float logsumexp(int m, int half, float total) const {
    return total == 0.0f ? -infinity() : largest[m][half] * unit * kLn2 + logf(total);
  }
};

}  // namespace nf::cuda
