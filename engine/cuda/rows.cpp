// Ops that move or add whole rows: gather, scatter_add, concat, and copies into states.
#include <algorithm>
#include <array>

#include "cuda/kernels.h"
#include "cuda/kernels/rows_params.h"
#include "cuda/sources.h"

namespace nf::cuda {
namespace {

constexpr int64_t kThreads = 256;  // kRowThreads of rows.cuh
constexpr int64_t kScanThreads = 1024;
constexpr int64_t kChunk = 64;
constexpr int64_t kAlignment = 256;

struct Unit {
  int64_t bytes;
  std::string_view name;
};
constexpr std::array<Unit, 5> kUnits = {{{16, "Vector<uint32_t, 4>"},
                                         {8, "Vector<uint32_t, 2>"},
                                         {4, "uint32_t"},
                                         {2, "uint16_t"},
                                         {1, "uint8_t"}}};

// The widest unit that divides all of these numbers of bytes, addresses among them.
template <typename... Bytes>
const Unit& widest_unit(Bytes... bytes) {
  return *std::find_if(kUnits.begin(), kUnits.end(),
                       [&](const Unit& unit) { return ((bytes % unit.bytes == 0) && ...); });
}

int64_t address(const void* pointer) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer)); }

KernelSource row_kernel(std::string_view params, std::string_view function, int64_t threads = kThreads) {
  return instantiate("rows.cuh", params, function, static_cast<uint32_t>(threads));
}

LaunchShape per_thread(int64_t items) {
  return {.grid_x = blocks(items, kThreads), .threads = static_cast<uint32_t>(kThreads)};
}

// ---- copies

// The axes of both windows, innermost first, those joined that both can walk with one stride. In elements.
struct Walk {
  int axes = 0;
  std::array<int64_t, kMostCopyAxes> shape{}, from{}, to{};
};

Walk walk_of(const TensorView& from, const TensorView& to) {
  Walk walk;
  for (int axis = from.shape.rank() - 1; axis >= 0; --axis) {
    const int64_t size = from.shape[axis], f = from.strides[axis], t = to.strides[axis];
    if (size == 1) continue;
    const auto last = static_cast<size_t>(walk.axes - 1);
    if (walk.axes > 0 && f == walk.from[last] * walk.shape[last] && t == walk.to[last] * walk.shape[last]) {
      walk.shape[last] *= size;
      continue;
    }
    const auto next = static_cast<size_t>(walk.axes++);
    walk.shape[next] = size;
    walk.from[next] = f;
    walk.to[next] = t;
  }
  if (walk.axes == 0) walk = {.axes = 1, .shape = {1}, .from = {1}, .to = {1}};
  return walk;
}

// `start_stride`: see CopyParams, in elements.
Launch bind_copy(KernelLibrary& library, const TensorView& from, const TensorView& to,
                 const int32_t* start = nullptr, int64_t start_stride = 0, int64_t last_start = 0) {
  if (from.shape.elements() == 0) return [] {};
  const int64_t element = size_of(from.dtype);
  Walk walk = walk_of(from, to);
  const bool dense = walk.from[0] == 1 && walk.to[0] == 1;
  // Everything that must be a multiple of the unit: addresses, the innermost run, the strides of the others.
  int64_t together = address(from.data) | address(to.data) | start_stride * element;
  together |= dense ? walk.shape[0] * element : element;
  for (size_t axis = 1; axis < static_cast<size_t>(walk.axes); ++axis)
    together |= (walk.from[axis] | walk.to[axis]) * element;
  const Unit& unit = widest_unit(dense ? together : together | element);
  const auto in_units = [&](int64_t elements) { return elements * element / unit.bytes; };

  CopyParams params{};
  params.from = from.data;
  params.to = to.data;
  params.units = 1;
  params.axes = walk.axes;
  params.start = start;
  params.start_stride = in_units(start_stride);
  params.last_start = last_start;
  for (size_t axis = 0; axis < static_cast<size_t>(walk.axes); ++axis) {
    const bool inner = axis == 0 && dense;
    params.shape[axis] = inner ? in_units(walk.shape[0]) : walk.shape[axis];
    params.from_strides[axis] = inner ? 1 : in_units(walk.from[axis]);
    params.to_strides[axis] = inner ? 1 : in_units(walk.to[axis]);
    params.units *= params.shape[axis];
  }
  return library.launch(row_kernel("CopyParams", fmt::format("copy_units<{}>", unit.name)),
                        per_thread(params.units), params);
}

// ---- scatter

// Gives each array its place in the workspace; returns the bytes of all.
int64_t carve(ScatterParams& p, std::byte* workspace) {
  int64_t used = 0;
  const auto take = [&]<typename T>(T*& array, int64_t elements) {
    array = reinterpret_cast<T*>(workspace + used);
    used += round_up(elements * static_cast<int64_t>(sizeof(T)), kAlignment);
  };
  take(p.starts, p.rows + 1);
  take(p.cursors, p.rows);
  take(p.placed, p.count);
  take(p.sorted, p.count);
  take(p.partials, div_up(p.count, kChunk) * 2 * p.width);
  return used;
}

