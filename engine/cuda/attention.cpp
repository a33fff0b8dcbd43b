// Attention on the GPU: which kernel a node takes, how large its tiles are, and how its work is cut.
#include <algorithm>
#include <array>
#include <bit>

#include "cuda/kernels.h"
#include "cuda/kernels/attention_params.h"
#include "cuda/sources.h"

namespace nf::cuda {
namespace {

constexpr int64_t kMostWidth = 256;
constexpr int64_t kRowWarps = 4;  // of the kernels that have no tiles
constexpr int64_t kFewBlocks = 128, kManyBlocks = 512, kLeastSplitKeys = 256;
constexpr int64_t kMostWindow = 1 << 29;

ScoreCap cap_kind(CapType type) {
  switch (type) {
    case CapType::none: return ScoreCap::none;
    case CapType::soft: return ScoreCap::soft;
    case CapType::hard: return ScoreCap::hard;
  }
  return ScoreCap::none;
}

std::string_view cap_name(CapType type) {
  constexpr std::array<std::string_view, 3> names{"none", "soft", "hard"};
  return names[static_cast<size_t>(cap_kind(type))];
}

// A node's sizes, and how its work is cut: by them alone, so that results do not depend on the GPU.
struct Sizes {
  AttentionNode node;
  DType dtype;
  int64_t batch, queries, keys, heads, kv_heads, key_width, value_width;
  int64_t key_padded = round_up(key_width, 16), value_padded = round_up(value_width, 16);
  int64_t widest = std::max(key_padded, value_padded);

  Sizes(const Graph& graph, const Node& n)
      : Sizes(attention_node(n), graph.type(n.inputs[0]), graph.type(n.inputs[1]), graph.type(n.inputs[2])) {}
  Sizes(AttentionNode parsed, const TensorType& q, const TensorType& k, const TensorType& v)
      : node(std::move(parsed)),
        dtype(q.dtype),
        batch(q.shape[0]),
        queries(q.shape[1]),
        keys(k.shape[1]),
        heads(q.shape[2]),
        kv_heads(k.shape[2]),
        key_width(q.shape[3]),
        value_width(v.shape[3]) {}

  bool is_narrow_type() const { return dtype == DType::bf16; }
  int64_t rows() const { return batch * heads * queries; }

  bool has_documents() const { return node.q_documents >= 0; }
  bool has_dropout() const { return node.options.dropout > 0; }

  // Tiles are as large as 163 KiB of shared memory and 255 registers a thread allow, and small where there is
  // little to do.
  int64_t forward_warps() const { return 4; }
  int64_t forward_m_tiles() const {
    return is_narrow_type() && widest <= (has_dropout() ? 64 : 128) && queries > 64 ? 2 : 1;
  }
  int64_t forward_rows() const { return 16 * forward_warps() * forward_m_tiles(); }
  int64_t forward_keys() const {
    const bool crowded = forward_m_tiles() > 1 && value_padded > 64;  // of registers
    if (is_narrow_type()) return widest <= 128 && !crowded && !has_documents() && !has_dropout() ? 64 : 32;
    return widest <= 128 ? 32 : 16;
  }
  int64_t backward_warps() const { return is_narrow_type() || widest <= 128 ? 4 : 2; }
  int64_t backward_tile() const {  // of what is walked over: queries or keys
    if (!is_narrow_type()) return widest <= 128 ? 32 : 16;
    if (widest <= 64 && !has_documents() && !has_dropout()) return 64;
    return widest <= (has_dropout() ? 64 : 192) ? 32 : 16;
  }
  bool backward_at_once() const { return key_padded + value_padded <= 256; }

  uint32_t forward_shared() const {
    return tiles(forward_rows(), 0) + 2 * tiles(forward_keys(), forward_keys());
  }
  uint32_t backward_shared() const {
    const int64_t held = 16 * backward_warps();
    return tiles(held, held) + 2 * tiles(backward_tile(), backward_tile());
  }

  // Keys are split where queries are too few to fill a GPU (decoding).
  int64_t split_keys() const {
    const int64_t lots = batch * heads * div_up(queries, forward_rows());
    const int64_t splits =
        lots >= kFewBlocks ? 1 : std::clamp<int64_t>(keys / kLeastSplitKeys, 1, div_up(kManyBlocks, lots));
    return round_up(div_up(keys, splits), forward_keys());
  }
  int64_t splits() const { return div_up(keys, split_keys()); }

