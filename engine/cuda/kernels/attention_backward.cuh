// Attention backward (FlashAttention-2: Dao, 2023), the weights computed anew from q, k and logsumexp:
//   P = exp(S - logsumexp),  dV = (P D)^T dO,  dP = dO V^T,  dS = P (dP D - delta) cap',  dK = dS^T Q,  dQ =
//   dS K
// with D the factors of dropout and delta = rowsum(dO O). One kernel holds keys and walks over the queries
// that see them (dK and dV, over the heads of the group too), another holds queries and walks over their keys
// (dQ): every sum has one owner and one order, at the price of two products computed twice.
#pragma once

#include "attention_common.cuh"

namespace nf::cuda {

// So many lanes per row of out (a power of two), which take `step` elements at a time.
template <typename T, int warps, int lanes, int step>
__device__ void attention_delta(const AttentionParams& p) {
  const int64_t rows = int64_t(p.batch) * p.heads * p.queries,
                own_row = (int64_t(blockIdx.x) * warps * 32 + threadIdx.x) / lanes;
  const int64_t row = own_row < rows ? own_row : rows - 1;  // of whose sum nothing comes
  const int query = int(row % p.queries), head = int(row / p.queries % p.heads),
            batch = int(row / p.queries / p.heads);
  const Rows<const T> out(p.out, batch, head), grad_out(p.grad_out, batch, head);
  const T *a = out.data + query * out.stride, *b = grad_out.data + query * grad_out.stride;
  float sum = 0;
  for (int column = threadIdx.x % lanes * step; column < p.value_width; column += lanes * step) {
    const auto x = load_vector<step>(a + column), y = load_vector<step>(b + column);
#pragma unroll
    for (int i = 0; i < step; ++i) sum += to_float(x.items[i]) * to_float(y.items[i]);
  }
  sum = warp_reduce<Sum, lanes>(sum);
  if (threadIdx.x % lanes == 0 && own_row < rows) p.delta[row] = sum;
}

// dK and dV of 16 keys per warp. blockIdx.x: (batch, kv head, tile of keys), those that are seen most first.
// Everything is transposed: keys are rows, so that the weights leave the first product as the second one's
// left factor. Wide heads have no room for both sums: they take a launch for each.
template <typename A, int warps, int tile_queries, bool with_keys, bool with_values>
__device__ void attention_backward_keys(const AttentionParams& p) {
  using T = typename A::Element;
  constexpr int kThreads = 32 * warps, kRows = 16 * warps;
  constexpr int kKeyWidth = A::kKeyWidth, kValueWidth = A::kValueWidth;
  constexpr int kKeyStride = kTileStride<T, kKeyWidth>, kValueStride = kTileStride<T, kValueWidth>;
  static_assert(tile_queries <= kThreads, "a thread per query brings its statistics");
  T* const k_tile = reinterpret_cast<T*>(dynamic_shared());
  T* const v_tile = k_tile + kRows * kKeyStride;
  T* const q_tiles = v_tile + kRows * kValueStride;
  T* const grad_tiles = q_tiles + 2 * tile_queries * kKeyStride;
  __shared__ float shifts[2][tile_queries], deltas[2][tile_queries];

  const int tiles = (p.keys + kRows - 1) / kRows, group = p.heads / p.kv_heads;
  const int tile = blockIdx.x % tiles, kv_head = blockIdx.x / tiles % p.kv_heads,
            batch = blockIdx.x / tiles / p.kv_heads;
  const int first_key = tile * kRows, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_key = first_key + warp * 16;
  const Visibility<A> visibility(p, batch);
  const int key_document[2] = {visibility.document_of_key(warp_key + lane / 4),
                               visibility.document_of_key(warp_key + lane / 4 + 8)};
  const Sight<A>& sight = visibility.sight;
  const Scores<A> scores(p);

  KeyRange queries = sight.queries_of(first_key, first_key + kRows - 1, p.queries);
  if (A::kDocuments)
    queries = meet_documents<WholeBlock<kThreads>>(queries, visibility.q_documents,
                                                   {first_key, min(first_key + kRows, sight.limit)},
                                                   visibility.k_documents);
  const int first_tile = queries.first / tile_queries;
  const int per_head = max(0, (queries.last + tile_queries - 1) / tile_queries - first_tile);
  const int steps = per_head * group;
  const auto head_of = [&](int step) { return kv_head * group + step / per_head; };
  const auto first_query_of = [&](int step) { return (first_tile + step % per_head) * tile_queries; };
  const auto load = [&](int step, int buffer) {
    const Rows<const T> q(p.q, batch, head_of(step)), grad_out(p.grad_out, batch, head_of(step));
    load_tile<kThreads, tile_queries, kKeyWidth, A::kAligned>(q_tiles + buffer * tile_queries * kKeyStride, q,
                                                              first_query_of(step), p.queries, p.key_width);
    load_tile<kThreads, tile_queries, kValueWidth, A::kAligned>(
        grad_tiles + buffer * tile_queries * kValueStride, grad_out, first_query_of(step), p.queries,
        p.value_width);
  };
  float next_shift = infinity(), next_delta = 0;  // of this thread's query of a step
  const auto load_statistics = [&](int step) {
    const int query = first_query_of(step) + int(threadIdx.x);
    const bool inside = threadIdx.x < tile_queries && query < p.queries;
    const int64_t row = (int64_t(batch) * p.heads + head_of(step)) * p.queries + query;
    next_shift = inside ? exponent_shift(p.logsumexp[row]) : infinity();
    next_delta = inside ? p.delta[row] : 0.0f;
  };
  const auto store_statistics = [&](int buffer) {
    if (threadIdx.x >= tile_queries) return;
    shifts[buffer][threadIdx.x] = next_shift;
    deltas[buffer][threadIdx.x] = next_delta;
  };

  float grad_k[1][with_keys ? kKeyWidth / 8 : 1][4] = {},
                                              grad_v[1][with_values ? kValueWidth / 8 : 1][4] = {};
  if (steps > 0) {
    const Rows<const T> k(p.k, batch, kv_head), v(p.v, batch, kv_head);
    load_tile<kThreads, kRows, kKeyWidth, A::kAligned>(k_tile, k, first_key, sight.limit, p.key_width);
    load_tile<kThreads, kRows, kValueWidth, A::kAligned>(v_tile, v, first_key, sight.limit, p.value_width);
    load(0, 0);
    commit_copies();
    load_statistics(0);
    store_statistics(0);
  }
  for (int step = 0, buffer = 0; step < steps; ++step, buffer ^= 1) {
    wait_copies<0>();
    __syncthreads();  // the tile is there, and the one before has been used
    const bool has_next = step + 1 < steps;
    if (has_next) {
      load(step + 1, buffer ^ 1);
      load_statistics(step + 1);
    }
    commit_copies();
    const int first_query = first_query_of(step), last_query = min(first_query + tile_queries, p.queries) - 1;
    const KeyRange any = sight.keys_of_any(first_query, last_query),
                   all = sight.keys_of_all(first_query, last_query);
    if (warp_key < any.last && warp_key + 16 > any.first) {
      const bool is_whole = !A::kDocuments && warp_key >= all.first && warp_key + 16 <= all.last;
      const T* const q_tile = q_tiles + buffer * tile_queries * kKeyStride;
      const T* const grad_tile = grad_tiles + buffer * tile_queries * kValueStride;
      const Dropout<A> dropout(p, batch, head_of(step));
      float s[1][tile_queries / 8][4] = {};
      multiply_transposed<1, tile_queries, kKeyWidth>(s, k_tile + warp * 16 * kKeyStride, q_tile);
      float weights[1][tile_queries / 8][4];  // P, with dropout; s: P times the cap's slope
      uint32_t kept = 0;                      // a bit per element
#pragma unroll
      for (int j = 0; j < tile_queries / 8; ++j)
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const int at = 8 * j + lane % 4 * 2 + column, query = first_query + at;
          const float shift = shifts[buffer][at];
          const int document = visibility.document_of_query(query);
#pragma unroll
          for (int e = column; e < 4; e += 2) {
            const int key = warp_key + lane / 4 + e / 2 * 8;
            float slope, weight = fast_exp2(scores.exponent(s[0][j][e], slope) - shift);
            if (!is_whole && !visibility.sees(query, document, key, key_document[e / 2])) weight = 0;
            const float factor = dropout.factor(query, key);
            if (A::kDropout && factor != 0.0f) kept |= 1u << (4 * j + e);
            weights[0][j][e] = weight * factor;
            s[0][j][e] = weight * slope;
          }
        }
      if constexpr (with_values) multiply<1, tile_queries, kValueWidth>(grad_v, weights, grad_tile);
      if constexpr (with_keys) {
        float grad_s[1][tile_queries / 8][4] = {};
        multiply_transposed<1, tile_queries, kValueWidth>(grad_s, v_tile + warp * 16 * kValueStride,
                                                          grad_tile);
#pragma unroll
        for (int j = 0; j < tile_queries / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float grad = grad_s[0][j][e];
            if (A::kDropout) grad *= kept >> (4 * j + e) & 1 ? dropout.kept : 0.0f;
            grad_s[0][j][e] = s[0][j][e] * (grad - deltas[buffer][8 * j + lane % 4 * 2 + e % 2]);
          }
        multiply<1, tile_queries, kKeyWidth>(grad_k, grad_s, q_tile);
      }
    }
    if (has_next) store_statistics(buffer ^ 1);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = warp_key + half * 8 + lane / 4;
    if (key >= p.keys) continue;
    if constexpr (with_keys) {
      const Rows<T> to(p.grad_k, batch, kv_head);
      store_row<kKeyWidth, A::kAligned>(to.data + key * to.stride, grad_k[0], half, p.scale, p.key_width);
    }
    if constexpr (with_values) {
      const Rows<T> to(p.grad_v, batch, kv_head);
      store_row<kValueWidth, A::kAligned>(to.data + key * to.stride, grad_v[0], half, 1.0f, p.value_width);
    }
  }
}

