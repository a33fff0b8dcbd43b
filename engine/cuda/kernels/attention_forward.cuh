// Attention forward (FlashAttention-2: Dao, 2023): a block holds 16 * m_tiles queries per warp and walks over
// the keys that they see, a tile at a time, the next tile on its way while one is used. The softmax is kept
// online in registers: per row the largest exponent so far, and sums relative to it.
#pragma once

#include "attention_common.cuh"

namespace nf::cuda {

// blockIdx.x: (batch, head, tile of queries), those that see most first; blockIdx.y: the split of the keys.
template <typename A, int warps, int m_tiles, int tile_keys>
__device__ void attention_forward(const AttentionParams& p) {
  using T = typename A::Element;
  constexpr int kThreads = 32 * warps, kRows = 16 * m_tiles * warps;
  constexpr int kKeyWidth = A::kKeyWidth, kValueWidth = A::kValueWidth;
  constexpr int kQueryElements = kRows * kTileStride<T, kKeyWidth>,
                kKeyElements = tile_keys * kTileStride<T, kKeyWidth>,
                kValueElements = tile_keys * kTileStride<T, kValueWidth>;
  T* const q_tile = reinterpret_cast<T*>(dynamic_shared());
  T* const k_tiles = q_tile + kQueryElements;
  T* const v_tiles = k_tiles + 2 * kKeyElements;

  const int tiles = (p.queries + kRows - 1) / kRows;
  const int tile = tiles - 1 - blockIdx.x % tiles, head = blockIdx.x / tiles % p.heads,
            batch = blockIdx.x / tiles / p.heads, kv_head = head / (p.heads / p.kv_heads);
  const int first_query = tile * kRows, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Rows<const T> q(p.q, batch, head), k(p.k, batch, kv_head), v(p.v, batch, kv_head);
  const Visibility<A> visibility(p, batch);
  const Sight<A>& sight = visibility.sight;
  const Scores<A> scores(p);
  const Dropout<A> dropout(p, batch, head);

  // Keys of the block, and what concerns the warp's and the thread's own rows.
  KeyRange keys = sight.keys_of_any(first_query, min(first_query + kRows, p.queries) - 1);
  if (p.splits > 1) {
    keys.first = max(keys.first, int(blockIdx.y) * p.split_keys);
    keys.last = min(keys.last, int(blockIdx.y + 1) * p.split_keys);
  }
  if (A::kDocuments)
    keys = meet_documents<WholeBlock<kThreads>>(keys, visibility.k_documents,
                                                {first_query, min(first_query + kRows, p.queries)},
                                                visibility.q_documents);
  const int warp_query = first_query + warp * 16 * m_tiles,
            last_query = min(warp_query + 16 * m_tiles, p.queries) - 1;
  const bool has_rows = warp_query < p.queries;
  const KeyRange warp_any = sight.keys_of_any(warp_query, last_query),
                 warp_all = sight.keys_of_all(warp_query, last_query);
  int document[m_tiles][2];
#pragma unroll
  for (int m = 0; m < m_tiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      document[m][half] = visibility.document_of_query(warp_query + m * 16 + half * 8 + lane / 4);
  OnlineSoftmax<m_tiles> softmax(1.0f);
  float out[m_tiles][kValueWidth / 8][4] = {};

  const auto load = [&](int first_key, int buffer) {
    load_tile<kThreads, tile_keys, kKeyWidth, A::kAligned>(k_tiles + buffer * kKeyElements, k, first_key,
                                                           sight.limit, p.key_width);
    load_tile<kThreads, tile_keys, kValueWidth, A::kAligned>(v_tiles + buffer * kValueElements, v, first_key,
                                                             sight.limit, p.value_width);
  };
  int buffer = 0, first_key = keys.first / tile_keys * tile_keys;
  if (keys.first < keys.last) {
    load_tile<kThreads, kRows, kKeyWidth, A::kAligned>(q_tile, q, first_query, p.queries, p.key_width);
    load(first_key, 0);
    commit_copies();
  }
  for (; first_key < keys.last; first_key += tile_keys, buffer ^= 1) {
    wait_copies<0>();
    __syncthreads();  // the tile is there, and the one before has been used
    if (first_key + tile_keys < keys.last) load(first_key + tile_keys, buffer ^ 1);
    commit_copies();
    if (!has_rows || first_key >= warp_any.last || first_key + tile_keys <= warp_any.first) continue;

    float s[m_tiles][tile_keys / 8][4] = {};
    multiply_transposed<m_tiles, tile_keys, kKeyWidth>(
        s, q_tile + warp * 16 * m_tiles * kTileStride<T, kKeyWidth>, k_tiles + buffer * kKeyElements);
    const Place place{warp_query, first_key};
#pragma unroll
    for (int m = 0; m < m_tiles; ++m)
#pragma unroll
      for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float slope;
          s[m][j][e] = scores.exponent(s[m][j][e], slope);
        }
    if (A::kDocuments || first_key < warp_all.first || first_key + tile_keys > warp_all.last)
      hide_unseen(s, place, visibility, document);
    float rescale[m_tiles][2];
    softmax.add(s, rescale);
    softmax.multiply_rows(out, rescale);
    if (A::kDropout) {
#pragma unroll
      for (int m = 0; m < m_tiles; ++m)
#pragma unroll
        for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) s[m][j][e] *= dropout.factor(place.row(m, e), place.column(j, e));
    }
    multiply<m_tiles, tile_keys, kValueWidth>(out, s, v_tiles + buffer * kValueElements);
  }

#pragma unroll
  for (int m = 0; m < m_tiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = softmax.total(m, half), logsumexp = softmax.logsumexp(m, half, total);
      const float factor = total == 0.0f ? 0.0f : 1.0f / total;
      const int query = warp_query + m * 16 + half * 8 + lane / 4;
      if (query >= p.queries) continue;
      const int64_t row = (int64_t(batch) * p.heads + head) * p.queries + query;
      if (p.splits > 1) {
        const int64_t part = int64_t(blockIdx.y) * p.batch * p.heads * p.queries + row;
        if (lane % 4 == 0) p.partial_logsumexp[part] = logsumexp;
        store_row<kValueWidth, false>(p.partial_out + part * p.value_width, out[m], half, factor,
                                      p.value_width);
      } else {
        const Rows<T> to(p.out, batch, head);
        if (lane % 4 == 0) p.logsumexp[row] = logsumexp;
        store_row<kValueWidth, A::kAligned>(to.data + query * to.stride, out[m], half, factor, p.value_width);
      }
    }
}

