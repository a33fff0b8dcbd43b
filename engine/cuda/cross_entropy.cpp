// linear_cross_entropy on the GPU, a chunk of tokens at a time: one product makes the chunk's logits, a row
// kernel turns them into the loss and their own gradient, and two products carry that back to the hidden
// states and the weight. So the logits of all tokens never exist, and a chunk is large enough for the
// products to run at full speed.
#include <algorithm>

#include "cuda/kernels.h"
#include "cuda/kernels/cross_entropy_params.h"
#include "cuda/sources.h"

namespace nf::cuda {
namespace {

// Of a chunk, f32. Every chunk reads and writes the weight's whole gradient, which small ones would spend
// their time on.
constexpr int64_t kLogitBytes = 512 << 20;
constexpr int64_t kTokenStep = 64;
constexpr int64_t kAlignment = 256;

// A node's sizes, and its scratch memory by them alone.
struct Sizes {
  CrossEntropyNode node;
  DType dtype;
  int64_t tokens, width, vocab;
  int64_t stride = round_up(vocab, 8);
  int64_t chunk;

  Sizes(const Graph& graph, const Node& n, int64_t logit_bytes)
      : node(cross_entropy_node(n)),
        dtype(graph.type(n.inputs[0]).dtype),
        tokens(graph.type(n.inputs[0]).shape[0]),
        width(graph.type(n.inputs[0]).shape[1]),
        vocab(graph.type(n.inputs[1]).shape[0]),
        chunk(std::min(tokens, std::max<int64_t>(1, logit_bytes / (stride * 4)))) {
    if (chunk < tokens && chunk > kTokenStep) chunk = chunk / kTokenStep * kTokenStep;
  }

  int64_t logit_bytes() const { return round_up(chunk * stride * 4, kAlignment); }
  int64_t gradient_bytes() const {
    return node.grad_loss < 0 ? 0 : round_up(chunk * stride * size_of(dtype), kAlignment);
  }
};

std::string_view cap_name(CapType type) {
  switch (type) {
    case CapType::none: return "none";
    case CapType::soft: return "soft";
    case CapType::hard: return "hard";
  }
  return "";
}

// Binds the launches of one node, chunk by chunk.
class Binder {
 public:
  Binder(const BoundNode& bound, int64_t logit_bytes)
      : bound_(bound),
        sizes_(bound.graph, bound.node, logit_bytes),
        logits_(reinterpret_cast<float*>(bound.workspace)),
        gradient_(bound.workspace + sizes_.logit_bytes()),
        scratch_(gradient_ + sizes_.gradient_bytes()) {
    const int scale = sizes_.node.scale;
    if (scale >= 0) scale_ = bound.inputs[static_cast<size_t>(scale)].as<const float>();
  }

  Launch forward() {
    for_each_chunk([&](int64_t first, int64_t count) {
      CrossEntropyParams p = params(first, count);
      p.loss = bound_.outputs[0].as<float>() + first;
      p.logsumexp = bound_.outputs[1].as<float>() + first;
      multiply_logits(first, count);
      rows(fmt::format("cross_entropy_forward<{}>", logit_rule()), count, p);
    });
    return in_turn(std::move(steps_));
  }

  Launch backward() {
    const bool accumulate = bound_.node.attributes.integer("accumulate") != 0;
    const auto* grad_loss = bound_.inputs[static_cast<size_t>(sizes_.node.grad_loss)].as<const float>();
    for_each_chunk([&](int64_t first, int64_t count) {
      CrossEntropyParams p = params(first, count);
      p.loss = bound_.outputs[0].as<float>() + first;
      p.gradient = gradient_;
      p.grad_loss = grad_loss + first;
      p.is_first_chunk = first == 0;
      if (scale_ != nullptr) p.scale_gradient = bound_.outputs[3].as<float>();
      multiply_logits(first, count);
      rows(fmt::format("cross_entropy_backward<{}, {}>", type_name(sizes_.dtype), logit_rule()), count, p);
      if (scale_ != nullptr) rows("scale_gradient", blocks(sizes_.vocab, kScaleColumns), p);
      multiply_back(first, count, accumulate || first > 0);
    });
    return in_turn(std::move(steps_));
  }

 private:
  template <typename Body>
  void for_each_chunk(Body body) {
    for (int64_t first = 0; first < sizes_.tokens; first += sizes_.chunk)
      body(first, std::min(sizes_.chunk, sizes_.tokens - first));
  }

