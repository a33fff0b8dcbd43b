// A chunk of tokens meets the vocabulary twice, block by block.
//
// First, a block's logits are made and turned at once, still in cache, into exponentials e^(logit - r_t) that
// wait in the operands' dtype. r_t is the largest logit of a first block: exponentials keep their relative
// precision whatever r_t is, so it need not be the largest of all, only near enough for no overflow (where it
// is not, they are made again). Then the sums give every token's logsumexp and loss, and its gradient with
// respect to the logits is
//
//   g_t (1 + 2 z_loss logsumexp_t) e^(r_t - logsumexp_t) e^(logit - r_t)  -  g_t [v is the target]
//
// Second, the exponentials go into both remaining products as they are: the factors that do not depend on the
// word are applied to the hidden state's gradient afterwards and to the hidden states beforehand, and the
// target's part is a single row of each. So every logit is made once and read twice.
//
// The vocabulary falls into a few parts of blocks, each with its own r_t and its own sums for the hidden
// state's gradient, which are added in order at the end. So a thread can take whole parts, whose logits and
// exponentials no other thread then touches; where there are more threads than suit the parts, all work on
// each product.
#include "cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "cpu/carver.h"
#include "cpu/cross_entropy_rows.h"
#include "cpu/gemm.h"
#include "cpu/gemm_kernel.h"
#include "nf/error.h"

namespace nf::cpu {
namespace {

constexpr int64_t kMostColumns = 1024;           // of a block: a block's logits stay in cache
constexpr int64_t kMostParts = 8;                // of the vocabulary
constexpr double kBalanced = 0.85;               // share of the threads' time that parts must at least fill
constexpr int64_t kMostTokens = 512;             // of a chunk
constexpr int64_t kExponentialBytes = 52 << 20;  // of a chunk
constexpr float kSafeExponent = 60;              // e^60 times the vocabulary's size is far from overflow
constexpr int64_t kRowsPerTask = 8, kColumnsPerTask = 64;

// The cut follows from the sizes alone. Every part has a block at least.
int64_t part_count(const CrossEntropyConfig& c) {
  return std::clamp<int64_t>(ceil_div(c.vocab, kMostColumns), 1, kMostParts);
}
// Columns of all blocks but the last, which may have fewer.
int64_t block_columns(const CrossEntropyConfig& c) {
  const int64_t blocks = round_up(std::max<int64_t>(1, ceil_div(c.vocab, kMostColumns)), part_count(c));
  return round_up(ceil_div(c.vocab, blocks), 16);
}
int64_t block_count(const CrossEntropyConfig& c) { return ceil_div(c.vocab, block_columns(c)); }

// From one token's row of a block to the next's: an odd number of lines of bf16, since rows a power of two
// apart would compete for the same places in the first-level cache.
int64_t row_stride(const CrossEntropyConfig& c) { return (ceil_div(block_columns(c), 32) | 1) * 32; }

int64_t chunk_tokens(const CrossEntropyConfig& c) {
  const int64_t fitting = kExponentialBytes / (block_count(c) * row_stride(c) * size_of(c.dtype)) / 64 * 64;
  return std::min(c.tokens, std::clamp<int64_t>(fitting, 64, kMostTokens));
}

// Threads that take parts of their own; 1: all work on the same block.
int lane_count(const CrossEntropyConfig& c, int threads) {
  const auto parts = static_cast<double>(part_count(c)), lanes = static_cast<double>(threads);
  return parts / (lanes * std::ceil(parts / lanes)) >= kBalanced ? threads : 1;
}

// Threads that work on one block.
int lane_threads(const CrossEntropyConfig& c, int threads) {
  return lane_count(c, threads) > 1 ? 1 : threads;
}

// A token of the present chunk.
struct Token {
  float target_projected = 0;  // hidden . weight of the target
  float target_scale = 0;
  float factor = 0;         // of its probabilities, in the gradient with respect to hidden . weight x scale
  float target_factor = 0;  // what the target adds to that
};

// What works on one block: its memory, and threads for each product.
struct Lane {
  int threads = 1;
  float* logits = nullptr;       // [chunk, block], rows row_stride apart
  std::byte* hidden = nullptr;   // [chunk, D], the hidden states times their tokens' factors
  std::byte* weight = nullptr;   // [block, D], a block of the weight times its scale, where it has one
  float* weight_sums = nullptr;  // [block, D], likewise
  std::byte* gemm = nullptr;
};

// The scratch memory, carved in order. With a null start it only counts.
struct Scratch {
  Token* tokens;            // [chunk]
  ExponentialSum* sums;     // [blocks, chunk]
  float* references;        // [parts, chunk], r_t
  float* factors;           // [parts, chunk], of the exponentials
  std::byte* exponentials;  // [blocks][chunk, block] in the config's dtype, rows row_stride apart
  float* hidden_sums;       // [parts][chunk, D]
  std::byte* lanes;
  int64_t lane_bytes;
  size_t gemm, bytes;  // of a lane's products; of everything

