// Attention forward for sm_90a (FlashAttention-3: Shah et al., 2024), bf16, without dropout: a warpgroup
// copies tiles of keys and values into rings of buffers, others hold 64 queries each and walk over the tiles.
// A warpgroup begins the product of a tile's keys before that of the values before it, and turns the scores
// into weights while the latter goes on. Warpgroups take turns in beginning products: one's go on while the
// others make weights, and not all do the same at the same time. A block stays for many lots of queries: the
// next lot's copies begin while one is finished.
#pragma once

#include "attention_sm90.cuh"

namespace nf::cuda {

// `readers`: warpgroups with queries; `buffers`: of keys and of values; `held_buffers`: of queries.
template <typename A, int readers, int tile_keys, int buffers, int held_buffers>
struct ForwardSm90 {
  static constexpr int kRows = 64 * readers, kValuePanels = whole_panels(A::kValueWidth);
  using QueryTile = Panels<kRows, whole_panels(A::kKeyWidth)>;
  using KeyTile = Panels<tile_keys, whole_panels(A::kKeyWidth)>;
  using ValueTile = Panels<tile_keys, kValuePanels>;
  using Turns = ReaderTurns<readers>;

  const AttentionParams& p;
  Ring<held_buffers> query_ring;
  Ring<buffers> key_ring, value_ring;
  KeyRange* keys_to_visit;  // of the lot whose queries are in the ring, for each of its buffers

  __device__ __forceinline__ QueryLot lot(int number) const { return QueryLot(p, number, kRows); }
  __device__ __forceinline__ int lots() const { return QueryLot::count(p, kRows); }
  static __device__ __forceinline__ QueryTile query_tile(int buffer) {
    return {dynamic_shared() + buffer * QueryTile::kBytes};
  }
  __device__ __forceinline__ QueryTile query_tile() const { return query_tile(query_ring.buffer); }
  static __device__ __forceinline__ KeyTile key_tile(int buffer) {
    return {query_tile(held_buffers).data + buffer * KeyTile::kBytes};
  }
  __device__ __forceinline__ KeyTile key_tile() const { return key_tile(key_ring.buffer); }
  __device__ __forceinline__ ValueTile value_tile() const {
    return {key_tile(buffers).data + value_ring.buffer * ValueTile::kBytes};
  }
  // Of the tile in which the key is.
  static __device__ __forceinline__ int tile_start(int key) { return key / tile_keys * tile_keys; }

  __device__ __forceinline__ void fill() {
    for_each_lot(lots(), [&](int number) {
      const QueryLot at = lot(number);
      const Rows<const bf16> q(p.q, at.batch, at.head), k(p.k, at.batch, at.kv_head),
          v(p.v, at.batch, at.kv_head);
      const Visibility<A> visibility(p, at.batch);
      const int limit = visibility.sight.limit;
      const KeyRange keys = at.keys(p, visibility);
      query_ring.wait_empty();
      if (Filler::thread() == 0) {
        keys_to_visit[query_ring.buffer] = keys;
        arrive(query_ring.full());
      }
      load_panels(query_tile(), q.data, q.stride, at.first, p.queries, p.key_width);
      query_ring.filled();
      for (int key = tile_start(keys.first); key < keys.last; key += tile_keys) {
        key_ring.wait_empty();
        load_panels(key_tile(), k.data, k.stride, key, limit, p.key_width);
        key_ring.filled();
        value_ring.wait_empty();
        load_panels(value_tile(), v.data, v.stride, key, limit, p.value_width);
        value_ring.filled();
      }
    });
    query_ring.drain();
    key_ring.drain();
    value_ring.drain();
  }

  __device__ __forceinline__ void read(int warpgroup) {
    Turns::begin();
    for_each_lot(lots(), [&](int number) { read_lot(number, warpgroup); });
    Turns::end();
  }

  // Lets tiles that the warpgroup has no use for pass by, and its turns with them: there is one per tile.
  __device__ __forceinline__ void skip(int from, int to) {
    for (int key = from; key < to; key += tile_keys) {
      Turns::wait();
      Turns::pass();
      key_ring.wait_full();
      key_ring.release();
      value_ring.wait_full();
      value_ring.release();
    }
  }

