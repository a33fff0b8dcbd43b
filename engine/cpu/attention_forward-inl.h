// Attention forward, over one task's rows: blocks of keys with a running maximum and sum (FlashAttention-2).
// Scores are kept times log2(e), so that softmax is made of powers of two. Included once per instruction set.
#if defined(NF_CPU_ATTENTION_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NF_CPU_ATTENTION_FORWARD_INL_H_
#undef NF_CPU_ATTENTION_FORWARD_INL_H_
#else
#define NF_CPU_ATTENTION_FORWARD_INL_H_
#endif

#include "cpu/attention_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nf::cpu::attention {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Keys [first, last) that position allows query i to see; empty ranges have last <= first.
struct Range {
  int64_t first, last;
};

HWY_INLINE Range visible_keys(const Problem& p, int64_t query) {
  const int64_t position = query + p.offset, window = p.config.window;
  const bool bounded = p.config.causal || window > 0;
  return {window > 0 ? larger(0, position - window + 1) : 0,
          bounded ? smaller(p.limit, position + 1) : p.limit};
}

// What a row sees: keys [first, last), and of them those of its document.
struct Sight {
  Range keys;
  int32_t document;
};

// Of `rows` rows, each told by the next call of `next`; of `limit` keys.
template <typename Next>
HWY_INLINE Span find_span(int64_t limit, int64_t rows, Next next) {
  Span span{limit, 0, 0, limit, INT32_MAX, INT32_MIN};
  for (int64_t r = 0; r < rows; ++r) {
    const Sight row = next();
    span.inner_first = larger(span.inner_first, row.keys.first);
    span.inner_last = smaller(span.inner_last, row.keys.last);
    if (row.keys.first >= row.keys.last) continue;
    span.first = smaller(span.first, row.keys.first);
    span.last = larger(span.last, row.keys.last);
    span.document_low = row.document < span.document_low ? row.document : span.document_low;
    span.document_high = row.document > span.document_high ? row.document : span.document_high;
  }
  return span;
}

// Smallest and largest document of a run of rows or keys.
struct Documents {
  int32_t low, high;

  HWY_INLINE bool overlaps(const Documents& other) const { return low <= other.high && other.low <= high; }
  HWY_INLINE bool all_equal(const Documents& other) const {
    return low == high && other.low == low && other.high == low && low >= 0;
  }
};

HWY_INLINE Documents document_range(const int32_t* documents, int64_t count) {
  Documents range{documents[0], documents[0]};
  for (int64_t i = 1; i < count; ++i) {
    range.low = documents[i] < range.low ? documents[i] : range.low;
    range.high = documents[i] > range.high ? documents[i] : range.high;
  }
  return range;
}

// What one row needs to know of the keys of a block: column c is visible iff first <= c < last and its
// document is `document` (when documents is not null).
struct RowMask {
  int32_t first, last, document;
  const int32_t* documents;
};

HWY_INLINE hn::Mask<Floats> visible(const RowMask& mask, int64_t column) {
  const Ints d;
  const auto index = hn::Add(hn::Iota(d, 0), hn::Set(d, static_cast<int32_t>(column)));
  auto in = hn::AndNot(hn::Lt(index, hn::Set(d, mask.first)), hn::Lt(index, hn::Set(d, mask.last)));
  if (mask.documents != nullptr)
    in = hn::And(in, hn::Eq(hn::Load(d, mask.documents + column), hn::Set(d, mask.document)));
  return hn::RebindMask(Floats(), in);
}

// How a product of q and k becomes a score times log2(e): `factor` times what finished() makes of it.
struct Scores {
  CapType cap;
  bool simple;   // finished() leaves products as they are
  float scale;   // none and hard: scale * log2e; soft: scale / cap
  float limit;   // cap * log2e
  float factor;  // positive

  explicit HWY_INLINE Scores(const AttentionConfig& config)
      : cap(config.cap_type),
        simple(cap == CapType::none && config.scale > 0.0F),
        scale(cap == CapType::soft ? config.scale / config.cap : config.scale * kLog2e),
        limit(config.cap * kLog2e),
        factor(simple ? scale : 1.0F) {}

