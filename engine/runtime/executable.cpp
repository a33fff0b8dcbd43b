#include "nf/executable.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "base/tensor_view.h"
#include "graph/op_table.h"

namespace nf {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename T, typename Convert>
void fill(std::byte* memory, const std::vector<double>& values, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) reinterpret_cast<T*>(memory)[i] = convert(values[i]);
}

void write_constant(std::byte* memory, DType dtype, const std::vector<double>& values) {
  switch (dtype) {
    case DType::f32: return fill<float>(memory, values, [](double v) { return static_cast<float>(v); });
    case DType::bf16:
      return fill<bf16>(memory, values, [](double v) { return to_bf16(static_cast<float>(v)); });
    case DType::f16: return fill<f16>(memory, values, [](double v) { return to_f16(static_cast<float>(v)); });
    case DType::f64: return fill<double>(memory, values, [](double v) { return v; });
    case DType::i32: return fill<int32_t>(memory, values, [](double v) { return static_cast<int32_t>(v); });
    case DType::i64: return fill<int64_t>(memory, values, [](double v) { return static_cast<int64_t>(v); });
    case DType::u8: return fill<uint8_t>(memory, values, [](double v) { return static_cast<uint8_t>(v); });
    case DType::boolean: return fill<bool>(memory, values, [](double v) { return v != 0; });
  }
}

// Calls visit(offset in elements) for every element of a strided tensor, in row-major order.
template <typename Visit>
void for_each_offset(const Shape& shape, const Strides& strides, Visit visit) {
  std::array<int64_t, Shape::kMaxRank> index{};
  const int64_t count = shape.elements();
  int64_t offset = 0;
  for (int64_t i = 0; i < count; ++i) {
    visit(offset);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      const auto at = static_cast<size_t>(axis);
      offset += strides[axis];
      if (++index[at] < shape[axis]) break;
      offset -= strides[axis] * shape[axis];
      index[at] = 0;
    }
  }
}

// The tensor where the host can read it: in place, or in `copy`.
TensorView host_view(const Device& device, TensorView view, std::vector<std::byte>& copy) {
  if (device.shares_host_memory()) return view;
  int64_t first = 0, last = 0;
  for_each_offset(view.shape, view.strides, [&](int64_t offset) {
    first = std::min(first, offset);
    last = std::max(last, offset);
  });
  const int64_t size = size_of(view.dtype);
  copy.resize(static_cast<size_t>((last - first + 1) * size));
  device.read(copy, view.as<std::byte>() + first * size);
  view.data = copy.data() - first * size;
  return view;
}

bool all_finite(const Device& device, const TensorView& on_device) {
  std::vector<std::byte> copy;
  const TensorView view = host_view(device, on_device, copy);
  bool finite = true;
  for_each_offset(view.shape, view.strides, [&](int64_t offset) {
    switch (view.dtype) {
      case DType::f32: finite = finite && std::isfinite(view.as<float>()[offset]); break;
      case DType::bf16: finite = finite && std::isfinite(to_float(view.as<bf16>()[offset])); break;
      case DType::f16: finite = finite && std::isfinite(to_float(view.as<f16>()[offset])); break;
      case DType::f64: finite = finite && std::isfinite(view.as<double>()[offset]); break;
      default: break;
    }
  });
  return finite;
}

}  // namespace

