// Builders: functions that add nodes to the graph of their arguments.
//
// Shapes follow NumPy: elementwise operands broadcast against each other, aligned at the last axis.
// Arithmetic on floats runs in f32: bf16 and f16 operands are cast up first and the result is f32, so a
// value's bits never depend on which loop computed it; cast down explicitly where a narrow tensor is wanted.
// f64 stays f64. Axes may be negative. All functions throw Error naming the op, the scope and the shapes when
// the arguments do not fit.
#pragma once

#include <optional>

#include "nf/graph.h"

namespace nf {

// ---- leaves
Value input(Graph& graph, std::string_view name, DType dtype, const Shape& shape);  // given at each run
Value state(Graph& graph, std::string_view name, DType dtype, const Shape& shape);  // lives in the State
Value constant(Graph& graph, double value, DType dtype = DType::f32);               // a scalar
Value constant_like(Value like, double value);                                      // same dtype and shape
Value tensor(Graph& graph, std::vector<double> data, const Shape& shape, DType dtype = DType::f32);
// i32, element = its index along `axis`.
Value iota(Graph& graph, const Shape& shape, int axis);
// Uniform f32 in [0, 1): element n (row-major) is Philox word n of `stream`, keyed by rng, i32 [4] =
// {seed_low, seed_high, step, micro_step}.
Value philox(Value rng, const Shape& shape, uint64_t stream);

// ---- movement
Value reshape(Value x, Shape shape);  // one size may be -1
Value transpose(Value x, const Shape& permutation);
Value transpose(Value x, int axis_a, int axis_b);  // swaps two axes
Value broadcast_to(Value x, const Shape& shape);   // NumPy rules
Value slice(Value x, int axis, int64_t start, int64_t size);
Value concat(const Values& parts, int axis);
Value roll(Value x, int64_t shift);     // along the last axis: y[(j + shift) mod n] = x[j]
Value gather(Value table, Value rows);  // [V, ...], i32 [...] -> [rows..., ...]
Value scatter_add(Value rows, Value updates, int64_t size);  // the transpose of gather: -> [size, ...]
Value squeeze(Value x, int axis);
Value unsqueeze(Value x, int axis);

// ---- elementwise
Value neg(Value x);
Value exp(Value x);
Value log(Value x);
Value sqrt(Value x);
Value rsqrt(Value x);
Value tanh(Value x);
Value sigmoid(Value x);
Value erf(Value x);
Value abs(Value x);
Value sin(Value x);
Value cos(Value x);
Value maximum(Value a, Value b);
Value minimum(Value a, Value b);
Value equal(Value a, Value b);  // boolean, as the two below
Value less(Value a, Value b);
Value less_equal(Value a, Value b);
Value where(Value condition, Value a, Value b);
Value cast(Value x, DType dtype);

Value operator+(Value a, Value b);
Value operator-(Value a, Value b);
Value operator*(Value a, Value b);
Value operator/(Value a, Value b);
Value operator-(Value x);
Value operator+(Value a, double b);
Value operator-(Value a, double b);
Value operator*(Value a, double b);
Value operator/(Value a, double b);
Value operator+(double a, Value b);
Value operator-(double a, Value b);
Value operator*(double a, Value b);
Value operator/(double a, Value b);

// ---- reductions: the reduced axes keep size 1 unless `keep` is false
Value reduce_sum(Value x, const Shape& axes, bool keep = true);
Value reduce_max(Value x, const Shape& axes, bool keep = true);
Value mean(Value x, const Shape& axes, bool keep = true);
Value sum(Value x);  // of everything, to a scalar

// ---- contraction
struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  std::optional<DType> dtype = {};  // of the result; default: the operands'
};
// [..., m, k] x [..., k, n] -> [..., m, n] with equal leading axes, or a matrix b for every leading axis of
// a. Products accumulate in f32 (reference: f64).
Value matmul(Value a, Value b, MatmulOptions options = {});
// y = x W^T (+ bias), weight [out, in] as in PyTorch; the result has the weight's dtype and x is cast to it.
Value linear(Value x, Value weight, Value bias = {});

