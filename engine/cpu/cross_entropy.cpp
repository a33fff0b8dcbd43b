#include "cpu/cross_entropy.h"

#include <algorithm>
#include <limits>

#include "base/parallel.h"
#include "cpu/cross_entropy_rows.h"
#include "cpu/gemm.h"

namespace nf::cpu {
namespace {

constexpr int64_t kLogitBytes = 32 << 20;  // a chunk's f32 logits stay below this
constexpr int64_t kRowsPerTask = 8;
constexpr size_t kAlignment = 64;

// Tokens per chunk: by the vocabulary alone, and at least enough rows for an efficient product.
int64_t chunk_tokens(const CrossEntropyConfig& config) {
  const int64_t fitting = kLogitBytes / (config.vocab * 4) / 64 * 64;
  return std::min(config.tokens, std::max<int64_t>(64, fitting));
}

// The scale's gradient is a sum over tokens: partial sums per group of rows keep its order fixed.
int64_t scale_groups(int64_t tokens) { return (tokens + kRowsPerTask - 1) / kRowsPerTask; }

struct Products {
  GemmArgs logits, hidden, weight;
};

Products products(const CrossEntropyConfig& c, int64_t rows) {
  Products p;
  p.logits = {.m = rows,
              .n = c.vocab,
              .k = c.width,
              .a = {nullptr, c.dtype, c.width, 1},
              .b = {nullptr, c.dtype, 1, c.width},
              .c_dtype = DType::f32,
              .c_row_stride = c.vocab};
  p.hidden = {.m = rows,
              .n = c.width,
              .k = c.vocab,
              .a = {nullptr, c.dtype, c.vocab, 1},
              .b = {nullptr, c.dtype, c.width, 1},
              .c_dtype = c.dtype,
              .c_row_stride = c.width};
  p.weight = {.m = c.vocab,
              .n = c.width,
              .k = rows,
              .a = {nullptr, c.dtype, 1, c.vocab},
              .b = {nullptr, c.dtype, c.width, 1},
              .c_dtype = DType::f32,
              .c_row_stride = c.width,
              .accumulate = true};
  return p;
}

size_t gemm_bytes(const CrossEntropyConfig& config, bool backward, int threads) {
  size_t bytes = 0;
  for (const int64_t rows : {chunk_tokens(config), config.tokens % chunk_tokens(config)}) {
    if (rows == 0) continue;
    const Products p = products(config, rows);
    bytes = std::max(bytes, gemm_workspace(p.logits, threads));
    if (!backward) continue;
    bytes = std::max({bytes, gemm_workspace(p.hidden, threads), gemm_workspace(p.weight, threads)});
  }
  return bytes;
}

// The scratch memory, carved in order. With a null start it only counts.
struct Scratch {
  float* logits;       // [chunk, V]
  std::byte* grads;    // [chunk, V] in the config's dtype
  float* scale_terms;  // [groups, V] sums, and one row of terms for each group
  std::byte* gemm;
  size_t bytes;

  Scratch(const CrossEntropyConfig& c, bool backward, int threads, void* start) {
    size_t used = 0;
    const auto carve = [&](size_t size) {
      std::byte* at = static_cast<std::byte*>(start) + used;
      used += (size + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    };
    const auto row = static_cast<size_t>(c.vocab);
    const auto chunk = static_cast<size_t>(chunk_tokens(c));
    logits = reinterpret_cast<float*>(carve(chunk * row * sizeof(float)));
    grads = carve(backward ? chunk * row * static_cast<size_t>(size_of(c.dtype)) : 0);
    const size_t groups = backward ? static_cast<size_t>(scale_groups(chunk_tokens(c))) : 0;
    scale_terms = reinterpret_cast<float*>(carve(groups * row * 3 * sizeof(float)));
    gemm = carve(gemm_bytes(c, backward, threads));
    bytes = used;
  }
};

LogitRow row_of(const CrossEntropyConfig& c, const CrossEntropyInputs& inputs, float* logits) {
  return {logits,
          inputs.scale,
          c.vocab,
          c.options.vocab_size == 0 ? c.vocab : c.options.vocab_size,
          static_cast<float>(c.options.logit_scale),
          static_cast<float>(c.options.cap),
          c.options.cap_type};
}

float token_loss(const CrossEntropyConfig& c, const LogitRow& row, int32_t target, float logsumexp) {
  if (target == kIgnoreIndex) return 0;
  if (target < 0 || target >= row.real) return std::numeric_limits<float>::quiet_NaN();
  return logsumexp - row.logits[target] + static_cast<float>(c.options.z_loss) * logsumexp * logsumexp;
}

const std::byte* row_address(const void* base, DType dtype, int64_t row, int64_t width) {
  return static_cast<const std::byte*>(base) + row * width * size_of(dtype);
}

void project(const CrossEntropyConfig& c, const CrossEntropyInputs& inputs, int64_t first, int64_t rows,
             const Scratch& scratch, int threads) {
  GemmArgs args = products(c, rows).logits;
  args.a.data = row_address(inputs.hidden, c.dtype, first, c.width);
  args.b.data = inputs.weight;
  args.c = scratch.logits;
  gemm(args, scratch.gemm, threads);
}

// What happens between the products of one chunk, for a group of rows.
struct RowPass {
  const CrossEntropyConfig& config;
  const CrossEntropyInputs& inputs;
  const float* grad_loss;
  const CrossEntropyGradients& gradients;
  const Scratch& scratch;
  int64_t first, rows;

