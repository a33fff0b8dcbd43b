// Attention backward for sm_90a, bf16, without dropout: the formulas and the two kernels of
// attention_backward.cuh, by warpgroups. Seven products of queries x keys x width where one kernel with
// floating-point atomics would need five. While a warpgroup makes weights of scores, and gradients of scores
// of gradients of weights, a product of its own is under way, and those of the others.
#pragma once

#include "attention_sm90.cuh"

namespace nf::cuda {

// Where tiles lie in dynamic shared memory: buffers of what is held, of key and of value width, then buffers
// of both of what is walked over, then for each of these `numbers` floats.
template <typename A, int held_rows, int held_buffers, int rows, int buffers, int numbers>
struct BackwardTiles {
  using HeldKeyWidth = Panels<held_rows, whole_panels(A::kKeyWidth)>;
  using HeldValueWidth = Panels<held_rows, whole_panels(A::kValueWidth)>;
  using KeyWidth = Panels<rows, whole_panels(A::kKeyWidth)>;
  using ValueWidth = Panels<rows, whole_panels(A::kValueWidth)>;

  static __device__ __forceinline__ HeldKeyWidth held_key_width(int buffer) {
    return {dynamic_shared() + buffer * HeldKeyWidth::kBytes};
  }
  static __device__ __forceinline__ HeldValueWidth held_value_width(int buffer) {
    return {held_key_width(held_buffers).data + buffer * HeldValueWidth::kBytes};
  }
  static __device__ __forceinline__ KeyWidth key_width(int buffer) {
    return {held_value_width(held_buffers).data + buffer * KeyWidth::kBytes};
  }
  static __device__ __forceinline__ ValueWidth value_width(int buffer) {
    return {key_width(buffers).data + buffer * ValueWidth::kBytes};
  }
  static __device__ __forceinline__ float* floats(int buffer) {
    return reinterpret_cast<float*>(value_width(buffers).data) + buffer * numbers;
  }
};

// Code for each value of a condition, which is the same for the whole warp.
template <bool value>
struct Known {
  static constexpr bool kValue = value;
};
template <typename Run>
__device__ __forceinline__ void with_or_without(bool condition, const Run& run) {
  if (condition)
    run(Known<true>{});
  else
    run(Known<false>{});
}

// dK and dV: readers hold 64 keys, rows of transposed scores, and walk over the queries that see any of the
// lot's.
template <typename A, int readers, int tile_queries, int buffers, int held_buffers>
struct BackwardKeysSm90 {
  static constexpr int kRows = 64 * readers;
  using Tiles = BackwardTiles<A, kRows, held_buffers, tile_queries, buffers, 2 * tile_queries>;
  static_assert(2 * tile_queries <= kWarpgroup, "a thread per query brings each of its statistics");
  const AttentionParams& p;
  Ring<held_buffers> held;
  Ring<buffers> ring;
  KeyRange* queries_to_visit;  // of the lot that is held, for each buffer

  struct Lot {
    int batch, part, first_key;  // parts of all groups
  };
  __device__ __forceinline__ int parts() const { return p.kv_heads * p.key_parts; }
  __device__ __forceinline__ Lot lot(int number) const {
    const LotPlace place(number, (p.keys + kRows - 1) / kRows, p.batch * parts(), p.section);
    return {place.head / parts(), place.head % parts(), place.rank * kRows};  // the first are seen most
  }
  __device__ __forceinline__ int lots() const { return (p.keys + kRows - 1) / kRows * parts() * p.batch; }
  // Calls visit(head, first query) for each tile.
  template <typename Visit>
  __device__ __forceinline__ void walk(const Lot& lot, const KeyRange& queries, const Visit& visit) const {
    for (int left = p.heads / parts(); left > 0; --left)  // of the part's heads
      for (int query = queries.first / tile_queries * tile_queries; query < queries.last;
           query += tile_queries)
        visit((lot.part + 1) * (p.heads / parts()) - left, query);
  }

