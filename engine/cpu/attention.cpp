// Attention: checks of the contract, how the work is cut, and the choice of kernels.
#include "cpu/attention.h"

#include <algorithm>

#include "base/parallel.h"
#include "cpu/attention_internal.h"
#include "cpu/isa.h"

namespace nf::cpu {
namespace {

using namespace attention;

constexpr int64_t kFewTasks = 16;    // below this many, work is cut finer than (batch, kv head)
constexpr int64_t kMostSplits = 64;  // tasks that splits of the keys may bring about

void check(const AttentionConfig& c) {
  require(c.batch >= 0 && c.queries >= 0 && c.keys >= 0,
          "attention: batch {}, queries {} and keys {} must not be negative", c.batch, c.queries, c.keys);
  require(c.keys < int64_t{1} << 30 && c.queries < int64_t{1} << 30,
          "attention: {} queries and {} keys, fewer than 2^30 are supported", c.queries, c.keys);
  require(c.kv_heads > 0 && c.heads > 0 && c.heads % c.kv_heads == 0,
          "attention: {} query heads must be a positive multiple of {} key heads", c.heads, c.kv_heads);
  require(c.key_width >= 1 && c.key_width <= kMostWidth && c.value_width >= 1 && c.value_width <= kMostWidth,
          "attention: key width {} and value width {} must be 1 … {}", c.key_width, c.value_width,
          kMostWidth);
  require(c.cap_type == CapType::none || c.cap > 0.0F, "attention: cap {} must be positive", c.cap);
  require(c.window >= 0, "attention: window {} must not be negative", c.window);
  require(c.dropout >= 0.0F && c.dropout < 1.0F, "attention: dropout {} must be in [0, 1)", c.dropout);
}

void check_inputs(const AttentionConfig& c, const AttentionInputs& in) {
  require((in.q_documents == nullptr) == (in.k_documents == nullptr),
          "attention: documents must be given for both queries and keys, or for neither");
  require((in.rng != nullptr) || c.dropout == 0.0F, "attention: dropout {} needs the random state",
          c.dropout);
  require(in.k.dtype == in.q.dtype && in.v.dtype == in.q.dtype,
          "attention: q is {}, k {}, v {}; they must be equal", name(in.q.dtype), name(in.k.dtype),
          name(in.v.dtype));
}

Operand operand(const char* what, const TensorView& view, int64_t rows, int64_t heads,
                const AttentionConfig& c, int64_t width) {
  require(view.dtype == DType::f32 || view.dtype == DType::bf16, "attention: {} is {}, must be f32 or bf16",
          what, name(view.dtype));
  require(view.shape == Shape({c.batch, rows, heads, width}), "attention: {} is {}, must be {}", what,
          view.shape, Shape({c.batch, rows, heads, width}));
  require(view.strides.rank() == 4 && (width == 1 || view.strides[3] == 1),
          "attention: {} has strides {}, the last must be 1", what, view.strides);
  return {view.as<char>(), view.strides[0], view.strides[1], view.strides[2], view.dtype == DType::bf16};
}

// Blocks of queries hold about 256 rows of a group, fewer when that leaves too few tasks. Where even those
// are few (decoding), keys are split too.
ForwardPlan plan_forward(const AttentionConfig& c) {
  const int64_t group = c.heads / c.kv_heads, heads = std::max<int64_t>(1, c.batch * c.kv_heads);
  ForwardPlan plan{};
  plan.queries = std::clamp<int64_t>(256 / group / kGroup * kGroup, kGroup, 128);
  while (plan.queries > 2 * kGroup && heads * div_up(c.queries, plan.queries) < kFewTasks) plan.queries /= 2;
  plan.queries = std::min(plan.queries, std::max<int64_t>(1, c.queries));
  plan.blocks = div_up(c.queries, plan.queries);
  const int64_t lots = std::max<int64_t>(1, heads * plan.blocks);
  plan.split_keys = round_up(std::max<int64_t>(c.keys, 1), kForwardKeys);
  if (lots < kFewTasks)
    plan.split_keys = round_up(std::max(4 * kForwardKeys, c.keys * lots / kMostSplits), kForwardKeys);
  plan.splits = std::max<int64_t>(1, div_up(c.keys, plan.split_keys));
  plan.tasks = plan.blocks * c.batch * c.kv_heads * plan.splits;
  return plan;
}

BackwardPlan plan_backward(const AttentionConfig& c) {
  BackwardPlan plan{};
  plan.whole_group = c.heads == c.kv_heads || c.batch * c.kv_heads >= kFewTasks;
  const int64_t lots = std::max<int64_t>(1, c.batch * (plan.whole_group ? c.kv_heads : c.heads));
  const int64_t chunks = std::clamp<int64_t>(div_up(kFewTasks, lots), 1, 8);
  plan.chunk_keys = round_up(std::max<int64_t>(1, div_up(c.keys, chunks)), kBackwardKeys);
  plan.chunks = std::max<int64_t>(1, div_up(c.keys, plan.chunk_keys));
  plan.tasks = c.batch * (plan.whole_group ? c.kv_heads : c.heads) * plan.chunks;
  return plan;
}

Problem describe(const AttentionConfig& c) {
  check(c);
  Problem p{};
  p.config = c;
  p.group = c.heads / c.kv_heads;
  p.key_padded = round_up(c.key_width, kGroup);
  p.value_padded = round_up(c.value_width, kGroup);
  p.forward = plan_forward(c);
  p.backward = plan_backward(c);
  return p;
}

// The parts of a call's workspace; with a null workspace, only their size.
struct Workspace {
  char* scratch = nullptr;  // one piece per thread
  int64_t scratch_bytes = 0;
  size_t bytes = 0;
};

Workspace carve_forward_workspace(Problem& p, void* workspace, int threads) {
  Carver counter(nullptr), carver(workspace);
  carve_forward(p, counter);
  Workspace w;
  w.scratch_bytes = counter.used();
  w.scratch = carver.take<char>(w.scratch_bytes * std::max(threads, 1));
  if (p.forward.splits > 1)
    p.partial = carver.take<float>(p.forward.tasks * p.group * p.forward.queries * (p.value_padded + kGroup));
  w.bytes = static_cast<size_t>(carver.used());
  return w;
}

Workspace carve_backward_workspace(Problem& p, void* workspace, int threads) {
  const AttentionConfig& c = p.config;
  Carver counter(nullptr), carver(workspace);
  carve_backward(p, counter);
  Workspace w;
  w.scratch_bytes = std::max<int64_t>(counter.used(), 2 * 4 * p.value_padded);
  w.scratch = carver.take<char>(w.scratch_bytes * std::max(threads, 1));
  p.delta = carver.take<float>(c.batch * c.heads * c.queries);
  if (p.backward.chunks > 1)
    p.partial_dq = carver.take<float>(p.backward.chunks * c.batch * c.heads * c.queries * p.key_padded);
  if (!p.backward.whole_group) {
    p.partial_dk = carver.take<float>(c.batch * c.heads * c.keys * p.key_padded);
    p.partial_dv = carver.take<float>(c.batch * c.heads * c.keys * p.value_padded);
  }
  w.bytes = static_cast<size_t>(carver.used());
  return w;
}

void bind(Problem& p, const AttentionInputs& in) {
  const AttentionConfig& c = p.config;
  check_inputs(c, in);
  p.q = operand("q", in.q, c.queries, c.heads, c, c.key_width);
  p.k = operand("k", in.k, c.keys, c.kv_heads, c, c.key_width);
  p.v = operand("v", in.v, c.keys, c.kv_heads, c, c.value_width);
  p.q_documents = in.q_documents;
  p.k_documents = in.k_documents;
  const int64_t length = in.length == nullptr ? c.keys : *in.length;
  p.limit = std::clamp<int64_t>(length, 0, c.keys);
  p.offset = length - c.queries;
  if (in.rng != nullptr) {
    p.key_low = in.rng[0] ^ (in.rng[2] * 0x9E3779B9U);
    p.key_high = in.rng[1] ^ (in.rng[3] * 0x85EBCA6BU);
  }
}

const Kernels& choose_kernels([[maybe_unused]] DType dtype) {
  const CpuFeatures& features = cpu_features();
#if defined(__x86_64__)
  if (dtype == DType::bf16 && features.avx512_bf16) return bf16_kernels();
#endif
  return f32_kernels(features.avx2, features.avx512);
}

// Runs function(problem, task, a thread's scratch) for every task.
void run_tasks(const Problem& p, const Workspace& w, int threads, int64_t tasks,
               void (*function)(const Problem&, int64_t, void*)) {
  parallel_for(threads, tasks,
               [&](int64_t task, int thread) { function(p, task, w.scratch + thread * w.scratch_bytes); });
}

}  // namespace

size_t attention_forward_workspace(const AttentionConfig& config, DType /*dtype*/, int threads) {
  Problem p = describe(config);
  return carve_forward_workspace(p, nullptr, threads).bytes;
}

void attention_forward(const AttentionConfig& config, const AttentionInputs& inputs, TensorView out,
                       float* logsumexp, void* workspace, int threads) {
  Problem p = describe(config);
  bind(p, inputs);
  p.out = operand("out", out, config.queries, config.heads, config, config.value_width);
  p.logsumexp = logsumexp;
  const Workspace w = carve_forward_workspace(p, workspace, threads);
  const Kernels& kernels = choose_kernels(inputs.q.dtype);
  run_tasks(p, w, threads, p.forward.tasks, kernels.forward);
  if (p.forward.splits == 1) return;
  parallel_for(threads, p.forward.tasks / p.forward.splits, [&](int64_t task) { kernels.combine(p, task); });
}

size_t attention_backward_workspace(const AttentionConfig& config, DType /*dtype*/, int threads) {
  Problem p = describe(config);
  return carve_backward_workspace(p, nullptr, threads).bytes;
}

void attention_backward(const AttentionConfig& config, const AttentionInputs& inputs, TensorView out,
                        const float* logsumexp, TensorView grad_out, TensorView grad_q, TensorView grad_k,
                        TensorView grad_v, void* workspace, int threads) {
  const AttentionConfig& c = config;
  Problem p = describe(c);
  bind(p, inputs);
  p.out = operand("out", out, c.queries, c.heads, c, c.value_width);
  p.grad_out = operand("the gradient of out", grad_out, c.queries, c.heads, c, c.value_width);
  p.grad_q = operand("the gradient of q", grad_q, c.queries, c.heads, c, c.key_width);
  p.grad_k = operand("the gradient of k", grad_k, c.keys, c.kv_heads, c, c.key_width);
  p.grad_v = operand("the gradient of v", grad_v, c.keys, c.kv_heads, c, c.value_width);
  p.logsumexp_in = logsumexp;
  const Workspace w = carve_backward_workspace(p, workspace, threads);
  const Kernels& kernels = choose_kernels(inputs.q.dtype);
  const int64_t query_blocks = div_up(c.queries, kDeltaRows), key_blocks = div_up(c.keys, kDeltaRows);
  run_tasks(p, w, threads, c.batch * c.heads * query_blocks, kernels.delta);
  run_tasks(p, w, threads, p.backward.tasks, kernels.backward);
  if (p.backward.chunks > 1)
    parallel_for(threads, c.batch * c.heads * query_blocks,
                 [&](int64_t task) { kernels.finish_dq(p, task); });
  if (!p.backward.whole_group)
    parallel_for(threads, c.batch * c.kv_heads * key_blocks,
                 [&](int64_t task) { kernels.finish_dkv(p, task); });
}

}  // namespace nf::cpu
