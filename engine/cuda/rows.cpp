// Ops that move or add whole rows: gather, scatter_add, concat, and copies into states.
#include <algorithm>
#include <array>
#include <bit>

#include "cuda/kernels.h"
#include "cuda/kernels/rows_params.h"
#include "cuda/sources.h"
#include "runtime/range_errors.h"

namespace nf::cuda {
namespace {

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

KernelSource row_kernel(std::string_view params, std::string_view function, int64_t threads = kRowThreads) {
  return instantiate("rows.cuh", params, function, static_cast<uint32_t>(threads));
}

LaunchShape per_thread(int64_t items) {
  return {.grid_x = blocks(items, kRowThreads), .threads = static_cast<uint32_t>(kRowThreads)};
}

// The type that counts so many units.
std::string_view count_type(const BoundNode& bound, int64_t units) {
  return units < int64_t{1} << 32 && !bound.wide_index ? "uint32_t" : "uint64_t";
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

// Where a copy goes to; see CopyParams, the stride in elements.
struct Start {
  const int32_t* start = nullptr;
  int64_t stride = 0, last = 0;
  uint64_t* fault = nullptr;
};

Launch bind_copy(const BoundNode& bound, const TensorView& from, const TensorView& to,
                 const Start& start = {}) {
  if (from.shape.elements() == 0) return [] {};
  const int64_t element = size_of(from.dtype);
  Walk walk = walk_of(from, to);
  const bool dense = walk.from[0] == 1 && walk.to[0] == 1;
  // Everything that must be a multiple of the unit: addresses, the innermost run, the strides of the others.
  int64_t together = address(from.data) | address(to.data) | start.stride * element;
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
  params.start = start.start;
  params.start_stride = in_units(start.stride);
  params.last_start = start.last;
  params.fault = start.fault;
  for (size_t axis = 0; axis < static_cast<size_t>(walk.axes); ++axis) {
    const bool inner = axis == 0 && dense;
    params.shape[axis] = inner ? in_units(walk.shape[0]) : walk.shape[axis];
    params.from_strides[axis] = inner ? 1 : in_units(walk.from[axis]);
    params.to_strides[axis] = inner ? 1 : in_units(walk.to[axis]);
    params.units *= params.shape[axis];
  }
  return bound.library.launch(
      row_kernel("CopyParams", fmt::format("copy_units<{}, {}>", unit.name, count_type(bound, params.units))),
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
  take(p.counts, kDigits * div_up(p.count, kSortTile));
  take(p.spare, p.count);
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

// The launches that fill p.sorted.
void sort_positions(KernelLibrary& library, const ScatterParams& p, std::vector<Launch>& steps) {
  const int64_t tiles = div_up(p.count, kSortTile);
  const int64_t passes = div_up(std::bit_width(static_cast<uint64_t>(p.rows)), kDigitBits);
  for (int64_t i = 0; i < passes; ++i) {
    int32_t *const to = (passes - i) % 2 == 1 ? p.sorted : p.spare,
                   *other = to == p.sorted ? p.spare : p.sorted;
    const ScatterPass pass{.p = p,
                           .from = i == 0 ? nullptr : other,
                           .to = to,
                           .counters = kDigits * tiles,
                           .shift = static_cast<int32_t>(kDigitBits * i)};
    const auto launch = [&](std::string_view function, int64_t grid, int64_t threads) {
      steps.push_back(library.launch(
          row_kernel("ScatterPass", function, threads),
          {.grid_x = static_cast<uint32_t>(grid), .threads = static_cast<uint32_t>(threads)}, pass));
    };
    launch("scatter_count", tiles, kRowThreads);
    launch("scatter_scan", 1, kScanThreads);
    launch("scatter_place", tiles, kRowThreads);
  }
}

}  // namespace

Launch bind_assign(const BoundNode& bound) { return bind_copy(bound, bound.inputs[1], bound.outputs[0]); }

Launch bind_concat(const BoundNode& bound) {
  std::vector<Launch> copies;  // of the parts that are not made in place
  TensorView target = bound.outputs[0];
  const auto axis = static_cast<int>(bound.node.attributes.integer("axis"));
  for (const TensorView& part : bound.inputs) {
    target.shape = part.shape;
    if (part.data != target.data || part.strides != target.strides)
      copies.push_back(bind_copy(bound, part, target));
    target.data = target.as<std::byte>() + part.shape[axis] * target.strides[axis] * size_of(part.dtype);
  }
  return in_turn(std::move(copies));
}

Launch bind_assign_slice(const BoundNode& bound) {
  TensorView window = bound.outputs[0];
  const int64_t capacity = window.shape[1];
  window.shape = bound.inputs[1].shape;
  const int64_t entries = window.shape[1];
  uint64_t* fault =
      bound.library.faults()->add([=, scope = bound.graph.scope_name(bound.node)](int64_t, int32_t offset) {
        return bad_offset(scope, offset, entries, capacity);
      });
  return bind_copy(bound, bound.inputs[1], window,
                   {.start = bound.inputs[2].as<const int32_t>(),
                    .stride = window.strides[1],
                    .last = capacity - entries,
                    .fault = fault});
}

Launch bind_gather(const BoundNode& bound) {
  const TensorView &table = bound.inputs[0], &out = bound.outputs[0];
  const int64_t rows = table.shape[0];
  const int64_t row_bytes = table.shape.elements() / std::max<int64_t>(rows, 1) * size_of(table.dtype);
  const int64_t count = bound.inputs[1].shape.elements();
  if (count * row_bytes == 0) return [] {};
  const Unit& unit = widest_unit(address(table.data), address(out.data), row_bytes);
  uint64_t* fault = bound.library.faults()->add(
      [=, scope = bound.graph.scope_name(bound.node)](int64_t position, int32_t id) {
        return bad_id(scope, position, id, rows);
      });
  const GatherParams params{.table = table.data,
                            .ids = bound.inputs[1].as<const int32_t>(),
                            .out = out.data,
                            .count = count,
                            .rows = rows,
                            .width = row_bytes / unit.bytes,
                            .fault = fault};
  const int64_t units = params.count * params.width;
  return bound.library.launch(
      row_kernel("GatherParams", fmt::format("gather_units<{}, {}>", unit.name, count_type(bound, units))),
      per_thread(units), params);
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
  const auto launch = [&](const std::string& function, const LaunchShape& shape) {
    return bound.library.launch(row_kernel("ScatterParams", function), shape, p);
  };
  std::vector<Launch> steps;
  if (!p.accumulate) steps.push_back(launch("scatter_clear", per_thread(p.rows * p.width)));
  if (p.count * p.width > 0) {
    sort_positions(bound.library, p, steps);
    const LaunchShape chunks{
        .grid_x = blocks(p.count, kChunk), .grid_y = blocks(p.width, kRowThreads), .threads = kRowThreads};
    steps.push_back(launch(fmt::format("scatter_sum<{}>", type_name(updates.dtype)), chunks));
    steps.push_back(launch("scatter_join", chunks));
  }
  return in_turn(std::move(steps));
}

}  // namespace nf::cuda