  __device__ __forceinline__ void fill() {
    for_each_lot(lots(), [&](int number) { fill_lot(lot(number)); });
    held.drain();
    ring.drain();
  }

  __device__ __forceinline__ void fill_lot(const Lot& lot) {
    const Visibility<A> visibility(p, lot.batch);
    const int limit = visibility.sight.limit, first_key = lot.first_key;
    KeyRange queries = visibility.sight.queries_of(first_key, first_key + kRows - 1, p.queries);
    if (A::kDocuments)
      queries = meet_documents<Filler>(queries, visibility.q_documents,
                                       {first_key, min(first_key + kRows, limit)}, visibility.k_documents);
    held.wait_empty();
    if (Filler::thread() == 0) {
      queries_to_visit[held.buffer] = queries;
      arrive(held.full());
    }
    const int kv_head = lot.part / p.key_parts;
    const Rows<const bf16> k(p.k, lot.batch, kv_head), v(p.v, lot.batch, kv_head);
    load_panels(Tiles::held_key_width(held.buffer), k.data, k.stride, first_key, limit, p.key_width);
    load_panels(Tiles::held_value_width(held.buffer), v.data, v.stride, first_key, limit, p.value_width);
    held.filled();
    walk(lot, queries, [&](int head, int query) {
      const Rows<const bf16> q(p.q, lot.batch, head), grad_out(p.grad_out, lot.batch, head);
      ring.wait_empty();
      load_panels(Tiles::key_width(ring.buffer), q.data, q.stride, query, p.queries, p.key_width);
      load_panels(Tiles::value_width(ring.buffer), grad_out.data, grad_out.stride, query, p.queries,
                  p.value_width);
      // Rows past the last query are zeros with statistics of 0, which give gradients of 0.
      const int thread = Filler::thread(), own_query = query + thread % tile_queries;
      if (thread < 2 * tile_queries) {
        const float* const from = thread < tile_queries ? p.logsumexp : p.delta;
        const bool valid = own_query < p.queries;
        const int64_t row = (int64_t(lot.batch) * p.heads + head) * p.queries + own_query;
        copy_word_async(Tiles::floats(ring.buffer) + thread, valid ? from + row : from, valid);
      }
      ring.filled();
    });
  }

  __device__ __forceinline__ void read(int warpgroup) {
    for_each_lot(lots(), [&](int number) { read_lot(number, warpgroup); });
  }