  void operator()(int64_t group) const {
    const int64_t vocab = config.vocab;
    float* const sums = scratch.scale_terms + group * vocab * 3;
    float* const terms = sums + vocab;
    float* const projected = terms + vocab;
    const bool scaled = inputs.scale != nullptr;
    if (scaled) std::fill_n(sums, vocab, 0.0F);
    for (int64_t i = group * kRowsPerTask; i < std::min(rows, (group + 1) * kRowsPerTask); ++i) {
      const int64_t token = first + i;
      float* const logits = scratch.logits + i * vocab;
      if (scaled) std::copy_n(logits, vocab, projected);
      const LogitRow row = row_of(config, inputs, logits);
      const float logsumexp = finish_logits(row);
      const int32_t target = inputs.targets[token];
      gradients.loss[token] = token_loss(config, row, target, logsumexp);
      std::byte* const out = scratch.grads + i * vocab * size_of(config.dtype);
      if (target < 0 || target >= row.real) {
        std::fill_n(out, vocab * size_of(config.dtype), std::byte{0});
        continue;
      }
      const auto z_factor =
          static_cast<float>(1 + 2 * config.options.z_loss * static_cast<double>(logsumexp));
      logits_gradient({row, projected, logsumexp, grad_loss[token], z_factor, target, out, config.dtype,
                       scaled ? terms : nullptr});
      if (scaled) add_to(sums, terms, vocab);
    }
  }
};

}  // namespace

size_t cross_entropy_workspace(const CrossEntropyConfig& config, bool backward, int threads) {
  return Scratch(config, backward, threads, nullptr).bytes;
}

void cross_entropy_forward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs, float* loss,
                           float* logsumexp, void* workspace, int threads) {
  const Scratch scratch(config, false, threads, workspace);
  const int64_t chunk = chunk_tokens(config);
  for (int64_t first = 0; first < config.tokens; first += chunk) {
    const int64_t rows = std::min(chunk, config.tokens - first);
    project(config, inputs, first, rows, scratch, threads);
    parallel_for(threads, scale_groups(rows), [&](int64_t group) {
      for (int64_t i = group * kRowsPerTask; i < std::min(rows, (group + 1) * kRowsPerTask); ++i) {
        const LogitRow row = row_of(config, inputs, scratch.logits + i * config.vocab);
        logsumexp[first + i] = finish_logits(row);
        loss[first + i] = token_loss(config, row, inputs.targets[first + i], logsumexp[first + i]);
      }
    });
  }
}

void cross_entropy_backward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs,
                            const float* grad_loss, const CrossEntropyGradients& gradients, void* workspace,
                            int threads) {
  const Scratch scratch(config, true, threads, workspace);
  const int64_t chunk = chunk_tokens(config), vocab = config.vocab;
  if (gradients.scale != nullptr) std::fill_n(gradients.scale, vocab, 0.0F);
  for (int64_t first = 0; first < config.tokens; first += chunk) {
    const int64_t rows = std::min(chunk, config.tokens - first);
    project(config, inputs, first, rows, scratch, threads);
    parallel_for(threads, scale_groups(rows),
                 RowPass{config, inputs, grad_loss, gradients, scratch, first, rows});
    if (gradients.scale != nullptr)
      for (int64_t group = 0; group < scale_groups(rows); ++group)
        add_to(gradients.scale, scratch.scale_terms + group * vocab * 3, vocab);
    Products p = products(config, rows);
    p.hidden.a.data = p.weight.a.data = scratch.grads;
    p.hidden.b.data = inputs.weight;
    p.hidden.c = static_cast<std::byte*>(gradients.hidden) + first * config.width * size_of(config.dtype);
    gemm(p.hidden, scratch.gemm, threads);
    p.weight.b.data = row_address(inputs.hidden, config.dtype, first, config.width);
    p.weight.c = gradients.weight;
    p.weight.accumulate = gradients.accumulate || first > 0;
    gemm(p.weight, scratch.gemm, threads);
  }
}

}  // namespace nf::cpu
