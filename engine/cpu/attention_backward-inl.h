// Attention backward. A task walks blocks of keys, and for each the blocks of queries that see it: five
// products per pair of blocks (FlashAttention-2, algorithm 2), with P recomputed from the saved log-sum-exp:
//   p = exp(s - lse)    dv += (keep p)^T go    dp = keep (go v^T)    ds = p (dp - delta) cap'(s)    delta =
//   <go, out> dq += ds k          dk += ds^T q           (both times scale at the end)
// Included once per instruction set.
#if defined(NF_CPU_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NF_CPU_ATTENTION_BACKWARD_INL_H_
#undef NF_CPU_ATTENTION_BACKWARD_INL_H_
#else
#define NF_CPU_ATTENTION_BACKWARD_INL_H_
#endif

#include "cpu/attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

// Queries [first, last) that may see one of the keys [key, key + keys).
HWY_INLINE Range seeing_queries(const Problem& p, int64_t key, int64_t keys) {
  const int64_t window = p.config.window, queries = p.config.queries;
  const bool bounded = p.config.causal || window > 0;
  if (key >= p.limit) return {0, 0};
  return {bounded ? larger(0, key - p.offset) : 0,
          window > 0 ? smaller(queries, key + keys - 1 + window - p.offset) : queries};
}

// The same for a chunk of keys.
HWY_INLINE Range queries_of_chunk(const Problem& p, int64_t chunk) {
  const int64_t key = chunk * p.backward.chunk_keys;
  return seeing_queries(p, key, smaller(p.backward.chunk_keys, p.config.keys - key));
}

// One task of the backward pass: a chunk of keys, for one query head or for every head of a group.
template <typename Policy>
class Backward {
 public:
  Backward(const Problem& problem, int64_t task, void* memory) : p_(problem), scores_(problem.config) {
    Carver carver(memory);
    s_ = carve_backward(p_, carver);
    const AttentionConfig& c = p_.config;
    heads_ = p_.backward.whole_group ? p_.group : 1;
    const int64_t lots = c.heads / heads_;
    head_ = task % lots * heads_;
    batch_ = task / lots % c.batch;
    chunk_ = task / lots / c.batch;
    dq_row_ = p_.key_padded;
    dq_ = s_.dq;
    if (p_.backward.chunks > 1)
      dq_ = p_.partial_dq + ((chunk_ * c.batch + batch_) * c.heads + head_) * c.queries * dq_row_;
  }

  void run() {
    const AttentionConfig& c = p_.config;
    const int64_t begin = chunk_ * p_.backward.chunk_keys;
    const int64_t end = smaller(c.keys, begin + p_.backward.chunk_keys);
    // A partial sum has only the rows that its chunk gives something to; see finish_dq.
    const Range rows = p_.backward.chunks > 1 ? queries_of_chunk(p_, chunk_) : Range{0, c.queries};
    for (int64_t h = 0; h < heads_; ++h)
      fill(dq_ + (h * c.queries + rows.first) * dq_row_, larger(0, rows.last - rows.first) * dq_row_, 0.0F);
    find_spans();
    for (int64_t key = begin; key < end; key += kBackwardKeys)
      keys_block(key, smaller(kBackwardKeys, end - key));
    if (p_.backward.chunks > 1) return;
    for (int64_t h = 0; h < heads_; ++h) {
      for (int64_t i = 0; i < c.queries; ++i)
        write_row<Policy>(dq_ + (h * c.queries + i) * dq_row_, c.scale, c.key_width,
                          p_.grad_q.at(batch_, i, head_ + h), p_.grad_q.bf16);
    }
  }

 private:
  void find_spans() {
    const AttentionConfig& c = p_.config;
    for (int64_t query = 0; query < c.queries; query += kGroup) {
      int64_t i = query;
      Span& span = s_.spans[query / kGroup];
      span = find_span(p_.limit, smaller(kGroup, c.queries - query), [&]() HWY_ATTR { return sight(i++); });
      if (query + kGroup > c.queries) span.inner_last = 0;  // rows that are not there see nothing
    }
  }