// dQ of 16 queries per warp. blockIdx.x: (batch, head, tile of queries), those that see most first.
template <typename A, int warps, int tile_keys>
__device__ void attention_backward_queries(const AttentionParams& p) {
  using T = typename A::Element;
  constexpr int kThreads = 32 * warps, kRows = 16 * warps;
  constexpr int kKeyWidth = A::kKeyWidth, kValueWidth = A::kValueWidth;
  constexpr int kKeyStride = kTileStride<T, kKeyWidth>, kValueStride = kTileStride<T, kValueWidth>;
  T* const q_tile = reinterpret_cast<T*>(dynamic_shared());
  T* const grad_tile = q_tile + kRows * kKeyStride;
  T* const k_tiles = grad_tile + kRows * kValueStride;
  T* const v_tiles = k_tiles + 2 * tile_keys * kKeyStride;

  const int tiles = (p.queries + kRows - 1) / kRows;
  const int tile = tiles - 1 - blockIdx.x % tiles, head = blockIdx.x / tiles % p.heads,
            batch = blockIdx.x / tiles / p.heads, kv_head = head / (p.heads / p.kv_heads);
  const int first_query = tile * kRows, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Rows<const T> k(p.k, batch, kv_head), v(p.v, batch, kv_head);
  const Visibility<A> visibility(p, batch);
  const Sight<A>& sight = visibility.sight;
  const Scores<A> scores(p);
  const Dropout<A> dropout(p, batch, head);

  KeyRange keys = sight.keys_of_any(first_query, min(first_query + kRows, p.queries) - 1);
  if (A::kDocuments)
    keys = meet_documents<WholeBlock<kThreads>>(keys, visibility.k_documents,
                                                {first_query, min(first_query + kRows, p.queries)},
                                                visibility.q_documents);
  const int warp_query = first_query + warp * 16, last_query = min(warp_query + 16, p.queries) - 1;
  const bool has_rows = warp_query < p.queries;
  const KeyRange warp_any = sight.keys_of_any(warp_query, last_query),
                 warp_all = sight.keys_of_all(warp_query, last_query);
  int document[2];
  float shift[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = warp_query + half * 8 + lane / 4;
    const int64_t row = (int64_t(batch) * p.heads + head) * p.queries + query;
    document[half] = visibility.document_of_query(query);
    shift[half] = query < p.queries ? exponent_shift(p.logsumexp[row]) : infinity();
    delta[half] = query < p.queries ? p.delta[row] : 0.0f;
  }
  float grad_q[1][kKeyWidth / 8][4] = {};

  const auto load = [&](int first_key, int buffer) {
    load_tile<kThreads, tile_keys, kKeyWidth, A::kAligned>(k_tiles + buffer * tile_keys * kKeyStride, k,
                                                           first_key, sight.limit, p.key_width);
    load_tile<kThreads, tile_keys, kValueWidth, A::kAligned>(v_tiles + buffer * tile_keys * kValueStride, v,
                                                             first_key, sight.limit, p.value_width);
  };
  int buffer = 0, first_key = keys.first / tile_keys * tile_keys;
  if (keys.first < keys.last) {
    const Rows<const T> q(p.q, batch, head), grad_out(p.grad_out, batch, head);
    load_tile<kThreads, kRows, kKeyWidth, A::kAligned>(q_tile, q, first_query, p.queries, p.key_width);
    load_tile<kThreads, kRows, kValueWidth, A::kAligned>(grad_tile, grad_out, first_query, p.queries,
                                                         p.value_width);
    load(first_key, 0);
    commit_copies();
  }
  for (; first_key < keys.last; first_key += tile_keys, buffer ^= 1) {
    wait_copies<0>();
    __syncthreads();  // the tile is there, and the one before has been used
    if (first_key + tile_keys < keys.last) load(first_key + tile_keys, buffer ^ 1);
    commit_copies();
    if (!has_rows || first_key >= warp_any.last || first_key + tile_keys <= warp_any.first) continue;

    const T* const k_tile = k_tiles + buffer * tile_keys * kKeyStride;
    float s[1][tile_keys / 8][4] = {}, grad_s[1][tile_keys / 8][4] = {};
    multiply_transposed<1, tile_keys, kKeyWidth>(s, q_tile + warp * 16 * kKeyStride, k_tile);
    multiply_transposed<1, tile_keys, kValueWidth>(grad_s, grad_tile + warp * 16 * kValueStride,
                                                   v_tiles + buffer * tile_keys * kValueStride);
    const bool is_whole =
        !A::kDocuments && first_key >= warp_all.first && first_key + tile_keys <= warp_all.last;
#pragma unroll
    for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const int key = first_key + 8 * j + lane % 4 * 2 + column;
        const int key_document = visibility.document_of_key(key);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int query = warp_query + half * 8 + lane / 4, e = 2 * half + column;
          float slope, weight = fast_exp2(scores.exponent(s[0][j][e], slope) - shift[half]);
          if (!is_whole && !visibility.sees(query, document[half], key, key_document)) weight = 0;
          grad_s[0][j][e] = weight * slope * (grad_s[0][j][e] * dropout.factor(query, key) - delta[half]);
        }
      }
    multiply<1, tile_keys, kKeyWidth>(grad_q, grad_s, k_tile);
  }

  const Rows<T> to(p.grad_q, batch, head);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = warp_query + half * 8 + lane / 4;
    if (query < p.queries)
      store_row<kKeyWidth, A::kAligned>(to.data + query * to.stride, grad_q[0], half, p.scale, p.key_width);
  }
}

}  // namespace nf::cuda