  HWY_INLINE Vector finished(Vector product) const {
    if (simple) return product;
    const Vector s = hn::Mul(product, set(scale));
    if (cap == CapType::none) return s;
    if (cap == CapType::hard) return hn::Max(hn::Min(s, set(limit)), set(-limit));
    return hn::Mul(tanh(s), set(limit));
  }
};

// Which columns of a block a group of rows looks at, whole groups of columns.
struct Columns {
  int64_t first, last;              // some row sees one of each group
  int64_t plain_first, plain_last;  // of those, the ones that need no mask and no finishing

  bool empty() const { return first >= last; }
};

// [first, last): what any row sees; [inner_first, inner_last): what every row sees. `plain`: whether seeing
// is all that matters.
HWY_INLINE Columns find_columns(int64_t first, int64_t last, int64_t inner_first, int64_t inner_last,
                                int64_t keys, bool plain) {
  Columns columns{larger(first, 0) / kGroup * kGroup, round_up(smaller(last, keys), kGroup), 0, 0};
  columns.plain_first = columns.plain_last = columns.last;
  if (!plain || columns.empty()) return columns;
  const int64_t begin = larger(round_up(larger(inner_first, 0), kGroup), columns.first);
  const int64_t end = smaller(smaller(inner_last, keys) / kGroup * kGroup, columns.last);
  if (begin < end) columns.plain_first = begin, columns.plain_last = end;
  return columns;
}

// The largest score of one row. Outside the plain columns products are finished, and -inf where they are
// invisible.
HWY_INLINE float largest_score(const Scores& scores, const RowMask& mask, float* HWY_RESTRICT row,
                               const Columns& columns) {
  const Floats d;
  Vector maximum = set(-kInfinity);
  const auto finish = [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t c = begin; c < end; c += kLanes) {
      const Vector s =
          hn::IfThenElse(visible(mask, c), scores.finished(hn::Load(d, row + c)), set(-kInfinity));
      hn::Store(s, d, row + c);
      maximum = hn::Max(maximum, s);
    }
  };
  finish(columns.first, columns.plain_first);
  for (int64_t c = columns.plain_first; c < columns.plain_last; c += kLanes)
    maximum = hn::Max(maximum, hn::Load(d, row + c));
  finish(columns.plain_last, columns.last);
  return hn::GetLane(hn::MaxOfLanes(d, maximum)) * scores.factor;
}

// One task of the forward pass: the rows of one query block for every head of a group.
template <typename Policy>
class Forward {
 public:
  Forward(const Problem& problem, int64_t task, void* memory) : p_(problem), scores_(problem.config) {
    Carver carver(memory);
    s_ = carve_forward(p_, carver);
    const AttentionConfig& c = p_.config;
    split_ = task % p_.forward.splits;
    task /= p_.forward.splits;
    // A thread's part of the tasks is a part of the batch. Under a causal mask the last block is the longest:
    // it goes first.
    block_ = p_.forward.blocks - 1 - task % p_.forward.blocks;
    head_ = task / p_.forward.blocks % c.kv_heads;
    batch_ = task / p_.forward.blocks / c.kv_heads;
    query_ = block_ * p_.forward.queries;
    queries_ = smaller(p_.forward.queries, c.queries - query_);
    rows_ = p_.group * queries_;
  }

  void run() {
    begin();
    const int64_t low = larger(range_.first, split_ * p_.forward.split_keys);
    high_ = smaller(range_.last, (split_ + 1) * p_.forward.split_keys);
    const int64_t start = low / kForwardKeys * kForwardKeys;
    if (few_rows()) call(p_.k, start, kAhead, p_.config.key_width);
    for (int64_t key = start; key < high_; key += kForwardKeys)
      block(key, smaller(kForwardKeys, high_ - key));
    if (p_.forward.splits > 1)
      store_partial();
    else
      store();
  }