  __device__ __forceinline__ void read_lot(int number, int warpgroup) {
    const Lot at = lot(number);
    const int first_row = 64 * warpgroup;
    const int warp_key = at.first_key + first_row + threadIdx.x % kWarpgroup / 32 * 16,
              row = threadIdx.x % 32 / 4;
    const Visibility<A> visibility(p, at.batch);
    const Scores<A> scores(p);
    const int document[2] = {visibility.document_of_key(warp_key + row),
                             visibility.document_of_key(warp_key + row + 8)};
    float grad_k[whole_panels(A::kKeyWidth) / 8][4] = {}, grad_v[whole_panels(A::kValueWidth) / 8][4] = {};

    held.wait_full();
    const KeyRange queries = queries_to_visit[held.buffer];
    walk(at, queries, [&](int, int first_query) {
      const auto q = Tiles::key_width(ring.buffer);
      const auto grad_out = Tiles::value_width(ring.buffer);
      const float* const statistics = Tiles::floats(ring.buffer);
      float s[tile_queries / 8][4], grad_s[tile_queries / 8][4];
      uint32_t weights[tile_queries / 16][4], grad_weights[tile_queries / 16][4];
      ring.wait_full();
      begin_products(s, grad_s);
      multiply_rows<A::kKeyWidth>(s, Tiles::held_key_width(held.buffer), first_row, q);
      commit_products();
      multiply_rows<A::kValueWidth>(grad_s, Tiles::held_value_width(held.buffer), first_row, grad_out);
      commit_products();
      finish_products<1>(s);

      const KeyRange all =
          visibility.sight.keys_of_all(first_query, min(first_query + tile_queries, p.queries) - 1);
      const bool is_whole = !A::kDocuments && warp_key >= all.first && warp_key + 16 <= all.last;
      const Place place{first_query, first_query};
      const int own_column = threadIdx.x % 4 * 2;
      with_or_without(is_whole, [&](auto whole) {
#pragma unroll
        for (int j = 0; j < tile_queries / 8; ++j) {
          const auto logsumexp = load_vector<2>(statistics + 8 * j + own_column);
          float weight[4];
#pragma unroll
          for (int column = 0; column < 2; ++column) {
            const int query = place.column(j, column);
            const float shift = logsumexp.items[column] * kLog2E;
            const int query_document = visibility.document_of_query(query);
#pragma unroll
            for (int e = column; e < 4; e += 2) {
              float slope;
              weight[e] = fast_exp2(scores.value(s[j][e], slope) * scores.unit - shift);
              if (!whole.kValue &&
                  !visibility.sees(query, query_document, warp_key + row + e / 2 * 8, document[e / 2]))
                weight[e] = 0;
              s[j][e] = weight[e] * slope;
            }
          }
          pack_half(weights[j / 2], weight, j % 2);
        }
      });
      begin_products(grad_v, weights);
      multiply_columns(grad_v, weights, grad_out);
      commit_products();
      finish_products<1>(grad_s);
#pragma unroll
      for (int j = 0; j < tile_queries / 8; ++j) {
        const auto delta = load_vector<2>(statistics + tile_queries + 8 * j + own_column);
#pragma unroll
        for (int e = 0; e < 4; ++e) grad_s[j][e] = s[j][e] * (grad_s[j][e] - delta.items[e % 2]);
      }
      pack_left(grad_weights, grad_s);
      begin_products(grad_k, grad_weights);
      multiply_columns(grad_k, grad_weights, q);
      commit_products();
      finish_products<0>(grad_k, grad_v);  // there are no registers for one that goes on amid the next step
      ring.release();
    });
    held.release();

    store(lot(anew(number)), warp_key, grad_k, grad_v);
  }

  template <int key_tiles, int value_tiles>
  __device__ __forceinline__ void store(const Lot& lot, int warp_key, const float (&grad_k)[key_tiles][4],
                                        const float (&grad_v)[value_tiles][4]) const {
    const int kv_head = lot.part / p.key_parts;
    const int64_t first_row = (int64_t(lot.batch) * parts() + lot.part) * p.keys;  // of partial sums
    const Rows<bf16> to_k(p.grad_k, lot.batch, kv_head), to_v(p.grad_v, lot.batch, kv_head);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = warp_key + threadIdx.x % 32 / 4 + half * 8;
      if (key >= p.keys) continue;
      if (p.key_parts > 1) {
        store_row<8 * key_tiles, true>(p.partial_grad_k + (first_row + key) * p.key_width, grad_k, half,
                                       p.scale, p.key_width);
        store_row<8 * value_tiles, true>(p.partial_grad_v + (first_row + key) * p.value_width, grad_v, half,
                                         1.0f, p.value_width);
      } else {
        store_row<8 * key_tiles, true>(to_k.data + key * to_k.stride, grad_k, half, p.scale, p.key_width);
        store_row<8 * value_tiles, true>(to_v.data + key * to_v.stride, grad_v, half, 1.0f, p.value_width);
      }
    }
  }
};

// dQ: readers hold 64 queries and walk over the keys that the lot's see.
template <typename A, int readers, int tile_keys, int buffers, int held_buffers>
struct BackwardQueriesSm90 {
  static constexpr int kRows = 64 * readers;
  using Tiles = BackwardTiles<A, kRows, held_buffers, tile_keys, buffers, 0>;

  const AttentionParams& p;
  Ring<held_buffers> held;
  Ring<buffers> ring;
  KeyRange* keys_to_visit;  // of the lot that is held, for each buffer

