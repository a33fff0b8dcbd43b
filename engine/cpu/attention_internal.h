// What the drivers of attention (attention.cpp) share with its kernels, one set per instruction set
// (attention_f32.cpp, attention_avx512bf16.cpp). The kernels' files are compiled for processors that may
// not be this one, so no function here may exist out of line, where another file's copy could be linked
// instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/attention.h"
#include "cpu/carver.h"

namespace nf::cpu::attention {

// Rows are handled in groups; columns are padded to whole groups. A group is a multiple of every vector
// length used.
inline constexpr int64_t kGroup = 16;
inline constexpr int64_t kMostWidth = 256;       // of a head
inline constexpr int64_t kForwardKeys = 128;     // keys of a block, forward
inline constexpr int64_t kBackwardKeys = 128;    // keys of a block, backward
inline constexpr int64_t kBackwardQueries = 64;  // queries of a block, backward
inline constexpr int64_t kDeltaRows = 64;        // rows of one task of the passes that are bound by memory

[[gnu::always_inline]] constexpr int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}
[[gnu::always_inline]] constexpr int64_t div_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit;
}

// A [batch, row, head, width] operand; strides in elements, that of width is 1.
struct Operand {
  char* data;
  int64_t batch, row, head;
  bool bf16;

  [[gnu::always_inline]] char* at(int64_t b, int64_t r, int64_t h) const {
    return data + (b * batch + r * row + h * head) * (bf16 ? 2 : 4);
  }
};

// How the forward work is cut: tasks are (batch, kv head, query block, key split).
struct ForwardPlan {
  int64_t queries;     // of a block; a task holds group * queries rows
  int64_t blocks;      // of queries
  int64_t split_keys;  // keys of a split
  int64_t splits;      // 1: the task writes the result itself; else attention_forward_combine does
  int64_t tasks;
};

// How the backward work is cut: tasks are (key chunk, batch, kv head, head of the group unless whole_group).
struct BackwardPlan {
  bool whole_group;    // a task sums dk, dv over the group's heads; else they are partial sums per head
  int64_t chunk_keys;  // keys of a chunk
  int64_t chunks;      // 1: the task owns dq; else dq is a partial sum per chunk
  int64_t tasks;
};

struct Problem {
  AttentionConfig config;
  int64_t group;       // query heads of a kv head
  int64_t key_padded;  // widths rounded up to a whole group
  int64_t value_padded;
  int64_t limit;               // keys at or past it are invisible
  int64_t offset;              // position of query 0
  uint32_t key_low, key_high;  // of Philox
  const int32_t* q_documents;
  const int32_t* k_documents;
  Operand q, k, v, out, grad_out, grad_q, grad_k, grad_v;
  float* logsumexp;
  const float* logsumexp_in;
  ForwardPlan forward;
  BackwardPlan backward;
  float*
      partial;   // forward: [block, B, K, split][row][value_padded + kGroup]: sum, then maximum, then weight
  float* delta;  // backward: [B, H, T], sum over d_v of out * grad_out
  float* partial_dq;  // [chunk, B, H, T, key_padded], when chunks > 1
  float* partial_dk;  // [B, H, S, key_padded], when group > 1 and not whole_group
  float* partial_dv;  // [B, H, S, value_padded], likewise
};

// A cell holds one f32 or two neighbouring bf16: what one lane of a product takes in one instruction.
using Cell = uint32_t;

// Keys that a group of rows sees, from the first that any of its rows sees; inner: those that all of them
// see.
struct Span {
  int64_t first, last;
  int64_t inner_first, inner_last;
  int32_t document_low, document_high;  // of its rows that see anything
};

struct ForwardScratch {
  Cell* q;               // [group * queries][key_padded]
  Span* spans;           // [group * queries / kGroup], rounded up
  Cell* k_rows;          // [kForwardKeys][key_padded]
  Cell* k_columns;       // [key_padded][kForwardKeys]
  Cell* v_rows;          // [kForwardKeys][value_padded]
  Cell* v_pairs;         // [kForwardKeys / 2][value_padded]
  float* scores;         // [kGroup][kForwardKeys]
  Cell* weights;         // [kGroup][kForwardKeys]
  float* sum;            // [group * queries][value_padded]
  float* maximum;        // [group * queries]
  float* weight;         // [group * queries][kGroup]: lanes of the sum of exponentials
  float* rescale;        // [kGroup]
  float* shift;          // [kGroup]
  int32_t* first;        // [queries]: first visible key
  int32_t* last;         // [queries]: past the last visible key
  int32_t* q_documents;  // [queries]
  int32_t* k_documents;  // [kForwardKeys]
  uint32_t* random;      // [kForwardKeys + 5 * kGroup]
};

[[gnu::always_inline]] inline ForwardScratch carve_forward(const Problem& p, Carver& carver) {
  const int64_t rows = round_up(p.group * p.forward.queries, kGroup);
  ForwardScratch s{};
  s.q = carver.take<Cell>(rows * p.key_padded);
  s.spans = carver.take<Span>(rows / kGroup);
  s.k_rows = carver.take<Cell>(kForwardKeys * p.key_padded);
  s.k_columns = carver.take<Cell>(kForwardKeys * p.key_padded);
  s.v_rows = carver.take<Cell>(kForwardKeys * p.value_padded);
  s.v_pairs = carver.take<Cell>(kForwardKeys / 2 * p.value_padded);
  s.scores = carver.take<float>(kGroup * kForwardKeys);
  s.weights = carver.take<Cell>(kGroup * kForwardKeys);
  s.sum = carver.take<float>(rows * p.value_padded);
  s.maximum = carver.take<float>(rows);
  s.weight = carver.take<float>(rows * kGroup);
  s.rescale = carver.take<float>(kGroup);
  s.shift = carver.take<float>(kGroup);
  s.first = carver.take<int32_t>(p.forward.queries);
  s.last = carver.take<int32_t>(p.forward.queries);
  s.q_documents = carver.take<int32_t>(p.forward.queries);
  s.k_documents = carver.take<int32_t>(kForwardKeys);
  s.random = carver.take<uint32_t>(kForwardKeys + 5 * kGroup);
  return s;
}