 private:
  void begin() {
    q_in_place_ = queries_ % kGroup == 0 && has_cells<Policy>(p_.q, p_.config.key_width);
    if (q_in_place_)
      prefetch_rows(p_.q, batch_, query_, head_ * p_.group, queries_, p_.config.key_width, p_.group);
    else
      pack_queries();
    find_ranges();
    fill(s_.maximum, round_up(rows_, kGroup), -kInfinity);
    fill(s_.shift, kGroup, -kInfinity);
    fill(s_.weight, rows_ * kGroup, 0.0F);
    fill(s_.sum, rows_ * p_.value_padded, 0.0F);
  }

  void pack_queries() {
    const AttentionConfig& c = p_.config;
    for (int64_t i = 0; i < queries_; i += kGroup) {
      const int64_t next = smaller(kGroup, queries_ - i - kGroup);
      for (int64_t g = 0; g < p_.group; ++g) {
        const int64_t head = head_ * p_.group + g;
        prefetch_rows(p_.q, batch_, query_ + i + kGroup, head, next, c.key_width);
        for (int64_t row = i; row < smaller(i + kGroup, queries_); ++row)
          Policy::pack_row(p_.q.at(batch_, query_ + row, head), p_.q.bf16, c.key_width,
                           s_.q + (g * queries_ + row) * p_.key_padded, p_.key_padded);
      }
    }
  }

  // What every query sees, every group of rows, and the task.
  void find_ranges() {
    const AttentionConfig& c = p_.config;
    range_ = {p_.limit, 0};
    for (int64_t i = 0; i < queries_; ++i) {
      Range range = visible_keys(p_, query_ + i);
      if (p_.q_documents != nullptr) {
        s_.q_documents[i] = p_.q_documents[batch_ * c.queries + query_ + i];
        if (s_.q_documents[i] < 0) range.last = range.first;
      }
      s_.first[i] = static_cast<int32_t>(range.first);
      s_.last[i] = static_cast<int32_t>(range.last);
      if (range.first >= range.last) continue;
      range_ = {smaller(range_.first, range.first), larger(range_.last, range.last)};
    }
    if (p_.q_documents != nullptr) documents_ = document_range(s_.q_documents, queries_);
    for (int64_t row = 0; row < rows_; row += kGroup) {
      int64_t i = row % queries_;  // after the last query comes the first one, for another head
      s_.spans[row / kGroup] = find_span(p_.limit, smaller(kGroup, rows_ - row), [&]() HWY_ATTR {
        const Sight sight{{s_.first[i], s_.last[i]}, p_.q_documents != nullptr ? s_.q_documents[i] : 0};
        i = i + 1 == queries_ ? 0 : i + 1;
        return sight;
      });
    }
  }

  void block(int64_t key, int64_t keys) {
    const AttentionConfig& c = p_.config;
    if (p_.k_documents != nullptr) {
      const int32_t* documents = p_.k_documents + batch_ * c.keys + key;
      k_range_ = document_range(documents, keys);
      if (!documents_.overlaps(k_range_)) return;
      for (int64_t j = 0; j < kForwardKeys; ++j) s_.k_documents[j] = j < keys ? documents[j] : -1;
    }
    keys_ = pack_rows<Policy>(p_.k, batch_, key, head_, keys, c.key_width, s_.k_rows, p_.key_padded);
    values_ = pack_rows<Policy>(p_.v, batch_, key, head_, keys, c.value_width, s_.v_rows, p_.value_padded);
    if (few_rows()) return group(0, rows_, key, keys);
    const int64_t padded = round_up(keys, kGroup);
    Policy::transpose(keys_, padded, key_cells(), s_.k_columns, kForwardKeys);
    if (Policy::kPair == 2) {
      Policy::pair_rows(values_, p_.value_padded, padded, s_.v_pairs);
      values_ = {s_.v_pairs, p_.value_padded};
    }
    // The rows of the next block are called a few at a time while this one is worked on.
    const int64_t step = smaller(kForwardKeys, div_up(kForwardKeys * kGroup, rows_));
    for (int64_t row = 0, next = key + kForwardKeys; row < rows_; row += kGroup, next += step) {
      call(p_.k, next, step, c.key_width);
      call(p_.v, next, step, c.value_width);
      group(row, smaller(kGroup, rows_ - row), key, keys);
    }
  }