  __device__ __forceinline__ QueryLot lot(int number) const { return QueryLot(p, number, kRows); }
  __device__ __forceinline__ int lots() const { return QueryLot::count(p, kRows); }
  static __device__ __forceinline__ int tile_start(int key) { return key / tile_keys * tile_keys; }

  __device__ __forceinline__ void fill() {
    for_each_lot(lots(), [&](int number) {
      const QueryLot at = lot(number);
      const Visibility<A> visibility(p, at.batch);
      const KeyRange keys = at.keys(p, visibility);
      held.wait_empty();
      if (Filler::thread() == 0) {
        keys_to_visit[held.buffer] = keys;
        arrive(held.full());
      }
      const Rows<const bf16> q(p.q, at.batch, at.head), grad_out(p.grad_out, at.batch, at.head),
          k(p.k, at.batch, at.kv_head), v(p.v, at.batch, at.kv_head);
      load_panels(Tiles::held_key_width(held.buffer), q.data, q.stride, at.first, p.queries, p.key_width);
      load_panels(Tiles::held_value_width(held.buffer), grad_out.data, grad_out.stride, at.first, p.queries,
                  p.value_width);
      held.filled();
      for (int key = tile_start(keys.first); key < keys.last; key += tile_keys) {
        ring.wait_empty();
        load_panels(Tiles::key_width(ring.buffer), k.data, k.stride, key, visibility.sight.limit,
                    p.key_width);
        load_panels(Tiles::value_width(ring.buffer), v.data, v.stride, key, visibility.sight.limit,
                    p.value_width);
        ring.filled();
      }
    });
    held.drain();
    ring.drain();
  }

  __device__ __forceinline__ void read(int warpgroup) {
    for_each_lot(lots(), [&](int number) { read_lot(number, warpgroup); });
  }

  __device__ __forceinline__ void read_lot(int number, int warpgroup) {
    const QueryLot at = lot(number);
    const int first_row = 64 * warpgroup, first_query = at.first + first_row;
    const int warp_query = first_query + threadIdx.x % kWarpgroup / 32 * 16, row = threadIdx.x % 32 / 4;
    const Visibility<A> visibility(p, at.batch);
    const Scores<A> scores(p);
    const KeyRange all = visibility.sight.keys_of_all(first_query, min(first_query + 64, p.queries) - 1);
    int document[2];
    float shift[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = warp_query + half * 8 + row;
      const bool inside = query < p.queries;
      const int64_t row_of_all = (int64_t(at.batch) * p.heads + at.head) * p.queries + query;
      document[half] = visibility.document_of_query(query);
      shift[half] = inside ? exponent_shift(p.logsumexp[row_of_all]) : infinity();
      delta[half] = inside ? p.delta[row_of_all] : 0.0f;
    }
    float grad_q[whole_panels(A::kKeyWidth) / 8][4] = {};
    uint32_t grad_weights[tile_keys / 16][4];

    held.wait_full();
    const KeyRange keys = keys_to_visit[held.buffer];
    bool is_first = true;  // afterwards, products of the last buffer are under way
    for (int first_key = tile_start(keys.first); first_key < keys.last; first_key += tile_keys) {
      const auto k = Tiles::key_width(ring.buffer);
      float s[tile_keys / 8][4], grad_s[tile_keys / 8][4];
      ring.wait_full();
      begin_products(s, grad_s);
      multiply_rows<A::kKeyWidth>(s, Tiles::held_key_width(held.buffer), first_row, k);
      commit_products();
      multiply_rows<A::kValueWidth>(grad_s, Tiles::held_value_width(held.buffer), first_row,
                                    Tiles::value_width(ring.buffer));
      commit_products();
      finish_products<1>(s, grad_q);
      if (!is_first) ring.release_last();
      is_first = false;

      const bool is_whole = !A::kDocuments && first_key >= all.first && first_key + tile_keys <= all.last;
      const Place place{warp_query, first_key};
      with_or_without(is_whole, [&](auto whole) {
#pragma unroll
        for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
          for (int column = 0; column < 2; ++column) {
            const int key = place.column(j, column), key_document = visibility.document_of_key(key);
#pragma unroll
            for (int e = column; e < 4; e += 2) {
              float slope, weight = fast_exp2(scores.value(s[j][e], slope) * scores.unit - shift[e / 2]);
              if (!whole.kValue && !visibility.sees(place.row(0, e), document[e / 2], key, key_document))
                weight = 0;
              s[j][e] = weight * slope;
            }
          }
      });
      finish_products<0>(grad_s);
#pragma unroll
      for (int j = 0; j < tile_keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) grad_s[j][e] = s[j][e] * (grad_s[j][e] - delta[e / 2]);
      pack_left(grad_weights, grad_s);
      begin_products(grad_q, grad_weights);
      multiply_columns(grad_q, grad_weights, k);
      commit_products();
      ring.advance();
    }
    held.release();
    finish_products<0>(grad_q);
    if (!is_first) ring.release_last();

    const QueryLot done = lot(anew(number));
    const Rows<bf16> to(p.grad_q, done.batch, done.head);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = warp_query + half * 8 + row;
      if (query < p.queries)
        store_row<whole_panels(A::kKeyWidth), true>(to.data + query * to.stride, grad_q, half, p.scale,
                                                    p.key_width);
    }
  }
};