  Scratch(const CrossEntropyConfig& c, bool backward, int threads, void* start);
};

struct Products {
  GemmArgs logits, hidden, weight;
};

Products products(const CrossEntropyConfig& c, int64_t tokens, int64_t columns) {
  Products p;
  p.logits = {.m = tokens,
              .n = columns,
              .k = c.width,
              .a = {nullptr, c.dtype, c.width, 1},
              .b = {nullptr, c.dtype, 1, c.width},
              .c_dtype = DType::f32,
              .c_row_stride = row_stride(c)};
  p.hidden = {.m = tokens,
              .n = c.width,
              .k = columns,
              .a = {nullptr, c.dtype, row_stride(c), 1},
              .b = {nullptr, c.dtype, c.width, 1},
              .c_dtype = DType::f32,
              .c_row_stride = c.width};
  p.weight = {.m = columns,
              .n = c.width,
              .k = tokens,
              .a = {nullptr, c.dtype, 1, row_stride(c)},
              .b = {nullptr, c.dtype, c.width, 1},
              .c_dtype = DType::f32,
              .c_row_stride = c.width};
  return p;
}

size_t gemm_bytes(const CrossEntropyConfig& c, bool backward, int threads) {
  size_t bytes = 0;
  const int64_t block = block_columns(c);
  for (const int64_t tokens : {chunk_tokens(c), c.tokens % std::max<int64_t>(chunk_tokens(c), 1)}) {
    if (tokens == 0) continue;
    for (const int64_t columns : {std::min(block, c.vocab), c.vocab % block}) {
      if (columns == 0) continue;
      const Products p = products(c, tokens, columns);
      for (const GemmArgs* product : {&p.logits, &p.hidden, &p.weight})
        if (product == &p.logits || backward)
          bytes = std::max(bytes, gemm_workspace(*product, lane_threads(c, threads)));
    }
  }
  return bytes;
}

// `gemm`: bytes for a product.
Lane carve_lane(const CrossEntropyConfig& c, bool backward, int threads, size_t gemm, Carver& carver) {
  const int64_t weights = backward && c.scaled ? block_columns(c) * c.width : 0;
  Lane lane;
  lane.threads = lane_threads(c, threads);
  lane.logits = carver.take<float>(chunk_tokens(c) * row_stride(c));
  lane.hidden = carver.take<std::byte>(backward ? chunk_tokens(c) * c.width * size_of(c.dtype) : 0);
  lane.weight = carver.take<std::byte>(weights * size_of(c.dtype));
  lane.weight_sums = carver.take<float>(weights);
  lane.gemm = carver.take<std::byte>(static_cast<int64_t>(gemm));
  return lane;
}

Scratch::Scratch(const CrossEntropyConfig& c, bool backward, int threads, void* start)
    : gemm(gemm_bytes(c, backward, threads)) {
  Carver carver(start), lane(nullptr);
  const int64_t chunk = chunk_tokens(c), blocks = block_count(c), if_backward = backward ? 1 : 0;
  tokens = carver.take<Token>(chunk);
  sums = carver.take<ExponentialSum>(blocks * chunk);
  references = carver.take<float>(part_count(c) * chunk);
  factors = carver.take<float>(part_count(c) * chunk);
  exponentials = carver.take<std::byte>(if_backward * blocks * chunk * row_stride(c) * size_of(c.dtype));
  hidden_sums = carver.take<float>(if_backward * part_count(c) * chunk * c.width);
  carve_lane(c, backward, threads, gemm, lane);
  lane_bytes = lane.used();
  lanes = carver.take<std::byte>(lane_bytes * lane_count(c, threads));
  bytes = static_cast<size_t>(carver.used());
}

// Tokens [first, first + count).
struct Chunk {
  const CrossEntropyConfig& config;
  const CrossEntropyInputs& inputs;
  const Scratch& scratch;
  bool backward;
  int threads;
  int64_t first, count;