 private:
  // Of so many rows of key width and so many of value width.
  uint32_t tiles(int64_t key_rows, int64_t value_rows) const {
    const auto bytes = [&](int64_t rows, int64_t width) {
      return tile_bytes(static_cast<int>(rows), static_cast<int>(width), static_cast<int>(size_of(dtype)));
    };
    return static_cast<uint32_t>(bytes(key_rows, key_padded) + bytes(value_rows, value_padded));
  }
};

// How a kernel for sm_90a cuts the work: lots of 64 rows per reader, a warpgroup, and rings of buffers that
// hold a tile each of what is walked over. Results do not depend on how many readers there are.
struct Sm90Cut {
  int64_t readers, tile, buffers, held_buffers;
  uint32_t shared_bytes;

  // For so many bytes that are held and so many of a buffer. Two lots' are held, so that one comes while the
  // other is worked on, where enough buffers are left.
  Sm90Cut(int64_t readers_, int64_t tile_, int64_t held_bytes, int64_t buffer_bytes)
      : readers(readers_), tile(tile_) {
    constexpr int64_t kShared = 226 << 10;  // a KiB is left to what is not dynamic
    constexpr int64_t kEnoughBuffers = 3, kMostBuffers = 4;
    held_buffers = 2 * held_bytes + kEnoughBuffers * buffer_bytes <= kShared ? 2 : 1;
    buffers = std::min(kMostBuffers, (kShared - held_buffers * held_bytes) / buffer_bytes);
    shared_bytes = static_cast<uint32_t>(held_buffers * held_bytes + buffers * buffer_bytes);
  }