// The parts' sums into one, a warp per key.
template <int warps>
__device__ void attention_sum_parts(const AttentionParams& p) {
  const int64_t row = int64_t(blockIdx.x) * warps + threadIdx.x / 32;
  if (row >= int64_t(p.batch) * p.kv_heads * p.keys) return;
  const int key = int(row % p.keys), kv_head = int(row / p.keys % p.kv_heads),
            batch = int(row / p.keys / p.kv_heads);
  const auto sum = [&](const float* partial, const AttentionOperand& operand, int width) {
    const Rows<bf16> to(operand, batch, kv_head);
    for (int column = threadIdx.x % 32; column < width; column += 32) {
      float total = 0;
      for (int part = 0; part < p.key_parts; ++part)
        total += partial[((row / p.keys * p.key_parts + part) * p.keys + key) * width + column];
      from_float(total, to.data[key * to.stride + column]);
    }
  };
  sum(p.partial_grad_k, p.grad_k, p.key_width);
  sum(p.partial_grad_v, p.grad_v, p.value_width);
}

// Any number of blocks of 128 * (1 + readers) threads.
template <template <typename, int, int, int, int> class Kernel, typename A, int readers, int tile,
          int buffers, int held_buffers>
__device__ __forceinline__ void run_backward_sm90(const AttentionParams& p) {
  static_assert(A::kAligned && !A::kDropout, "what these kernels know");
  constexpr int kHeldPhases = Ring<held_buffers>::kPhases;
  __shared__ uint64_t phases[kHeldPhases + Ring<buffers>::kPhases];
  __shared__ KeyRange to_visit[held_buffers];
  Kernel<A, readers, tile, buffers, held_buffers> kernel{p, Ring<held_buffers>(phases),
                                                         Ring<buffers>(phases + kHeldPhases), to_visit};
  if (threadIdx.x == 0) {
    kernel.held.begin(4 * readers, 1);
    kernel.ring.begin(4 * readers);
  }
  __syncthreads();
  deal_registers<readers, A::kDocuments>([&] { kernel.fill(); },
                                         [&](int warpgroup) { kernel.read(warpgroup); });
}

template <typename A, int readers, int tile_queries, int buffers, int held_buffers>
__device__ void attention_backward_keys_sm90(const AttentionParams& p) {
  run_backward_sm90<BackwardKeysSm90, A, readers, tile_queries, buffers, held_buffers>(p);
}
template <typename A, int readers, int tile_keys, int buffers, int held_buffers>
__device__ void attention_backward_queries_sm90(const AttentionParams& p) {
  run_backward_sm90<BackwardQueriesSm90, A, readers, tile_keys, buffers, held_buffers>(p);
}

}  // namespace nf::cuda