ScatterParams scatter_params(int64_t count, const Shape& sums) {
  ScatterParams params{};
  params.count = count;
  params.rows = sums[0];
  params.width = sums.elements() / std::max<int64_t>(params.rows, 1);
  return params;
}

}  // namespace

Launch bind_assign(const BoundNode& bound) {
  return bind_copy(bound.library, bound.inputs[1], bound.outputs[0]);
}

Launch bind_concat(const BoundNode& bound) {
  std::vector<Launch> copies;  // of the parts that are not made in place
  TensorView target = bound.outputs[0];
  const auto axis = static_cast<int>(bound.node.attributes.integer("axis"));
  for (const TensorView& part : bound.inputs) {
    target.shape = part.shape;
    if (part.data != target.data || part.strides != target.strides)
      copies.push_back(bind_copy(bound.library, part, target));
    target.data = target.as<std::byte>() + part.shape[axis] * target.strides[axis] * size_of(part.dtype);
  }
  return in_turn(std::move(copies));
}

// The start is known on the device alone; one out of range writes nothing.
Launch bind_assign_slice(const BoundNode& bound) {
  TensorView window = bound.outputs[0];
  const int64_t capacity = window.shape[1];
  window.shape = bound.inputs[1].shape;
  return bind_copy(bound.library, bound.inputs[1], window, bound.inputs[2].as<const int32_t>(),
                   window.strides[1], capacity - window.shape[1]);
}

Launch bind_gather(const BoundNode& bound) {
  const TensorView &table = bound.inputs[0], &out = bound.outputs[0];
  const int64_t rows = table.shape[0];
  const int64_t row_bytes = table.shape.elements() / std::max<int64_t>(rows, 1) * size_of(table.dtype);
  const int64_t count = bound.inputs[1].shape.elements();
  if (count * row_bytes == 0) return [] {};
  const Unit& unit = widest_unit(address(table.data), address(out.data), row_bytes);
  const GatherParams params{.table = table.data,
                            .ids = bound.inputs[1].as<const int32_t>(),
                            .out = out.data,
                            .count = count,
                            .rows = rows,
                            .width = row_bytes / unit.bytes};
  return bound.library.launch(row_kernel("GatherParams", fmt::format("gather_units<{}>", unit.name)),
                              per_thread(params.count * params.width), params);
}

int64_t scatter_workspace(const Graph& graph, const Node& node) {
  ScatterParams params = scatter_params(graph.type(node.inputs[0]).shape.elements(), node.outputs[0].shape);
  return carve(params, nullptr);
}

bool supports_embedding_backward(const Graph& graph, const Node& node) {
  const DType dtype = graph.type(node.inputs[1]).dtype;
  return dtype == DType::f32 || dtype == DType::bf16;
}

Launch bind_scatter(const BoundNode& bound) {
  const TensorView &updates = bound.inputs[1], &sums = bound.outputs[0];
  require(sums.dtype == DType::f32, "cuda: {} in {}: sums are {}, only f32 is supported", name(bound.node.op),
          bound.graph.scope_name(bound.node), name(sums.dtype));
  ScatterParams p = scatter_params(bound.inputs[0].shape.elements(), sums.shape);
  p.ids = bound.inputs[0].as<const int32_t>();
  p.updates = updates.data;
  p.sums = sums.as<float>();
  p.accumulate = bound.inputs.size() == 3;
  carve(p, bound.workspace);
  const auto launch = [&](std::string_view function, const LaunchShape& shape, int64_t threads = kThreads) {
    return bound.library.launch(row_kernel("ScatterParams", function, threads), shape, p);
  };
  const int64_t clear = std::max(p.rows + 1, p.accumulate ? 0 : p.rows * p.width);
  const LaunchShape chunks{.grid_x = blocks(p.count, kChunk),
                           .grid_y = blocks(p.width, kThreads),
                           .threads = static_cast<uint32_t>(kThreads)};
  std::vector<Launch> steps{launch("scatter_clear", per_thread(clear))};
  if (p.count * p.width > 0)
    for (Launch& step : std::vector<Launch>{
             launch("scatter_count", per_thread(p.count)),
             launch("scatter_scan", {.threads = kScanThreads}, kScanThreads),
             launch("scatter_place", per_thread(p.count)), launch("scatter_rank", per_thread(p.count)),
             launch(fmt::format("scatter_sum<{}>", type_name(updates.dtype)), chunks),
             launch("scatter_join", chunks)})
      steps.push_back(std::move(step));
  return in_turn(std::move(steps));
}

}  // namespace nf::cuda