  __device__ __forceinline__ void read_lot(int number, int warpgroup) {
    const QueryLot at = lot(number);
    const int first_row = 64 * warpgroup, first_query = at.first + first_row,
              last_query = min(first_query + 64, p.queries) - 1,
              warp_query = first_query + threadIdx.x % kWarpgroup / 32 * 16;
    const Visibility<A> visibility(p, at.batch);
    const Scores<A> scores(p);
    const KeyRange all = visibility.sight.keys_of_all(first_query, last_query);
    const int document[1][2] = {{visibility.document_of_query(warp_query + threadIdx.x % 32 / 4),
                                 visibility.document_of_query(warp_query + threadIdx.x % 32 / 4 + 8)}};
    OnlineSoftmax<1> softmax(scores.unit);
    float s[1][tile_keys / 8][4], out[1][kValuePanels / 8][4] = {}, rescale[1][2];
    uint32_t weights[tile_keys / 16][4];

    query_ring.wait_full();
    const KeyRange block = keys_to_visit[query_ring.buffer];
    const int block_start = tile_start(block.first);
    int key = block_start, end = block_start;  // this warpgroup's tiles are those from `key` on, before `end`
    if (first_query < p.queries && block.first < block.last) {
      const KeyRange any = visibility.sight.keys_of_any(first_query, last_query);
      key = max(block_start, tile_start(max(any.first, block.first)));
      end = min(block.last, any.last);
    }
    if (key >= end) key = end = block_start;
    skip(block_start, key);

    const auto begin_scores = [&] {
      begin_products(s[0]);
      multiply_rows<A::kKeyWidth>(s[0], query_tile(), first_row, key_tile());
      commit_products();
    };
    const auto make_weights = [&] {  // of the scores, which are there
      key_ring.release();
      if (key + tile_keys >= end) query_ring.release();
      if (A::kCap != ScoreCap::none) {
#pragma unroll
        for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float slope;
            s[0][j][e] = scores.value(s[0][j][e], slope);
          }
      }
      if (A::kDocuments || key < all.first || key + tile_keys > all.last)
        hide_unseen(s, Place{warp_query, key}, visibility, document);
      softmax.add(s, rescale);
    };
    const auto begin_values = [&] {
      begin_products(out[0], weights);
      multiply_columns(out[0], weights, value_tile());
      commit_products();
    };
    if (key < end) {
      key_ring.wait_full();
      Turns::wait();
      begin_scores();
      Turns::pass();
      finish_products<0>(s[0]);
      make_weights();
      pack_left(weights, s[0]);
      for (key += tile_keys; key < end; key += tile_keys) {
        key_ring.wait_full();
        value_ring.wait_full();
        Turns::wait();
        begin_scores();
        begin_values();
        Turns::pass();
        finish_products<1>(s[0]);
        make_weights();
        finish_products<0>(out[0]);
        value_ring.release();
        softmax.multiply_rows(out, rescale);
        pack_left(weights, s[0]);
      }
      value_ring.wait_full();
      begin_values();
      finish_products<0>(out[0]);
      value_ring.release();
    } else {
      query_ring.release();
    }
    skip(key, block.last);
    store(lot(anew(number)), warp_query, softmax, out[0]);
  }

  __device__ __forceinline__ void store(const QueryLot& lot, int warp_query, const OnlineSoftmax<1>& softmax,
                                        const float (&out)[kValuePanels / 8][4]) const {
    const Rows<bf16> to(p.out, lot.batch, lot.head);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = softmax.total(0, half), factor = total == 0.0f ? 0.0f : 1.0f / total;
      const int query = warp_query + half * 8 + threadIdx.x % 32 / 4;
      if (query >= p.queries) continue;
      if (threadIdx.x % 4 == 0)
        p.logsumexp[(int64_t(lot.batch) * p.heads + lot.head) * p.queries + query] =
            softmax.logsumexp(0, half, total);
      store_row<kValuePanels, true>(to.data + query * to.stride, out, half, factor, p.value_width);
    }
  }
};

// Any number of blocks of 128 * (1 + readers) threads.
template <typename A, int readers, int tile_keys, int buffers, int held_buffers>
__device__ void attention_forward_sm90(const AttentionParams& p) {
  static_assert(A::kAligned && !A::kDropout && (readers == 2 || readers == 3), "what these kernels know");
  using Forward = ForwardSm90<A, readers, tile_keys, buffers, held_buffers>;
  constexpr int kHeldPhases = Ring<held_buffers>::kPhases, kRingPhases = Ring<buffers>::kPhases;
  __shared__ uint64_t phases[kHeldPhases + 2 * kRingPhases];
  __shared__ KeyRange keys_to_visit[held_buffers];
  Forward forward{p, Ring<held_buffers>(phases), Ring<buffers>(phases + kHeldPhases),
                  Ring<buffers>(phases + kHeldPhases + kRingPhases), keys_to_visit};
  if (threadIdx.x == 0) {
    forward.query_ring.begin(4 * readers, 1);
    forward.key_ring.begin(4 * readers);
    forward.value_ring.begin(4 * readers);
  }
  __syncthreads();
  deal_registers<readers, A::kDocuments>([&] { forward.fill(); },
                                         [&](int warpgroup) { forward.read(warpgroup); });
}

}  // namespace nf::cuda