  // By position; a query without a document, which sees nothing, takes part in what is computed for the rows
  // around it and adds zeros.
  Sight sight(int64_t query) const {
    return {visible_keys(p_, query),
            p_.q_documents == nullptr ? 0 : p_.q_documents[batch_ * p_.config.queries + query]};
  }

  // dk and dv of `keys` keys from `key`.
  void keys_block(int64_t key, int64_t keys) {
    fill(s_.dk, kBackwardKeys * p_.key_padded, 0.0F);
    fill(s_.dv, kBackwardKeys * p_.value_padded, 0.0F);
    key_ = key;
    keys_ = larger(0, smaller(keys, p_.limit - key));
    if (keys_ > 0) {
      pack_keys();
      const Range seeing = seeing_queries(p_, key, keys_);
      for (int64_t h = head_; h < head_ + heads_; ++h) {
        for (int64_t query = seeing.first / kBackwardQueries * kBackwardQueries; query < seeing.last;
             query += kBackwardQueries)
          queries_block(h, query, smaller(kBackwardQueries, p_.config.queries - query));
      }
    }
    store_keys(keys);
  }

  void pack_keys() {
    const AttentionConfig& c = p_.config;
    const int64_t head = head_ / p_.group, padded = round_up(keys_, kGroup);
    k_ = pack_rows<Policy>(p_.k, batch_, key_, head, keys_, c.key_width, s_.k_rows, p_.key_padded);
    const CellRows v =
        pack_rows<Policy>(p_.v, batch_, key_, head, keys_, c.value_width, s_.v_rows, p_.value_padded);
    Policy::transpose(k_, padded, div_up(c.key_width, Policy::kPair), s_.k_columns, kBackwardKeys);
    Policy::transpose(v, padded, div_up(c.value_width, Policy::kPair), s_.v_columns, kBackwardKeys);
    if (Policy::kPair == 2) k_ = pairs(k_, p_.key_padded, padded, s_.k_pairs);
    if (p_.k_documents == nullptr) return;
    const int32_t* documents = p_.k_documents + batch_ * c.keys + key_;
    k_range_ = document_range(documents, keys_);
    for (int64_t j = 0; j < kBackwardKeys; ++j) s_.k_documents[j] = j < keys_ ? documents[j] : -1;
  }

  static CellRows pairs(const CellRows& rows, int64_t padded, int64_t count, Cell* buffer) {
    Policy::pair_rows(rows, padded, count, buffer);
    return {buffer, padded};
  }

  void store_keys(int64_t keys) const {
    const AttentionConfig& c = p_.config;
    if (heads_ == p_.group) {
      const int64_t head = head_ / p_.group;
      for (int64_t j = 0; j < keys; ++j) {
        write_row<Policy>(s_.dk + j * p_.key_padded, c.scale, c.key_width,
                          p_.grad_k.at(batch_, key_ + j, head), p_.grad_k.bf16);
        write_row<Policy>(s_.dv + j * p_.value_padded, 1.0F, c.value_width,
                          p_.grad_v.at(batch_, key_ + j, head), p_.grad_v.bf16);
      }
      return;
    }
    const int64_t row = (batch_ * c.heads + head_) * c.keys + key_;
    copy(s_.dk, keys * p_.key_padded, p_.partial_dk + row * p_.key_padded);
    copy(s_.dv, keys * p_.value_padded, p_.partial_dv + row * p_.value_padded);
  }

  static void copy(const float* HWY_RESTRICT src, int64_t count, float* HWY_RESTRICT dst) {
    for (int64_t i = 0; i < count; i += kLanes) hn::Store(hn::Load(Floats(), src + i), Floats(), dst + i);
  }