  int64_t block_width() const { return block_columns(config); }
  int64_t real() const { return config.options.vocab_size == 0 ? config.vocab : config.options.vocab_size; }
  int64_t columns(int64_t block) const {
    return std::min(block_width(), config.vocab - block * block_width());
  }
  bool has_target(int64_t t) const {
    return inputs.targets[first + t] >= 0 && inputs.targets[first + t] < real();
  }
  const std::byte* weight_row(int64_t row) const {
    return static_cast<const std::byte*>(inputs.weight) + row * config.width * size_of(config.dtype);
  }
  const std::byte* hidden_row(int64_t t) const {
    return static_cast<const std::byte*>(inputs.hidden) + (first + t) * config.width * size_of(config.dtype);
  }
  std::byte* exponentials_of(int64_t block) const {
    return scratch.exponentials + block * chunk_tokens(config) * row_stride(config) * size_of(config.dtype);
  }
  Lane lane(int thread) const {
    Carver carver(scratch.lanes + thread * scratch.lane_bytes);
    return carve_lane(config, backward, threads, scratch.gemm, carver);
  }
  LogitBlock logit_block(const Lane& lane, int64_t block, int64_t t) const {
    return {.projected = lane.logits + t * row_stride(config),
            .scale = inputs.scale == nullptr ? nullptr : inputs.scale + block * block_width(),
            .columns = std::clamp<int64_t>(real() - block * block_width(), 0, columns(block)),
            .logit_scale = static_cast<float>(config.options.logit_scale),
            .cap = static_cast<float>(config.options.cap),
            .cap_type = config.options.cap_type};
  }
  template <typename Body>
  void for_each_token(int with_threads, Body&& body) const {
    parallel_for(with_threads, (count + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
      for (int64_t t = task * kRowsPerTask; t < std::min(count, (task + 1) * kRowsPerTask); ++t) body(t);
    });
  }

  int64_t first_block(int64_t part) const {
    return part_begin(block_count(config), part_count(config), part);
  }
  // Calls body(lane, part) for all parts of the vocabulary.
  template <typename Body>
  void for_each_part(Body&& body) const {
    if (lane_count(config, threads) > 1)
      parallel_for(threads, part_count(config), [&](int64_t part, int thread) { body(lane(thread), part); });
    else
      for (int64_t part = 0; part < part_count(config); ++part) body(lane(0), part);
  }