  // So few that to transpose keys and to store pairs of values would cost more than it saves. Memory then
  // takes longer than arithmetic.
  bool few_rows() const { return rows_ <= 8; }

  int64_t key_cells() const { return div_up(p_.config.key_width, Policy::kPair); }

  // Calls rows [row, row + count) of those that the task will read. Inline always: out of line it would seem
  // to have no effect, and compilers leave out such calls.
  HWY_INLINE void call(const Operand& operand, int64_t row, int64_t count, int64_t width) const {
    prefetch_rows(operand, batch_, row, head_, larger(0, smaller(count, high_ - row)), width);
  }

  // Of few rows: calls what is read soon after `count` keys, or values, from `column` of the block on. After
  // the keys of a block come its values, then the next block's keys; packed rows were all read before.
  HWY_INLINE void call_ahead(bool values, int64_t key, int64_t column, int64_t count) const {
    const bool packed = values ? values_.cells == s_.v_rows : keys_.cells == s_.k_rows;
    column += packed ? kForwardKeys : kAhead;
    if (!packed && column >= kForwardKeys) {
      if (!values) column -= kForwardKeys;
      values = !values;
    }
    if (values)
      call(p_.v, key + column, count, p_.config.value_width);
    else
      call(p_.k, key + column, count, p_.config.key_width);
  }

  // Products of q with columns [first, last) of the block of keys -> scores.
  void multiply_keys(const CellRows& q, int64_t rows, int64_t key, int64_t first, int64_t last) {
    if (!few_rows())
      return multiply<Policy>({key_cells(), q.cells, q.row, 1, s_.k_columns + first, kForwardKeys,
                               s_.scores + first, kForwardKeys, false, nullptr},
                              rows, last - first);
    for (int64_t column = first; column < last; column += kGroup) {
      call_ahead(false, key, column, kGroup);
      multiply_rows<Policy>(q, rows, {keys_.cells + column * keys_.row, keys_.row}, kGroup,
                            round_up(key_cells(), kLanes), s_.scores + column, kForwardKeys);
    }
  }

  // Sums of rows [row, row + rows), rescaled, plus their weights of columns [first, last) times values.
  void multiply_values(int64_t row, int64_t rows, int64_t key, int64_t first, int64_t last) {
    const int64_t width = round_up(p_.config.value_width, kGroup);
    Product product{(last - first) / Policy::kPair,
                    s_.weights + first / Policy::kPair,
                    kWeightsRow,
                    1,
                    values_.cells + first / Policy::kPair * values_.row,
                    values_.row,
                    s_.sum + row * p_.value_padded,
                    p_.value_padded,
                    true,
                    s_.rescale};
    if (!few_rows()) return multiply<Policy>(product, rows, width);
    for (int64_t column = first; column < last; column += 2 * kGroup) {
      const int64_t count = smaller(2 * kGroup, last - column);
      call_ahead(true, key, column, count);
      product.depth = count / Policy::kPair;
      product.a = s_.weights + column / Policy::kPair;
      product.b = values_.cells + column * values_.row;
      multiply<Policy, Policy::kPair == 2>(product, rows, width);
      product.rescale = nullptr;
    }
  }

  // Rows [row, row + rows) against the block of keys.
  void group(int64_t row, int64_t rows, int64_t key, int64_t keys) {
    const Span& span = s_.spans[row / kGroup];
    const Documents documents{span.document_low, span.document_high};
    const Columns columns =
        find_columns(span.first - key, span.last - key, span.inner_first - key, span.inner_last - key, keys,
                     scores_.simple && (p_.q_documents == nullptr || documents.all_equal(k_range_)));
    if (columns.empty() || (p_.q_documents != nullptr && !documents.overlaps(k_range_))) return;
    const int64_t first = columns.first, last = columns.last;
    multiply_keys(query_rows(row), rows, key, first, last);
    softmax(row, rows, key, columns);
    multiply_values(row, rows, key, first, last);
  }