  // The pair (queries [query, query + queries) of head h, packed keys).
  void queries_block(int64_t h, int64_t query, int64_t queries) {
    const AttentionConfig& c = p_.config;
    if (p_.q_documents != nullptr &&
        !document_range(p_.q_documents + batch_ * c.queries + query, queries).overlaps(k_range_))
      return;
    const int64_t padded = round_up(queries, kGroup);
    q_rows_ = pack_rows<Policy>(p_.q, batch_, query, h, queries, c.key_width, s_.q_rows, p_.key_padded);
    go_rows_ =
        pack_rows<Policy>(p_.grad_out, batch_, query, h, queries, c.value_width, s_.go_rows, p_.value_padded);
    q_ = Policy::kPair == 2 ? pairs(q_rows_, p_.key_padded, padded, s_.q_pairs) : q_rows_;
    go_ = Policy::kPair == 2 ? pairs(go_rows_, p_.value_padded, padded, s_.go_pairs) : go_rows_;
    h_ = h;
    query_ = query;
    queries_ = queries;
    read_sums(padded);
    for (int64_t g = 0; g < kBackwardKeys / kGroup; ++g) rows_[g] = {padded, 0};
    const int64_t next = query + kBackwardQueries;
    for (int64_t row = 0; row < padded; row += kGroup) {
      const int64_t count = smaller(kGroup, c.queries - next - row);
      prefetch_rows(p_.q, batch_, next + row, h, count, c.key_width);
      prefetch_rows(p_.grad_out, batch_, next + row, h, count, c.value_width);
      group(row);
    }
    for (int64_t g = 0; g < round_up(keys_, kGroup) / kGroup; ++g) accumulate_keys(g * kGroup, rows_[g]);
  }

  // What the forward pass left of the rows of the block.
  void read_sums(int64_t padded) {
    const AttentionConfig& c = p_.config;
    const int64_t index = (batch_ * c.heads + h_) * c.queries + query_;
    for (int64_t r = 0; r < padded; ++r) {
      const float lse = r < queries_ ? p_.logsumexp_in[index + r] : -kInfinity;
      s_.lse[r] = lse == -kInfinity ? kInfinity : lse * kLog2e;
      s_.delta[r] = r < queries_ ? p_.delta[index + r] : 0.0F;
    }
  }

  // Rows [row, row + 16) of the block: their softmax weights, the gradients of their scores, and their dq.
  // Computes only the columns that some row sees, whole groups of them; rows_ collects which rows were
  // computed for each.
  void group(int64_t row) {
    const AttentionConfig& c = p_.config;
    const Span& span = s_.spans[(query_ + row) / kGroup];
    const Documents documents{span.document_low, span.document_high};
    const bool plain =
        scores_.simple && c.dropout == 0.0F && (p_.q_documents == nullptr || documents.all_equal(k_range_));
    const Columns columns = find_columns(span.first - key_, span.last - key_, span.inner_first - key_,
                                         span.inner_last - key_, keys_, plain);
    if (columns.empty()) return;
    const int64_t first = columns.first, last = columns.last;
    for (int64_t g = first / kGroup; g < last / kGroup; ++g)
      rows_[g] = {smaller(rows_[g].first, row), row + kGroup};

    multiply<Policy>({div_up(c.key_width, Policy::kPair), q_rows_.cells + row * q_rows_.row, q_rows_.row, 1,
                      s_.k_columns + first, kBackwardKeys, s_.scores + first, kBackwardKeys, false, nullptr},
                     kGroup, last - first);
    multiply<Policy>(
        {div_up(c.value_width, Policy::kPair), go_rows_.cells + row * go_rows_.row, go_rows_.row, 1,
         s_.v_columns + first, kBackwardKeys, s_.dweights + first, kBackwardKeys, false, nullptr},
        kGroup, last - first);
    plain_gradients(row, columns.plain_first, columns.plain_last);
    if (columns.first < columns.plain_first) masked_gradients(row, columns.first, columns.plain_first);
    if (columns.plain_last < columns.last) masked_gradients(row, columns.plain_last, columns.last);
    float* dq = dq_ + ((h_ - head_) * c.queries + query_ + row) * dq_row_;
    multiply<Policy>({(last - first) / Policy::kPair, s_.ds_rows + first / Policy::kPair, kRowCells, 1,
                      k_.cells + first / Policy::kPair * k_.row, k_.row, dq, dq_row_, true, nullptr},
                     smaller(kGroup, queries_ - row), round_up(c.key_width, kGroup));
  }