  int64_t rows() const { return 64 * readers; }
};

// Bytes of a row of a tile there: whole swizzles.
int64_t sm90_row_bytes(int64_t width) { return 2 * round_up(width, 64); }

bool sm90_serves(const Sizes& sizes) {
  return sizes.is_narrow_type() && sizes.value_width <= 128 && sizes.key_width <= 128 && !sizes.has_dropout();
}

// Whether weights take no more registers than those of plain attention.
bool is_simple(const Sizes& sizes) {
  return !sizes.has_documents() && sizes.node.options.cap_type != CapType::soft;
}

// Three warpgroups with rows have 160 registers a thread, two have 232. Three hide more of what is no
// product, but lots of 192 rows are too coarse to give every processor as much unless there are several for
// each.
int64_t sm90_readers(const Sizes& sizes, int64_t heads, int64_t rows, int64_t processors) {
  constexpr int64_t kLotsEach = 4;
  return sizes.widest <= 64 && sizes.batch * heads * div_up(rows, 192) >= kLotsEach * processors ? 3 : 2;
}

Sm90Cut sm90_forward(const Sizes& sizes, int64_t processors) {
  constexpr int64_t kKeys = 128;
  const int64_t readers = is_simple(sizes) ? sm90_readers(sizes, sizes.heads, sizes.queries, processors) : 2,
                key_bytes = sm90_row_bytes(sizes.key_width);
  return {readers, kKeys, 64 * readers * key_bytes, kKeys * (key_bytes + sm90_row_bytes(sizes.value_width))};
}
// Its softmax takes products for scores up to a positive factor; splits are the other family's.
bool sm90_forward_serves(const Sizes& sizes) {
  const AttentionOptions& o = sizes.node.options;
  return sm90_serves(sizes) && sizes.splits() == 1 && (o.scale > 0 || o.cap_type != CapType::none);
}

// Documents take registers that two sums of wide heads leave none of.
bool sm90_backward_serves(const Sizes& sizes) {
  return sm90_serves(sizes) && (sizes.widest <= 64 || !sizes.has_documents());
}

// Into how many parts a group's heads are cut where lots of keys are too few to fill a GPU: by the sizes
// alone, since the order of the sums depends on it.
int64_t sm90_key_parts(const Sizes& sizes) {
  constexpr int64_t kLots = 256, kLeastQueries = 1024;  // enough of them; what a lot walks over at least
  const int64_t lots = sizes.batch * sizes.kv_heads * div_up(sizes.keys, 128),
                group = sizes.heads / sizes.kv_heads;
  if (!sm90_backward_serves(sizes)) return 1;
  int64_t parts = 1;
  for (int64_t n = 2; n <= group && lots * parts < kLots; ++n)
    if (group % n == 0 && sizes.queries * (group / n) >= kLeastQueries) parts = n;
  return parts;
}
int64_t sm90_part_rows(const Sizes& sizes) {
  const int64_t parts = sm90_key_parts(sizes);
  return parts == 1 ? 0 : parts * sizes.batch * sizes.kv_heads * sizes.keys;
}

Sm90Cut sm90_backward(const Sizes& sizes, int64_t readers, int64_t tile, int64_t numbers) {
  const int64_t row_bytes = sm90_row_bytes(sizes.key_width) + sm90_row_bytes(sizes.value_width);
  return {readers, tile, 64 * readers * row_bytes, tile * row_bytes + numbers * 4};
}
Sm90Cut sm90_backward_keys(const Sizes& sizes, int64_t processors) {
  constexpr int64_t kQueries = 64, kStatistics = 2 * kQueries;
  const bool is_plain = !sizes.has_documents() && sizes.node.options.cap_type == CapType::none;
  const int64_t readers =
      is_plain ? sm90_readers(sizes, sizes.kv_heads * sm90_key_parts(sizes), sizes.keys, processors) : 2;
  return sm90_backward(sizes, readers, kQueries, kStatistics);
}
// Tiles of 128 keys where registers allow: products then read less of shared memory for the same work.
Sm90Cut sm90_backward_queries(const Sizes& sizes) {
  return sm90_backward(sizes, 2, sizes.widest <= 64 && is_simple(sizes) ? 128 : 64, 0);
}

// How many heads make a section (kernels/attention_sm90.cuh): what is walked over for all of them, `rows`
// rows of a key and a value each, leaves room in the GPU's cache for what else passes through it.
int64_t sm90_section(const Sizes& sizes, int64_t rows) {
  constexpr int64_t kCacheBytes = 32 << 20;
  return std::max<int64_t>(1, kCacheBytes / (rows * 2 * (sizes.key_width + sizes.value_width)));
}

// Whether every row begins at a multiple of 16 bytes and is a whole number of 16 bytes long.
bool is_aligned(const TensorView& view) {
  const int64_t step = 16 / size_of(view.dtype);
  const Strides& s = view.strides;
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.shape[3] % step == 0 && s[0] % step == 0 &&
         s[1] % step == 0 && s[2] % step == 0;
}

// Binds the launches of one node.
class Binder {
 public:
  explicit Binder(const BoundNode& bound) : bound_(bound), sizes_(bound.graph, bound.node) {
    const AttentionNode& node = sizes_.node;
    params_.q = operand(bound.inputs[0]);
    params_.k = operand(bound.inputs[1]);
    params_.v = operand(bound.inputs[2]);
    params_.q_documents = optional<int32_t>(node.q_documents);
    params_.k_documents = optional<int32_t>(node.k_documents);
    params_.length = optional<int32_t>(node.length);
    params_.rng = optional<uint32_t>(node.rng);
    params_.dropout_stream = node.options.dropout_stream;
    params_.batch = static_cast<int32_t>(sizes_.batch);
    params_.queries = static_cast<int32_t>(sizes_.queries);
    params_.keys = static_cast<int32_t>(sizes_.keys);
    params_.heads = static_cast<int32_t>(sizes_.heads);
    params_.kv_heads = static_cast<int32_t>(sizes_.kv_heads);
    params_.key_width = static_cast<int32_t>(sizes_.key_width);
    params_.value_width = static_cast<int32_t>(sizes_.value_width);
    params_.window = static_cast<int32_t>(std::min(node.options.window, kMostWindow));
    params_.scale = static_cast<float>(node.options.scale);
    params_.cap = static_cast<float>(node.options.cap);
    params_.dropout = static_cast<float>(node.options.dropout);
  }

  Launch forward() {
    params_.out = operand(bound_.outputs[0]);
    params_.logsumexp = bound_.outputs[1].as<float>();
    if (has_warpgroups() && sm90_forward_serves(sizes_)) {
      launch_sm90_queries("forward", sm90_forward(sizes_, processors()));
      return in_turn(std::move(steps_));
    }
    params_.splits = static_cast<int32_t>(sizes_.splits());
    params_.split_keys = static_cast<int32_t>(sizes_.split_keys());
    if (params_.splits > 1) {
      params_.partial_logsumexp = reinterpret_cast<float*>(bound_.workspace);
      params_.partial_out = params_.partial_logsumexp + params_.splits * sizes_.rows();
    }
    const int64_t lots = sizes_.batch * sizes_.heads * div_up(sizes_.queries, sizes_.forward_rows());
    launch("attention_forward.cuh",
           fmt::format("attention_forward<{}, {}, {}, {}>", kind(), sizes_.forward_warps(),
                       sizes_.forward_m_tiles(), sizes_.forward_keys()),
           {.grid_x = blocks(lots, 1),
            .grid_y = static_cast<uint32_t>(params_.splits),
            .threads = static_cast<uint32_t>(32 * sizes_.forward_warps()),
            .shared_bytes = sizes_.forward_shared()});
    if (params_.splits > 1) launch_combine();
    return in_turn(std::move(steps_));
  }