TensorView BoundPlan::view(ValueId id) const {
  const Place& place = plan.places[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
  std::byte* base = nullptr;
  switch (place.region) {
    case Place::Region::arena: base = arena; break;
    case Place::Region::constant: base = constants; break;
    case Place::Region::state: base = states[static_cast<size_t>(place.index)]; break;
    case Place::Region::none: fail("runtime: %{} of the plan has no memory", id.node);
  }
  const TensorType& type = plan.graph->type(id);
  return {base + place.offset, type.dtype, type.shape, place.strides};
}

bool BoundPlan::is_frozen(ValueId id) const {
  const Place& place = plan.places[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
  const auto is_same_state = [&](const Place& other) {
    return other.region == Place::Region::state && other.index == place.index;
  };
  return plan.frozen && place.region == Place::Region::state &&
         std::none_of(plan.steps.begin(), plan.steps.end(), [&](const Plan::Step& step) {
           return std::ranges::any_of(plan.places[static_cast<size_t>(step.node)], is_same_state);
         });
}

Executable::Executable(Plan plan, std::shared_ptr<State> state, Buffer arena, std::string name)
    : plan_(std::move(plan)), state_(std::move(state)), arena_(std::move(arena)), name_(std::move(name)) {
  const Device& device = *state_->device();
  if (!arena_) arena_ = device.allocate(plan_.arena_bytes());
  constants_ = device.allocate(plan_.constant_bytes);
  bound_ = std::make_unique<BoundPlan>(BoundPlan{plan_, arena_.get(), constants_.get(), {}});
  for (const Plan::StateUse& use : plan_.states) bound_->states.push_back(state_->ensure(use.name, use.type));
  std::vector<std::byte> constants(static_cast<size_t>(plan_.constant_bytes));
  for (int32_t node : plan_.constants)
    write_constant(constants.data() + plan_.places[static_cast<size_t>(node)][0].offset,
                   plan_.graph->node(node).outputs[0].dtype,
                   *plan_.graph->node(node).attributes.data("data"));
  device.write(constants_.get(), constants);
  const Graph& graph = *plan_.graph;
  for (int32_t i = 0; i < graph.size(); ++i)
    if (graph.node(i).op == Op::input &&
        plan_.places[static_cast<size_t>(i)][0].region != Place::Region::none)
      inputs_.emplace_back(graph.node(i).attributes.text("name"), ValueId{i, 0});
  launches_ = device.load(*bound_);
}

ValueId Executable::find_input(std::string_view name) const {
  for (const auto& [input_name, id] : inputs_)
    if (input_name == name) return id;
  return {};
}

ValueId Executable::find_output(std::string_view name) const {
  for (const Graph::Output& output : plan_.graph->outputs())
    if (output.name == name) return output.value;
  fail("runtime: {} has no output '{}'", name_, name);
}

bool Executable::has_input(std::string_view name) const { return find_input(name).node >= 0; }

const TensorType& Executable::input_type(std::string_view name) const {
  const ValueId id = find_input(name);
  require(id.node >= 0, "runtime: {} has no input '{}'", name_, name);
  return plan_.graph->type(id);
}

const TensorType& Executable::output_type(std::string_view name) const {
  return plan_.graph->type(find_output(name));
}

void Executable::set_bytes(std::string_view name, std::span<const std::byte> bytes) {
  const TensorType& type = input_type(name);
  require(static_cast<int64_t>(bytes.size()) == type.bytes(),
          "runtime: input '{}' is {}{} of {} bytes, not {}", name, nf::name(type.dtype), type.shape,
          type.bytes(), bytes.size());
  state_->device()->write(bound_->view(find_input(name)).as<std::byte>(), bytes);
}

void Executable::get_bytes(std::string_view name, std::span<std::byte> bytes) const {
  const ValueId id = find_output(name);
  const TensorType& type = plan_.graph->type(id);
  require(static_cast<int64_t>(bytes.size()) == type.bytes(), "runtime: output '{}' has {} bytes, not {}",
          name, type.bytes(), bytes.size());
  state_->device()->read(bytes, bound_->view(id).as<std::byte>());
}

float Executable::scalar(std::string_view name) const {
  float value = 0;
  require(output_type(name).dtype == DType::f32, "runtime: output '{}' is not f32", name);
  get_bytes(name, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

void Executable::read_later(std::string_view name, Readback& to, int64_t at) const {
  const ValueId id = find_output(name);
  to.read(at, plan_.graph->type(id).bytes(), bound_->view(id).as<std::byte>());
}

void Executable::run() {
  if (profiling_) return run_profiled();
  if (!recorded_) recorded_ = state_->device()->record(launches_);
  recorded_();
}

void Executable::set_profiling(bool on) {
  profiling_ = on;
  if (!on || !profile_.empty()) return;
  const Graph& graph = *plan_.graph;
  if (launches_.size() != plan_.steps.size()) {
    profile_.push_back({.kind = "graph", .scope = name_, .spans = {}});
    return;
  }
  for (const Plan::Step& step : plan_.steps) {
    const Node& node = graph.node(step.node);
    StepProfile profile{.kind = std::string(nf::name(node.op)),
                        .scope = graph.scope_name(node),
                        .backward = node.backward,
                        .spans = {}};
    profile.flops = flops(graph, node);
    for (ValueId id : node.inputs) profile.bytes += static_cast<double>(graph.type(id).bytes());
    for (const TensorType& type : node.outputs) profile.bytes += static_cast<double>(type.bytes());
    profile_.push_back(std::move(profile));
  }
}

void Executable::run_profiled() {
  for (size_t i = 0; i < launches_.size(); ++i) {
    const double start = now();
    launches_[i]();
    state_->device()->synchronize();
    const double length = now() - start;
    profile_[i].seconds += length;
    ++profile_[i].runs;
    profile_[i].spans.emplace_back(start, length);
  }
}

std::string Executable::find_nonfinite() {
  const Graph& graph = *plan_.graph;
  for (int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if ((node.op == Op::state || node.op == Op::input) &&
        plan_.places[static_cast<size_t>(i)][0].region != Place::Region::none &&
        !all_finite(*state_->device(), bound_->view({i, 0})))
      return fmt::format("{} '{}'", nf::name(node.op), node.attributes.text("name"));
  }
  if (launches_.size() != plan_.steps.size()) return "";
  for (size_t i = 0; i < launches_.size(); ++i) {
    launches_[i]();
    const Node& node = graph.node(plan_.steps[i].node);
    for (int32_t output = 0; output < static_cast<int32_t>(node.outputs.size()); ++output) {
      const bool may_be_infinite =
          node.op == Op::attention && output == 1;  // the logsumexp of a row that sees nothing
      if (!may_be_infinite && !all_finite(*state_->device(), bound_->view({plan_.steps[i].node, output})))
        return fmt::format("{}{} in {}", nf::name(node.op), node.backward ? " (backward)" : "",
                           graph.scope_name(node));
    }
  }
  return "";
}

std::unique_ptr<Executable> compile(const Graph& graph, std::shared_ptr<State> state,
                                    const CompileOptions& options, Buffer arena) {
  Plan planned = plan(graph, *state->device(), options);
  return std::make_unique<Executable>(std::move(planned), std::move(state), std::move(arena), options.name);
}

}  // namespace nf