// The splits' results into one, a warp per row.
template <typename T, int warps>
__device__ void attention_combine(const AttentionParams& p) {
  const int64_t rows = int64_t(p.batch) * p.heads * p.queries,
                row = int64_t(blockIdx.x) * warps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  float largest = -infinity(), total = 0;
  for (int split = 0; split < p.splits; ++split)
    largest = Max::combine(largest, p.partial_logsumexp[split * rows + row]);
  const float shift = largest == -infinity() ? 0.0f : largest;
  for (int split = 0; split < p.splits; ++split)
    total += fast_exp2((p.partial_logsumexp[split * rows + row] - shift) * kLog2E);
  const float factor = total == 0.0f ? 0.0f : 1.0f / total;
  if (lane == 0) p.logsumexp[row] = total == 0.0f ? -infinity() : largest + logf(total);
  const Rows<T> to(p.out, int(row / p.queries / p.heads), int(row / p.queries % p.heads));
  for (int column = lane; column < p.value_width; column += 32) {
    float sum = 0;
    for (int split = 0; split < p.splits; ++split)
      sum += fast_exp2((p.partial_logsumexp[split * rows + row] - shift) * kLog2E) *
             p.partial_out[(split * rows + row) * p.value_width + column];
    from_float(sum * factor, to.data[row % p.queries * to.stride + column]);
  }
}

}  // namespace nf::cuda