  Launch backward() {
    const AttentionNode& node = sizes_.node;
    params_.out = operand(input(node.out));
    params_.logsumexp = input(node.logsumexp).as<float>();
    params_.grad_out = operand(input(node.grad_out));
    params_.grad_q = operand(bound_.outputs[0]);
    params_.grad_k = operand(bound_.outputs[1]);
    params_.grad_v = operand(bound_.outputs[2]);
    params_.key_parts = static_cast<int32_t>(sm90_key_parts(sizes_));
    params_.partial_grad_k =
        reinterpret_cast<float*>(bound_.workspace);  // vectors: before what has any length
    params_.partial_grad_v = params_.partial_grad_k + sm90_part_rows(sizes_) * sizes_.key_width;
    params_.delta = params_.partial_grad_v + sm90_part_rows(sizes_) * sizes_.value_width;
    launch_delta();
    if (has_warpgroups() && sm90_backward_serves(sizes_)) {
      launch_sm90_keys("backward_keys", sm90_backward_keys(sizes_, processors()));
      if (params_.key_parts > 1) launch_sum_parts();
      launch_sm90_queries("backward_queries", sm90_backward_queries(sizes_));
      return in_turn(std::move(steps_));
    }
    if (sizes_.backward_at_once()) {
      launch_backward("keys", sizes_.kv_heads, sizes_.keys, ", true, true");
    } else {
      launch_backward("keys", sizes_.kv_heads, sizes_.keys, ", true, false");
      launch_backward("keys", sizes_.kv_heads, sizes_.keys, ", false, true");
    }
    launch_backward("queries", sizes_.heads, sizes_.queries, "");
    return in_turn(std::move(steps_));
  }

 private:
  const TensorView& input(int number) const { return bound_.inputs[static_cast<size_t>(number)]; }
  template <typename T>
  const T* optional(int number) const {
    return number < 0 ? nullptr : input(number).as<const T>();
  }

  // Of what the kernels read and write; whether all of it is aligned decides the kernel.
  AttentionOperand operand(const TensorView& view) {
    require(view.shape[3] == 1 || view.strides[3] == 1, "cuda: attention in {}: an operand's rows have gaps",
            bound_.graph.scope_name(bound_.node));
    is_aligned_ = is_aligned_ && is_aligned(view);
    return {view.data, view.strides[0], view.strides[1], view.strides[2]};
  }

  // Whether the kernels for sm_90a can be had.
  bool has_warpgroups() const { return bound_.library.gpu().kind().capability == 90 && is_aligned_; }

  std::string kind() const {
    const AttentionOptions& o = sizes_.node.options;
    return fmt::format("Attention<{}, {}, {}, {}, {}, {}, {}, ScoreCap::{}, {}>", type_name(sizes_.dtype),
                       sizes_.key_padded, sizes_.value_padded, is_aligned_, o.causal, o.window > 0,
                       params_.q_documents != nullptr, cap_name(o.cap_type), o.dropout > 0);
  }

  void launch(std::string_view file, std::string_view function, const LaunchShape& shape) {
    steps_.push_back(
        bound_.library.launch(instantiate(file, "AttentionParams", function, shape.threads), shape, params_));
  }

  void launch_combine() {
    launch("attention_forward.cuh",
           fmt::format("attention_combine<{}, {}>", type_name(sizes_.dtype), kRowWarps),
           {.grid_x = blocks(sizes_.rows(), kRowWarps), .threads = static_cast<uint32_t>(32 * kRowWarps)});
  }
  // 16 bytes a lane, and no more lanes than a row has use for.
  void launch_delta() {
    const int64_t step = is_aligned_ ? 16 / size_of(sizes_.dtype) : 1;
    const uint64_t pieces = static_cast<uint64_t>(div_up(sizes_.value_width, step)),
                   lanes = std::min<uint64_t>(std::bit_ceil(pieces), 32);
    launch("attention_backward.cuh",
           fmt::format("attention_delta<{}, {}, {}, {}>", type_name(sizes_.dtype), kRowWarps, lanes, step),
           {.grid_x = blocks(sizes_.rows() * static_cast<int64_t>(lanes), 32 * kRowWarps),
            .threads = static_cast<uint32_t>(32 * kRowWarps)});
  }