  // Scores and dweights of rows [row, row + 16), columns [first, last) -> p_pairs, ds_pairs, ds_rows, where
  // every row sees every column.
  void plain_gradients(int64_t row, int64_t first, int64_t last) {
    constexpr int kPair = Policy::kPair;
    const Vector factor = set(scores_.factor);
    for (int64_t r = 0; r < kGroup; r += kPair) {
      Vector lse[kPair], delta[kPair];
      for (int i = 0; i < kPair; ++i) {
        lse[i] = set(s_.lse[row + r + i]);
        delta[i] = set(s_.delta[row + r + i]);
      }
      for (int64_t c = first; c < last; c += kLanes) {
        Vector p[kPair], ds[kPair];
        for (int i = 0; i < kPair; ++i) {
          const Vector product = hn::Load(Floats(), s_.scores + (r + i) * kBackwardKeys + c);
          const Vector dp = hn::Load(Floats(), s_.dweights + (r + i) * kBackwardKeys + c);
          p[i] = Policy::exp2(hn::MulSub(product, factor, lse[i]));
          ds[i] = hn::Mul(p[i], hn::Sub(dp, delta[i]));
        }
        store_gradients(row, r, c, p, ds);
      }
    }
  }

  HWY_INLINE void store_gradients(int64_t row, int64_t r, int64_t column, const Vector* p, const Vector* ds) {
    const int64_t cell = (row + r) / Policy::kPair * kBackwardKeys + column;
    Policy::store_pair(p, s_.p_pairs + cell);
    Policy::store_both(ds, s_.ds_pairs + cell, s_.ds_rows + r * kRowCells, kRowCells, column);
  }

  // The same where masks, caps or dropout have a say.
  void masked_gradients(int64_t row, int64_t first, int64_t last) {
    constexpr int kPair = Policy::kPair;
    for (int64_t r = 0; r < kGroup; r += kPair) {
      Row rows[kPair];
      for (int i = 0; i < kPair; ++i)
        rows[i] = prepare(row + r + i, first, last, s_.random + i * (kBackwardKeys + 5 * kGroup));
      for (int64_t c = first; c < last; c += kLanes) {
        Vector p[kPair], ds[kPair];
        for (int i = 0; i < kPair; ++i) {
          const Vector product = hn::Load(Floats(), s_.scores + (r + i) * kBackwardKeys + c);
          const Vector dp = hn::Load(Floats(), s_.dweights + (r + i) * kBackwardKeys + c);
          const uint32_t* words = rows[i].words == nullptr ? nullptr : rows[i].words + (c - first);
          masked_gradient(rows[i], c, words, product, dp, &p[i], &ds[i]);
        }
        store_gradients(row, r, c, p, ds);
      }
    }
  }

  // A row where not all is plain; words: for dropout, from the first column on.
  struct Row {
    RowMask mask{0, 0, 0, nullptr};
    float lse = kInfinity, delta = 0.0F;
    const uint32_t* words = nullptr;
  };

  Row prepare(int64_t r, int64_t first, int64_t last, uint32_t* buffer) const {
    Row row;
    if (r >= queries_) return row;
    const AttentionConfig& c = p_.config;
    row.lse = s_.lse[r];
    row.delta = s_.delta[r];
    const Sight seen = sight(query_ + r);
    row.mask.first = static_cast<int32_t>(seen.keys.first - key_);
    row.mask.last = seen.document < 0 ? row.mask.first : static_cast<int32_t>(seen.keys.last - key_);
    row.mask.document = seen.document;
    if (p_.q_documents != nullptr) row.mask.documents = s_.k_documents;
    if (c.dropout > 0.0F) {
      const int64_t weight = ((batch_ * c.heads + h_) * c.queries + query_ + r) * c.keys + key_ + first;
      row.words = row_words(p_, static_cast<uint64_t>(weight), last - first, buffer);
    }
    return row;
  }