  std::byte* hidden(int64_t token) const { return row(bound_.inputs[0], token); }
  std::byte* row(const TensorView& view, int64_t token) const {
    return view.as<std::byte>() + token * sizes_.width * size_of(view.dtype);
  }

  // The kernels' type of how a projection becomes a logit.
  std::string logit_rule() const {
    return fmt::format("LogitRule<LogitCap::{}, {}>", cap_name(sizes_.node.options.cap_type),
                       scale_ != nullptr);
  }

  CrossEntropyParams params(int64_t first, int64_t count) const {
    const CrossEntropyOptions& options = sizes_.node.options;
    CrossEntropyParams p{};
    p.projected = logits_;
    p.targets = bound_.inputs[2].as<const int32_t>() + first;
    p.scale = scale_;
    p.tokens = count;
    p.stride = sizes_.stride;
    p.vocab = static_cast<int32_t>(sizes_.vocab);
    p.real = static_cast<int32_t>(options.vocab_size == 0 ? sizes_.vocab : options.vocab_size);
    p.ignore_index = kIgnoreIndex;
    p.logit_scale = static_cast<float>(options.logit_scale);
    p.cap = static_cast<float>(options.cap);
    p.z_loss = static_cast<float>(options.z_loss);
    return p;
  }

  void rows(std::string_view function, int64_t count, const CrossEntropyParams& p) {
    steps_.push_back(bound_.library.launch(
        instantiate("cross_entropy.cuh", "CrossEntropyParams", function, kLossThreads, kLossBlocks),
        {.grid_x = blocks(count, 1), .threads = kLossThreads}, p));
  }

  void product(const Product& product, const void* a, const void* b, void* c) {
    steps_.push_back(bound_.library.gpu().product(product, a, b, c, scratch_));
  }

  void multiply_logits(int64_t first, int64_t count) {
    product({.m = count,
             .n = sizes_.vocab,
             .k = sizes_.width,
             .a = {sizes_.dtype, sizes_.width, 1},
             .b = {sizes_.dtype, 1, sizes_.width},
             .c = {DType::f32, sizes_.stride, 1}},
            hidden(first), bound_.inputs[1].data, logits_);
  }

  void multiply_back(int64_t first, int64_t count, bool accumulate) {
    const MatrixLayout rows_of_width{sizes_.dtype, sizes_.width, 1};
    product({.m = count,
             .n = sizes_.width,
             .k = sizes_.vocab,
             .a = {sizes_.dtype, sizes_.stride, 1},
             .b = rows_of_width,
             .c = rows_of_width},
            gradient_, bound_.inputs[1].data, row(bound_.outputs[1], first));
    product({.m = sizes_.vocab,
             .n = sizes_.width,
             .k = count,
             .a = {sizes_.dtype, 1, sizes_.stride},
             .b = rows_of_width,
             .c = {DType::f32, sizes_.width, 1},
             .accumulate = accumulate},
            gradient_, hidden(first), bound_.outputs[2].data);
  }

  const BoundNode& bound_;
  Sizes sizes_;
  float* logits_;
  std::byte *gradient_, *scratch_;
  const float* scale_ = nullptr;
  std::vector<Launch> steps_;
};

}  // namespace

bool supports_cross_entropy(const Graph& graph, const Node& node) {
  const Sizes sizes(graph, node, kLogitBytes);
  const bool known = sizes.dtype == DType::f32 || sizes.dtype == DType::bf16;
  return known && sizes.tokens > 0 && sizes.width > 0 &&
         (sizes.node.scale < 0 ||
          graph.type(node.inputs[static_cast<size_t>(sizes.node.scale)]).dtype == DType::f32);
}

int64_t cross_entropy_workspace(const Graph& graph, const Node& node) {
  const Sizes sizes(graph, node, kLogitBytes);
  return sizes.logit_bytes() + sizes.gradient_bytes() + Gpu::kProductWorkspace;
}

Launch bind_cross_entropy(const BoundNode& bound, int64_t logit_bytes) {
  return Binder(bound, logit_bytes).forward();
}
Launch bind_cross_entropy(const BoundNode& bound) { return bind_cross_entropy(bound, kLogitBytes); }

Launch bind_cross_entropy_backward(const BoundNode& bound, int64_t logit_bytes) {
  return Binder(bound, logit_bytes).backward();
}
Launch bind_cross_entropy_backward(const BoundNode& bound) {
  return bind_cross_entropy_backward(bound, kLogitBytes);
}

}  // namespace nf::cuda