  void sum_exponentials() const;
  void sum_part(const Lane& lane, int64_t part) const;
  void sum_block(const Lane& lane, int64_t part, int64_t block, bool finds_references) const;
  bool raise_references(int64_t part) const;
  float finish_loss(int64_t t, float* logsumexp) const;
  void find_factors(int64_t t, float logsumexp, float grad_loss) const;
  void multiply_part(const Lane& lane, int64_t part, const CrossEntropyGradients& gradients) const;
  void multiply_block(const Lane& lane, int64_t part, int64_t block,
                      const CrossEntropyGradients& gradients) const;
  void add_targets(const CrossEntropyGradients& gradients) const;
};

// The exponentials' sums by block; for the backward pass, the exponentials too.
void Chunk::sum_exponentials() const {
  std::fill_n(scratch.tokens, count, Token{});
  for_each_part([&](const Lane& lane, int64_t part) { sum_part(lane, part); });
}

void Chunk::sum_part(const Lane& lane, int64_t part) const {
  for (int64_t block = first_block(part); block < first_block(part + 1); ++block)
    sum_block(lane, part, block, block == first_block(part));
  if (!raise_references(part)) return;
  for (int64_t block = first_block(part); block < first_block(part + 1); ++block)
    sum_block(lane, part, block, false);
}

// Whether some logits tower above those of the first block, which is known only now.
bool Chunk::raise_references(int64_t part) const {
  bool raised = false;
  for (int64_t t = 0; t < count; ++t) {
    float& reference = scratch.references[part * count + t];
    float largest = reference;
    for (int64_t block = first_block(part); block < first_block(part + 1); ++block)
      largest = std::max(largest, scratch.sums[block * count + t].largest);
    if (!(largest > reference + kSafeExponent)) continue;  // also where it is no number
    reference = largest;
    raised = true;
  }
  return raised;
}

void Chunk::sum_block(const Lane& lane, int64_t part, int64_t block, bool finds_references) const {
  GemmArgs args = products(config, count, columns(block)).logits;
  args.a.data = hidden_row(0);
  args.b.data = weight_row(block * block_width());
  args.c = lane.logits;
  gemm(args, lane.gemm, lane.threads);
  for_each_token(lane.threads, [&](int64_t t) {
    const LogitBlock logits = logit_block(lane, block, t);
    float& reference = scratch.references[part * count + t];
    if (finds_references) reference = logits.columns > 0 ? largest_logit(logits) : 0;
    std::byte* const kept =
        backward ? exponentials_of(block) + t * row_stride(config) * size_of(config.dtype) : nullptr;
    scratch.sums[block * count + t] = exponentials(logits, reference, kept, config.dtype, columns(block));
    const int64_t column = inputs.targets[first + t] - block * block_width();
    if (column < 0 || column >= logits.columns) return;
    Token& token = scratch.tokens[t];
    token.target_projected = logits.projected[column];
    token.target_scale = logits.scale == nullptr ? 1 : logits.scale[column];
  });
}

// The target's logit, as exponentials() made it.
LogitBlock target_block(const Chunk& chunk, const Token& token) {
  LogitBlock block = chunk.logit_block({}, 0, 0);
  block.projected = &token.target_projected;
  block.columns = 1;
  if (block.scale != nullptr) block.scale = &token.target_scale;
  return block;
}

float Chunk::finish_loss(int64_t t, float* logsumexp) const {
  double total = 0, reference = 0;  // of all parts so far: e^reference total
  for (int64_t part = 0; part < part_count(config); ++part) {
    double sum = 0;
    for (int64_t block = first_block(part); block < first_block(part + 1); ++block)
      sum += static_cast<double>(scratch.sums[block * count + t].sum);
    const auto own = static_cast<double>(scratch.references[part * count + t]);
    if (sum == 0) continue;
    const double higher = total == 0 ? own : std::max(reference, own);
    total = (total == 0 ? 0 : total * std::exp(reference - higher)) + sum * std::exp(own - higher);
    reference = higher;
  }
  const Token& token = scratch.tokens[t];
  *logsumexp = static_cast<float>(reference + std::log(total));
  if (inputs.targets[first + t] == kIgnoreIndex) return 0;
  if (!has_target(t)) return std::numeric_limits<float>::quiet_NaN();
  return *logsumexp - finished_logit(target_block(*this, token), 0) +
         static_cast<float>(config.options.z_loss) * *logsumexp * *logsumexp;
}

void Chunk::find_factors(int64_t t, float logsumexp, float grad_loss) const {
  Token& token = scratch.tokens[t];
  const auto logit_scale = static_cast<float>(config.options.logit_scale);
  token.factor = token.target_factor = 0;
  if (has_target(t)) {
    const LogitBlock target = target_block(*this, token);
    const auto z_factor = static_cast<float>(1 + 2 * config.options.z_loss * static_cast<double>(logsumexp));
    token.factor = grad_loss * z_factor * logit_scale;
    token.target_factor = -grad_loss * cap_slope(target, finished_logit(target, 0)) * logit_scale;
  }
  for (int64_t part = 0; part < part_count(config); ++part) {
    const int64_t at = part * count + t;
    const bool is_padding = first_block(part) * block_width() >= real();
    scratch.factors[at] =
        token.factor == 0 || is_padding ? 0 : token.factor * std::exp(scratch.references[at] - logsumexp);
  }
}

void Chunk::multiply_part(const Lane& lane, int64_t part, const CrossEntropyGradients& gradients) const {
  for_each_token(lane.threads, [&](int64_t t) {
    scaled_row(hidden_row(t), scratch.factors[part * count + t],
               lane.hidden + t * config.width * size_of(config.dtype), config.dtype, config.width);
  });
  for (int64_t block = first_block(part); block < first_block(part + 1); ++block)
    multiply_block(lane, part, block, gradients);
}

// Both products over one block of the vocabulary.
void Chunk::multiply_block(const Lane& lane, int64_t part, int64_t block,
                           const CrossEntropyGradients& gradients) const {
  const int64_t width = config.width, begin = block * block_columns(config), rows = columns(block);
  const bool scaled = inputs.scale != nullptr, accumulate = gradients.accumulate || first > 0;
  float* const weight_grad = gradients.weight + begin * width;
  const std::byte* weight = weight_row(begin);
  const auto for_each_row = [&](auto body) {
    parallel_for(lane.threads, (rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
      for (int64_t v = task * kRowsPerTask; v < std::min(rows, (task + 1) * kRowsPerTask); ++v) body(v);
    });
  };
  if (scaled) {
    for_each_row([&](int64_t v) {
      scaled_row(weight_row(begin + v), inputs.scale[begin + v],
                 lane.weight + v * width * size_of(config.dtype), config.dtype, width);
    });
    weight = lane.weight;
  }
  Products p = products(config, count, rows);
  p.hidden.a.data = p.weight.a.data = exponentials_of(block);
  p.hidden.b.data = weight;
  p.hidden.c = scratch.hidden_sums + part * chunk_tokens(config) * width;
  p.hidden.accumulate = block > first_block(part);
  gemm(p.hidden, lane.gemm, lane.threads);
  p.weight.b.data = lane.hidden;
  p.weight.c = scaled ? lane.weight_sums : weight_grad;
  p.weight.accumulate = !scaled && accumulate;
  gemm(p.weight, lane.gemm, lane.threads);
  // hidden . weight is what the scale multiplies, so the sums give its gradient as well.
  if (scaled)
    for_each_row([&](int64_t v) {
      const float product =
          add_scaled_sums(lane.weight_sums + v * width, weight_row(begin + v), config.dtype,
                          inputs.scale[begin + v], accumulate, weight_grad + v * width, width);
      gradients.scale[begin + v] = (first > 0 ? gradients.scale[begin + v] : 0) + product;
    });
}

// The targets' part. Two tokens may share a target, so threads take columns, each with all tokens in order.
void Chunk::add_targets(const CrossEntropyGradients& gradients) const {
  const int64_t width = config.width, element = size_of(config.dtype);
  for_each_token(threads, [&](int64_t t) {
    const Token& token = scratch.tokens[t];
    float* const sums = scratch.hidden_sums + t * width;
    scaled_row(sums, scratch.factors[t], sums, DType::f32, width);
    for (int64_t part = 1; part < part_count(config); ++part)
      add_row(sums, sums + part * chunk_tokens(config) * width, scratch.factors[part * count + t], DType::f32,
              width);
    std::byte* const out = static_cast<std::byte*>(gradients.hidden) + (first + t) * width * element;
    if (has_target(t))
      combined_row(sums, 1, weight_row(inputs.targets[first + t]), token.target_factor * token.target_scale,
                   out, config.dtype, width);
    else
      std::fill_n(out, width * element, std::byte{0});
  });
  parallel_for(threads, (width + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task) {
    const int64_t column = task * kColumnsPerTask;
    for (int64_t t = 0; t < count; ++t)
      if (has_target(t))
        add_row(gradients.weight + inputs.targets[first + t] * width + column,
                hidden_row(t) + column * element,
                scratch.tokens[t].target_factor * scratch.tokens[t].target_scale, config.dtype,
                std::min(kColumnsPerTask, width - column));
  });
  if (gradients.scale == nullptr) return;
  for (int64_t t = 0; t < count; ++t)
    if (has_target(t))
      gradients.scale[inputs.targets[first + t]] +=
          scratch.tokens[t].target_factor * scratch.tokens[t].target_projected;
}

}  // namespace

size_t cross_entropy_workspace(const CrossEntropyConfig& config, bool backward, int threads) {
  return Scratch(config, backward, threads, nullptr).bytes;
}

void cross_entropy_forward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs, float* loss,
                           float* logsumexp, void* workspace, int threads) {
  require(config.scaled == (inputs.scale != nullptr), "cross entropy: a scale that the config does not know");
  const Scratch scratch(config, false, threads, workspace);
  const int64_t tokens = chunk_tokens(config);
  for (int64_t first = 0; first < config.tokens; first += tokens) {
    const Chunk chunk{
        config, inputs, scratch, false, threads, first, std::min(tokens, config.tokens - first)};
    chunk.sum_exponentials();
    chunk.for_each_token(threads,
                         [&](int64_t t) { loss[first + t] = chunk.finish_loss(t, logsumexp + first + t); });
  }
}