  HWY_INLINE void masked_gradient(const Row& row, int64_t column, const uint32_t* words, Vector product,
                                  Vector dp, Vector* p, Vector* ds) const {
    const AttentionConfig& c = p_.config;
    const Vector score = scores_.finished(product);
    Vector weight = Policy::exp2(hn::MulSub(score, set(scores_.factor), set(row.lse)));
    weight = hn::IfThenElseZero(visible(row.mask, column), weight);
    *p = weight;
    if (words != nullptr) {
      const auto keep = kept(p_, words);
      const Vector factor = set(1.0F / (1.0F - c.dropout));
      *p = hn::IfThenElseZero(keep, hn::Mul(weight, factor));
      dp = hn::IfThenElseZero(keep, hn::Mul(dp, factor));
    }
    *ds = hn::Mul(weight, hn::Sub(dp, set(row.delta)));
    if (scores_.cap == CapType::soft) {  // 1 - tanh^2
      const Vector t = hn::Div(score, set(scores_.limit));
      *ds = hn::Mul(*ds, hn::NegMulAdd(t, t, set(1.0F)));
    } else if (scores_.cap == CapType::hard) {
      const Vector raw = hn::Mul(product, set(scores_.scale));
      *ds = hn::IfThenElseZero(hn::Le(hn::Abs(raw), set(scores_.limit)), *ds);
    }
  }

  // dk and dv of keys [column, column + 16) from the rows that were computed for them.
  void accumulate_keys(int64_t column, Range rows) {
    if (rows.first >= rows.last) return;
    const int64_t cell = rows.first / Policy::kPair, depth = (rows.last - rows.first) / Policy::kPair;
    multiply<Policy>(
        {depth, s_.p_pairs + cell * kBackwardKeys + column, 1, kBackwardKeys, go_.cells + cell * go_.row,
         go_.row, s_.dv + column * p_.value_padded, p_.value_padded, true, nullptr},
        kGroup, round_up(p_.config.value_width, kGroup));
    multiply<Policy>(
        {depth, s_.ds_pairs + cell * kBackwardKeys + column, 1, kBackwardKeys, q_.cells + cell * q_.row,
         q_.row, s_.dk + column * p_.key_padded, p_.key_padded, true, nullptr},
        kGroup, round_up(p_.config.key_width, kGroup));
  }

  static constexpr int64_t kRowCells = kBackwardKeys / Policy::kPair;

  const Problem& p_;
  Scores scores_;
  BackwardScratch s_{};
  int64_t heads_, head_, batch_, chunk_, dq_row_;
  float* dq_;  // [heads_][T][dq_row_]
  int64_t key_ = 0, keys_ = 0, h_ = 0, query_ = 0, queries_ = 0;
  Documents k_range_{};
  CellRows q_rows_{}, go_rows_{};         // of the block of queries, as the first factor of a product
  CellRows q_{}, go_{}, k_{};             // of both blocks, as the second factor of one
  Range rows_[kBackwardKeys / kGroup]{};  // for each group of keys, the rows of the block that were computed
};

template <typename Policy>
void backward(const Problem& problem, int64_t task, void* scratch) {
  Backward<Policy>(problem, task, scratch).run();
}