  void launch_backward(std::string_view of, int64_t heads, int64_t rows, std::string_view parts) {
    const int64_t warps = sizes_.backward_warps();
    launch(
        "attention_backward.cuh",
        fmt::format("attention_backward_{}<{}, {}, {}{}>", of, kind(), warps, sizes_.backward_tile(), parts),
        {.grid_x = blocks(sizes_.batch * heads * div_up(rows, 16 * warps), 1),
         .threads = static_cast<uint32_t>(32 * warps),
         .shared_bytes = sizes_.backward_shared()});
  }

  int64_t processors() const { return bound_.library.gpu().kind().processors; }

  // Lots of queries, that walk over keys; heads of a group walk over the same.
  void launch_sm90_queries(std::string_view what, const Sm90Cut& cut) {
    const int64_t group = sizes_.heads / sizes_.kv_heads;
    launch_sm90(what, cut, sizes_.heads, sizes_.queries, sm90_section(sizes_, sizes_.keys) * group);
  }
  // Lots of keys, that walk over the queries of a part of their group.
  void launch_sm90_keys(std::string_view what, const Sm90Cut& cut) {
    const int64_t parts = sizes_.kv_heads * params_.key_parts;
    launch_sm90(what, cut, parts, sizes_.keys, sm90_section(sizes_, sizes_.queries * sizes_.heads / parts));
  }
  void launch_sum_parts() {
    launch("attention_backward_sm90.cuh", fmt::format("attention_sum_parts<{}>", kRowWarps),
           {.grid_x = blocks(sizes_.batch * sizes_.kv_heads * sizes_.keys, kRowWarps),
            .threads = static_cast<uint32_t>(32 * kRowWarps)});
  }
  // As many blocks as there are processors: each takes many lots of `rows`.
  void launch_sm90(std::string_view what, const Sm90Cut& cut, int64_t heads, int64_t rows, int64_t section) {
    const uint32_t lots = blocks(sizes_.batch * heads * div_up(rows, cut.rows()), 1);
    params_.section = static_cast<int32_t>(std::min(section, sizes_.batch * heads));
    launch(what == "forward" ? "attention_forward_sm90.cuh" : "attention_backward_sm90.cuh",
           fmt::format("attention_{}_sm90<{}, {}, {}, {}, {}>", what, kind(), cut.readers, cut.tile,
                       cut.buffers, cut.held_buffers),
           {.grid_x = std::min(lots, static_cast<uint32_t>(processors())),
            .threads = static_cast<uint32_t>(128 * (1 + cut.readers)),
            .shared_bytes = cut.shared_bytes});
  }

  const BoundNode& bound_;
  Sizes sizes_;
  AttentionParams params_{};
  bool is_aligned_ = true;
  std::vector<Launch> steps_;
};

}  // namespace

bool supports_attention(const Graph& graph, const Node& node) {
  const Sizes sizes(graph, node);
  const auto has_dtype = [&](const TensorType& type) {
    return type.shape.rank() != 4 || type.dtype == sizes.dtype;
  };
  const auto fits = [](int64_t x) { return x > 0 && x < (int64_t{1} << 29); };
  const bool known = sizes.dtype == DType::f32 || sizes.dtype == DType::bf16;
  return known && sizes.key_width > 0 && sizes.value_width > 0 && sizes.widest <= kMostWidth &&
         fits(sizes.batch * sizes.heads) && fits(sizes.queries) && fits(sizes.keys) &&
         std::all_of(node.inputs.begin(), node.inputs.end(),
                     [&](ValueId id) { return has_dtype(graph.type(id)); }) &&
         std::all_of(node.outputs.begin(), node.outputs.end(), has_dtype);
}

int64_t attention_workspace(const Graph& graph, const Node& node) {
  const Sizes sizes(graph, node);
  return sizes.splits() == 1 ? 0 : sizes.splits() * sizes.rows() * (sizes.value_width + 1) * 4;
}

Launch bind_attention(const BoundNode& bound) { return Binder(bound).forward(); }

int64_t attention_backward_workspace(const Graph& graph, const Node& node) {
  const Sizes sizes(graph, node);
  return (sizes.rows() + sm90_part_rows(sizes) * (sizes.key_width + sizes.value_width)) * 4;
}

Launch bind_attention_backward(const BoundNode& bound) { return Binder(bound).backward(); }

}  // namespace nf::cuda