  CellRows query_rows(int64_t row) const {
    if (!q_in_place_) return {s_.q + row * p_.key_padded, p_.key_padded};
    const char* from = p_.q.at(batch_, query_ + row % queries_, head_ * p_.group + row / queries_);
    return {reinterpret_cast<const Cell*>(from), p_.q.row / Policy::kPair};
  }

  // Scores of rows [row, row + rows) -> weights relative to the new maxima. Three sweeps over the rows, so
  // that none waits for the reduction of its own maximum.
  void softmax(int64_t row, int64_t rows, int64_t key, const Columns& columns) {
    const Floats d;
    for (int64_t r = 0, i = row % queries_; r < rows; ++r, i = i + 1 == queries_ ? 0 : i + 1)
      s_.shift[r] = largest_score(scores_, row_mask(i, key), s_.scores + r * kForwardKeys, columns);
    for (int64_t r = 0; r < kGroup; r += kLanes) {
      const Vector before = hn::Load(d, s_.maximum + row + r);
      const Vector maximum = hn::Max(before, hn::Load(d, s_.shift + r));
      const Vector shift = hn::IfThenElse(hn::Eq(maximum, set(-kInfinity)), hn::Zero(d), maximum);
      hn::Store(maximum, d, s_.maximum + row + r);
      hn::Store(shift, d, s_.shift + r);
      hn::Store(Policy::exp2(hn::Sub(before, shift)), d, s_.rescale + r);
    }
    for (int64_t r = 0; r < rows; ++r) exponentials(row, r, key, columns.first, columns.last);
  }

  HWY_INLINE void exponentials(int64_t row, int64_t r, int64_t key, int64_t first, int64_t last) {
    const Floats d;
    const bool dropout = p_.config.dropout > 0.0F;
    const uint32_t* words = nullptr;
    if (dropout) words = row_words(p_, weight_index(row + r, key + first), last - first, s_.random);
    const float* scores = s_.scores + r * kForwardKeys;
    Cell* weights = s_.weights + r * kWeightsRow;
    const Vector shift = set(s_.shift[r]), factor = set(scores_.factor);
    Vector total = hn::Zero(d);
    for (int64_t c = first; c < last; c += kLanes) {
      Vector e = Policy::exp2(hn::MulSub(hn::Load(d, scores + c), factor, shift));
      total = hn::Add(total, e);
      if (dropout) e = hn::IfThenElseZero(kept(p_, words + (c - first)), e);
      Policy::store_row(e, weights, c);
    }
    float* weight = s_.weight + (row + r) * kGroup;
    hn::Store(hn::MulAdd(hn::Load(d, weight), set(s_.rescale[r]), total), d, weight);
  }

  RowMask row_mask(int64_t i, int64_t key) const {
    const bool documents = p_.q_documents != nullptr;
    return {static_cast<int32_t>(s_.first[i] - key), static_cast<int32_t>(s_.last[i] - key),
            documents ? s_.q_documents[i] : 0, documents ? s_.k_documents : nullptr};
  }

  uint64_t weight_index(int64_t row, int64_t key) const {
    const AttentionConfig& c = p_.config;
    const int64_t head = head_ * p_.group + row / queries_, query = query_ + row % queries_;
    return static_cast<uint64_t>(((batch_ * c.heads + head) * c.queries + query) * c.keys + key);
  }

  float row_weight(int64_t row) const {
    return hn::GetLane(hn::SumOfLanes(Floats(), hn::Load(Floats(), s_.weight + row * kGroup)));
  }

  void store() const {
    for (int64_t r = 0; r < rows_; ++r)
      store_row(p_, batch_, head_ * p_.group + r / queries_, query_ + r % queries_,
                s_.sum + r * p_.value_padded, s_.maximum[r], row_weight(r));
  }