// delta = <out, grad_out> for kDeltaRows queries of one (batch, head).
template <typename Policy>
void delta(const Problem& p, int64_t task, void* scratch) {
  const Floats d;
  const AttentionConfig& c = p.config;
  const int64_t blocks = div_up(c.queries, kDeltaRows), first = task % blocks * kDeltaRows;
  const int64_t head = task / blocks % c.heads, batch = task / blocks / c.heads;
  Carver carver(scratch);
  auto* out = carver.take<float>(p.value_padded);
  auto* grad = carver.take<float>(p.value_padded);
  const int64_t end = smaller(c.queries, first + kDeltaRows);
  for (int64_t i = first; i < end; ++i) {
    if ((i - first) % kGroup == 0) {
      const int64_t ahead = smaller(kGroup, c.queries - i - kGroup);
      prefetch_rows(p.out, batch, i + kGroup, head, ahead, c.value_width);
      prefetch_rows(p.grad_out, batch, i + kGroup, head, ahead, c.value_width);
    }
    read_row(p.out.at(batch, i, head), p.out.bf16, c.value_width, out, p.value_padded);
    read_row(p.grad_out.at(batch, i, head), p.grad_out.bf16, c.value_width, grad, p.value_padded);
    Vector sum = hn::Zero(d);
    for (int64_t column = 0; column < p.value_padded; column += kLanes)
      sum = hn::MulAdd(hn::Load(d, out + column), hn::Load(d, grad + column), sum);
    p.delta[(batch * c.heads + head) * c.queries + i] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// first[row] += the rows `stride` apart, count - 1 of them, in order; the sum replaces the first.
HWY_INLINE void sum_rows(float* HWY_RESTRICT first, int64_t padded, int64_t stride, int64_t count) {
  for (int64_t column = 0; column < padded; column += kLanes) {
    Vector sum = hn::Load(Floats(), first + column);
    for (int64_t i = 1; i < count; ++i) sum = hn::Add(sum, hn::Load(Floats(), first + i * stride + column));
    hn::Store(sum, Floats(), first + column);
  }
}

template <typename Policy>
void finish_dq(const Problem& p, int64_t task) {
  const AttentionConfig& c = p.config;
  const int64_t blocks = div_up(c.queries, kDeltaRows), first = task % blocks * kDeltaRows;
  const int64_t head = task / blocks % c.heads, batch = task / blocks / c.heads;
  HWY_ALIGN float row[kMostWidth];
  for (int64_t i = first; i < smaller(c.queries, first + kDeltaRows); ++i) {
    fill(row, p.key_padded, 0.0F);
    for (int64_t chunk = 0; chunk < p.backward.chunks; ++chunk) {
      const Range rows = queries_of_chunk(p, chunk);
      if (i < rows.first || i >= rows.last) continue;
      const float* part =
          p.partial_dq + (((chunk * c.batch + batch) * c.heads + head) * c.queries + i) * p.key_padded;
      for (int64_t column = 0; column < p.key_padded; column += kLanes)
        hn::Store(hn::Add(hn::Load(Floats(), row + column), hn::Load(Floats(), part + column)), Floats(),
                  row + column);
    }
    write_row<Policy>(row, c.scale, c.key_width, p.grad_q.at(batch, i, head), p.grad_q.bf16);
  }
}

template <typename Policy>
void finish_dkv(const Problem& p, int64_t task) {
  const AttentionConfig& c = p.config;
  const int64_t blocks = div_up(c.keys, kDeltaRows), first = task % blocks * kDeltaRows;
  const int64_t head = task / blocks % c.kv_heads, batch = task / blocks / c.kv_heads;
  for (int64_t j = first; j < smaller(c.keys, first + kDeltaRows); ++j) {
    const int64_t row = (batch * c.heads + head * p.group) * c.keys + j;
    float* dk = p.partial_dk + row * p.key_padded;
    float* dv = p.partial_dv + row * p.value_padded;
    sum_rows(dk, p.key_padded, c.keys * p.key_padded, p.group);
    sum_rows(dv, p.value_padded, c.keys * p.value_padded, p.group);
    write_row<Policy>(dk, c.scale, c.key_width, p.grad_k.at(batch, j, head), p.grad_k.bf16);
    write_row<Policy>(dv, 1.0F, c.value_width, p.grad_v.at(batch, j, head), p.grad_v.bf16);
  }
}

template <typename Policy>
constexpr Kernels kernels(const char* name) {
  return {name,
          forward<Policy>,
          combine<Policy>,
          delta<Policy>,
          backward<Policy>,
          finish_dq<Policy>,
          finish_dkv<Policy>};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();

#endif