void cross_entropy_backward(const CrossEntropyConfig& config, const CrossEntropyInputs& inputs,
                            const float* grad_loss, const CrossEntropyGradients& gradients, void* workspace,
                            int threads) {
  require(config.scaled == (inputs.scale != nullptr), "cross entropy: a scale that the config does not know");
  const Scratch scratch(config, true, threads, workspace);
  const int64_t tokens = chunk_tokens(config);
  if (tokens == 0 && !gradients.accumulate) std::fill_n(gradients.weight, config.vocab * config.width, 0.0F);
  if (tokens == 0 && gradients.scale != nullptr) std::fill_n(gradients.scale, config.vocab, 0.0F);
  for (int64_t first = 0; first < config.tokens; first += tokens) {
    const Chunk chunk{config, inputs, scratch, true, threads, first, std::min(tokens, config.tokens - first)};
    chunk.sum_exponentials();
    chunk.for_each_token(threads, [&](int64_t t) {
      float logsumexp = 0;
      gradients.loss[first + t] = chunk.finish_loss(t, &logsumexp);
      chunk.find_factors(t, logsumexp, grad_loss[first + t]);
    });
    chunk.for_each_part([&](const Lane& lane, int64_t part) { chunk.multiply_part(lane, part, gradients); });
    chunk.add_targets(gradients);
  }
}

}  // namespace nf::cpu