  void store_partial() const {
    const int64_t stride = p_.value_padded + kGroup;
    float* partial =
        p_.partial +
        (((block_ * p_.config.batch + batch_) * p_.config.kv_heads + head_) * p_.forward.splits + split_) *
            p_.group * p_.forward.queries * stride;
    for (int64_t r = 0; r < rows_; ++r, partial += stride) {
      for (int64_t c = 0; c < p_.value_padded; c += kLanes)
        hn::Store(hn::Load(Floats(), s_.sum + r * p_.value_padded + c), Floats(), partial + c);
      partial[p_.value_padded] = s_.maximum[r];
      partial[p_.value_padded + 1] = row_weight(r);
    }
  }

 public:
  // Normalises one row and writes it, with its log-sum-exp. maximum is in units of log2.
  static void store_row(const Problem& p, int64_t batch, int64_t head, int64_t query, const float* sum,
                        float maximum, float weight) {
    const bool seen = weight > 0.0F;
    const float factor = seen ? 1.0F / (weight * (1.0F - p.config.dropout)) : 0.0F;
    write_row<Policy>(sum, factor, p.config.value_width, p.out.at(batch, query, head), p.out.bf16);
    p.logsumexp[(batch * p.config.heads + head) * p.config.queries + query] =
        seen ? maximum * kLn2 + __builtin_logf(weight) : -kInfinity;
  }

 private:
  static constexpr int64_t kWeightsRow = kForwardKeys / Policy::kPair;
  static constexpr int64_t kAhead = kForwardKeys / 2;  // rows: memory's latency, less than the nearest cache

  const Problem& p_;
  Scores scores_;
  ForwardScratch s_{};
  int64_t split_, head_, batch_, block_, query_, queries_, rows_;
  bool q_in_place_ = false;
  int64_t high_ = 0;       // past the last key of the task
  Range range_{};          // keys that any row sees
  Documents documents_{};  // of the queries
  Documents k_range_{};    // of the block of keys
  CellRows keys_{};        // of the block of keys
  CellRows values_{};      // of the block of keys: rows in pairs, or with few_rows() rows as keys_ are
};

template <typename Policy>
void forward(const Problem& problem, int64_t task, void* scratch) {
  Forward<Policy>(problem, task, scratch).run();
}

// Sums the partial results of the splits of one (query block, batch, kv head), in order.
template <typename Policy>
void combine(const Problem& p, int64_t task) {
  const Floats d;
  const AttentionConfig& c = p.config;
  const int64_t head = task % c.kv_heads, batch = task / c.kv_heads % c.batch,
                block = task / c.kv_heads / c.batch;
  const int64_t query = block * p.forward.queries, queries = smaller(p.forward.queries, c.queries - query);
  const int64_t stride = p.value_padded + kGroup, split = p.group * p.forward.queries * stride;
  for (int64_t r = 0; r < p.group * queries; ++r) {
    float* first = p.partial + task * p.forward.splits * split + r * stride;
    float maximum = -kInfinity, weight = 0.0F;
    for (int64_t s = 0; s < p.forward.splits; ++s) {
      const float value = first[s * split + p.value_padded];
      maximum = value > maximum ? value : maximum;
    }
    const float shift = maximum == -kInfinity ? 0.0F : maximum;
    for (int64_t s = 0; s < p.forward.splits; ++s) {
      const float* part = first + s * split;
      const Vector factor = Policy::exp2(set(part[p.value_padded] - shift));
      weight += hn::GetLane(factor) * part[p.value_padded + 1];
      for (int64_t column = 0; column < p.value_padded; column += kLanes) {
        const Vector value = hn::Mul(hn::Load(d, part + column), factor);
        hn::Store(s == 0 ? value : hn::Add(hn::Load(d, first + column), value), d, first + column);
      }
    }
    Forward<Policy>::store_row(p, batch, head * p.group + r / queries, query + r % queries, first, maximum,
                               weight);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nf::cpu::attention
HWY_AFTER_NAMESPACE();

#endif