// ---- functions made of the above
Value square(Value x);
Value relu(Value x);
Value silu(Value x);                                   // x sigmoid(x)
Value gelu(Value x);                                   // x Phi(x), with erf
Value gelu_tanh(Value x);                              // its tanh approximation (Hendrycks & Gimpel 2016)
Value softmax(Value x);                                // over the last axis
Value logsumexp(Value x);                              // over the last axis, kept
Value rms_norm(Value x, double eps, Value gain = {});  // x / sqrt(mean(x^2) + eps) (* gain), f32
Value l2_normalize(Value x, int axis = -1, double eps = 1e-12);  // x / max(|x|, eps), f32
Value lerp(Value a, Value b, Value t);                           // a + t (b - a)
enum class CapType : uint8_t { none, soft, hard };
Value soft_cap(Value x, double cap);                 // cap tanh(x / cap)
Value hard_cap(Value x, double cap);                 // clamp to [-cap, cap]
Value apply_cap(CapType type, double cap, Value x);  // one of the two; none: x itself
// Rotary embedding in its half-split form (Su et al. 2021): x [B, T, H, d]; cos and sin [T, d] or [B, T, d],
// both halves of a row alike but for the sign: sin is negated in the first half.
Value rope(Value x, Value cos, Value sin);
// Zeroes each element with probability p and scales the others by 1 / (1 - p).
Value dropout(Value x, double p, Value rng, uint64_t stream);

// ---- composites: hand-written kernels whose meaning is their decomposition
struct AttentionOptions {
  double scale = 1;
  double cap = 0;
  CapType cap_type = CapType::none;
  bool causal = true;
  int64_t window = 0;  // 0: none; else a query at position p sees keys in (p - window, p]
  double dropout = 0;
  uint64_t dropout_stream = 0;
  // i32 [B, T] and [B, S], both or none: a query sees only keys of its own id, and with an id < 0 nothing.
  Value q_documents = {}, k_documents = {};
  Value length = {};  // i32 scalar: valid keys in a cache, the T new ones included
  Value rng = {};     // needed with dropout
};
// q [B, T, H, d_k], k [B, S, K, d_k], v [B, S, K, d_v] -> [B, T, H, d_v], of q's dtype. Query head h uses
// key/value head h / (H / K). Query i stands at position i + S - T, or length - T + i with `length`. Rows
// that see nothing are 0.
Value attention(Value q, Value k, Value v, const AttentionOptions& options);

struct CrossEntropyOptions {
  double logit_scale = 1;  // logits = cap(logit_scale * scale_v * hidden . weight_v)
  double cap = 0;
  CapType cap_type = CapType::none;
  double z_loss = 0;       // adds z_loss * logsumexp^2 to each token's loss
  int64_t vocab_size = 0;  // rows of the weight from here on are padding, masked to -inf; 0: all count
  Value scale = {};        // [V], optional (nGPT's s_z)
};
inline constexpr int32_t kIgnoreIndex = -100;  // a target that does not count
// hidden [N, D], weight [V, D], targets i32 [N] -> loss f32 [N] per token: logsumexp(logits) -
// logits[target]; 0 where the target is kIgnoreIndex. The logits of all tokens never exist in memory at once.
Value linear_cross_entropy(Value hidden, Value weight, Value targets,
                           const CrossEntropyOptions& options = {});

// Rows of `table` [V, D] -> [ids..., D]; an id outside [0, V) fails the run with Error. The gradient sums
// segments of sorted ids, without atomics.
Value embedding(Value table, Value ids);

// ---- state
// At the end of the run the named state holds `value`; reads of that state in the same graph see the old
// value.
void assign(Value state, Value value);
// Overwrites state[:, offset : offset + n, ...] (axis 1) with value [B, n, ...]; offset is an i32 scalar.
// Returns the state as it is afterwards; nothing else in the graph may read the old one.
Value assign_slice(Value state, Value value, Value offset);

}  // namespace nf