struct BackwardScratch {
  Cell* k_rows;          // [kBackwardKeys][key_padded]
  Cell* k_columns;       // [key_padded][kBackwardKeys]
  Cell* k_pairs;         // [kBackwardKeys / 2][key_padded]
  Cell* v_rows;          // [kBackwardKeys][value_padded]
  Cell* v_columns;       // [value_padded][kBackwardKeys]
  Cell* q_rows;          // [kBackwardQueries][key_padded]
  Cell* q_pairs;         // [kBackwardQueries / 2][key_padded]
  Cell* go_rows;         // [kBackwardQueries][value_padded]: grad_out
  Cell* go_pairs;        // [kBackwardQueries / 2][value_padded]
  float* scores;         // [kGroup][kBackwardKeys]
  float* dweights;       // [kGroup][kBackwardKeys]: gradient of the softmax weights
  Cell* ds_rows;         // [kGroup][kBackwardKeys]: gradient of the scores
  Cell* ds_pairs;        // [kBackwardQueries][kBackwardKeys]: the same, neighbouring rows in one cell
  Cell* p_pairs;         // [kBackwardQueries][kBackwardKeys]: the softmax weights, likewise
  float* dk;             // [kBackwardKeys][key_padded]
  float* dv;             // [kBackwardKeys][value_padded]
  float* dq;             // [heads of the task][T][key_padded], null when dq is a partial sum
  Span* spans;           // [T / kGroup], rounded up
  float* lse;            // [kBackwardQueries]: log-sum-exp times log2(e); infinity for rows that see nothing
  float* delta;          // [kBackwardQueries]
  int32_t* k_documents;  // [kBackwardKeys]
  uint32_t* random;      // [2][kBackwardKeys + 5 * kGroup]
};

[[gnu::always_inline]] inline BackwardScratch carve_backward(const Problem& p, Carver& carver) {
  BackwardScratch s{};
  s.k_rows = carver.take<Cell>(kBackwardKeys * p.key_padded);
  s.k_columns = carver.take<Cell>(kBackwardKeys * p.key_padded);
  s.k_pairs = carver.take<Cell>(kBackwardKeys / 2 * p.key_padded);
  s.v_rows = carver.take<Cell>(kBackwardKeys * p.value_padded);
  s.v_columns = carver.take<Cell>(kBackwardKeys * p.value_padded);
  s.q_rows = carver.take<Cell>(kBackwardQueries * p.key_padded);
  s.q_pairs = carver.take<Cell>(kBackwardQueries / 2 * p.key_padded);
  s.go_rows = carver.take<Cell>(kBackwardQueries * p.value_padded);
  s.go_pairs = carver.take<Cell>(kBackwardQueries / 2 * p.value_padded);
  s.scores = carver.take<float>(kGroup * kBackwardKeys);
  s.dweights = carver.take<float>(kGroup * kBackwardKeys);
  s.ds_rows = carver.take<Cell>(kGroup * kBackwardKeys);
  s.ds_pairs = carver.take<Cell>(kBackwardQueries * kBackwardKeys);
  s.p_pairs = carver.take<Cell>(kBackwardQueries * kBackwardKeys);
  s.dk = carver.take<float>(kBackwardKeys * p.key_padded);
  s.dv = carver.take<float>(kBackwardKeys * p.value_padded);
  if (p.backward.chunks == 1)
    s.dq = carver.take<float>((p.backward.whole_group ? p.group : 1) * p.config.queries * p.key_padded);
  s.spans = carver.take<Span>(div_up(p.config.queries, kGroup));
  s.lse = carver.take<float>(kBackwardQueries);
  s.delta = carver.take<float>(kBackwardQueries);
  s.k_documents = carver.take<int32_t>(kBackwardKeys);
  s.random = carver.take<uint32_t>(2 * (kBackwardKeys + 5 * kGroup));
  return s;
}

// The kernels of one instruction set. Every function does task number `task`; `scratch` is one thread's.
struct Kernels {
  const char* name;
  void (*forward)(const Problem&, int64_t task, void* scratch);
  void (*combine)(const Problem&, int64_t task);               // task: (block, batch, kv head)
  void (*delta)(const Problem&, int64_t task, void* scratch);  // task: (batch, head, kDeltaRows queries)
  void (*backward)(const Problem&, int64_t task, void* scratch);
  void (*finish_dq)(const Problem&, int64_t task);   // task: (batch, head, kDeltaRows queries)
  void (*finish_dkv)(const Problem&, int64_t task);  // task: (batch, kv head, kDeltaRows keys)
};

// Products by f32 FMA; operands f32 or bf16.
const Kernels& f32_kernels(bool avx2, bool avx512);
// Products by VDPBF16PS; q, k, v must be bf16. Only on x86-64.
const Kernels& bf16_kernels();

}  // namespace nf::cpu::attention
