// Fused loops on the CPU: whole bodies against plain evaluation, in every layout, alias and number of
// threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/loop.h"
#include "cpu/loop_jit.h"
#include "graph/loop.h"
#include "graph/op_table.h"
#include "nf/graph.h"
#include "nf/ops.h"
#include "reference/interpreter.h"
#include "tests/support/tensors.h"

using namespace nf;
using test::Random;

namespace {

// ---- tensors in memory ----

// A tensor in a block of memory of its own, with room between its elements that must stay as it is.
class Memory {
 public:
  // How the elements lie: dense; the innermost axes exchanged; a slice of wider rows; backwards.
  enum class Layout { dense, transposed, sliced, reversed };

  Memory(DType dtype, const Shape& shape, Layout layout = Layout::dense) {
    Shape padded = shape;
    int64_t first = 0;
    if (layout == Layout::sliced && !shape.empty()) padded[shape.rank() - 1] += 5;
    Strides strides = dense_strides(padded);
    if (layout == Layout::sliced) first = 3;
    if (layout == Layout::transposed && shape.rank() >= 2) {
      const int last = shape.rank() - 1;
      std::swap(padded[last], padded[last - 1]);
      strides = dense_strides(padded);
      std::swap(strides[last], strides[last - 1]);
    }
    if (layout == Layout::reversed && !shape.empty()) {
      first = (shape.back() - 1) * strides.back();
      strides[shape.rank() - 1] = -strides.back();
    }
    bytes_.assign(static_cast<size_t>(padded.elements() * size_of(dtype)), std::byte{0x5a});
    view_ = {bytes_.data() + first * size_of(dtype), dtype, shape, strides};
  }
  Memory(Memory&&) = default;  // the view's address stays good
  Memory(const Memory&) = delete;

  const TensorView& view() const { return view_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  void* address(int64_t element) const {
    int64_t offset = 0;
    for (int axis = view_.shape.rank() - 1; axis >= 0; --axis) {
      offset += element % view_.shape[axis] * view_.strides[axis];
      element /= view_.shape[axis];
    }
    return static_cast<std::byte*>(view_.data) + offset * size_of(view_.dtype);
  }

  double get(int64_t element) const {
    const void* at = address(element);
    switch (view_.dtype) {
      case DType::f32: return static_cast<double>(*static_cast<const float*>(at));
      case DType::i32: return *static_cast<const int32_t*>(at);
      case DType::bf16: return static_cast<double>(to_float(*static_cast<const bf16*>(at)));
      case DType::f16: return static_cast<double>(to_float(*static_cast<const f16*>(at)));
      default: return *static_cast<const uint8_t*>(at);
    }
  }

  void set(int64_t element, double value) {
    void* at = address(element);
    switch (view_.dtype) {
      case DType::f32: *static_cast<float*>(at) = static_cast<float>(value); break;
      case DType::i32: *static_cast<int32_t*>(at) = static_cast<int32_t>(value); break;
      case DType::bf16: *static_cast<bf16*>(at) = to_bf16(static_cast<float>(value)); break;
      case DType::f16: *static_cast<f16*>(at) = to_f16(static_cast<float>(value)); break;
      default: *static_cast<uint8_t*>(at) = static_cast<uint8_t>(value);
    }
  }

  void fill(Random& random) {
    for (int64_t i = 0; i < view_.shape.elements(); ++i) {
      const bool whole = view_.dtype == DType::i32 || view_.dtype == DType::u8;
      set(i, view_.dtype == DType::boolean ? static_cast<double>(random.integer(0, 1))
             : whole                       ? static_cast<double>(random.integer(0, 9))
                                           : random.normal());
    }
  }

  // The same elements, whatever the layouts: bit for bit.
  bool same(const Memory& other) const {
    for (int64_t i = 0; i < view_.shape.elements(); ++i)
      if (std::memcmp(address(i), other.address(i), static_cast<size_t>(size_of(view_.dtype))) != 0)
        return false;
    return true;
  }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};
using Layout = Memory::Layout;

Value leaf(Graph& graph, int64_t index, DType dtype, const Shape& shape) {
  return graph.add(Op::input, {},
                   {{"index", index}, {"dtype", static_cast<int64_t>(dtype)}, {"shape", shape}});
}

std::vector<TensorView> views(const std::vector<Memory>& tensors) {
  std::vector<TensorView> result;
  for (const Memory& tensor : tensors) result.push_back(tensor.view());
  return result;
}

// What runs a loop: the interpreter, or machine code where this processor has it.
enum class By { interpreter, code };

void run(const Graph& body, const Shape& space, const std::vector<TensorView>& inputs,
         const std::vector<TensorView>& outputs, int threads = 1, By by = By::code) {
  cpu::LoopCodes codes;
  const cpu::LoopKernel kernel(body, space, inputs, outputs, by == By::code ? &codes : nullptr);
  std::vector<std::byte> workspace(cpu::LoopKernel::workspace(body, space, threads));
  kernel.run(workspace.data(), threads);
}

std::vector<Memory> make_outputs(const Graph& body, Layout layout = Layout::dense) {
  std::vector<Memory> result;
  for (const Graph::Output& output : body.outputs())
    result.emplace_back(body.type(output.value).dtype, body.type(output.value).shape, layout);
  return result;
}

std::vector<Memory> run(const Graph& body, const Shape& space, const std::vector<Memory>& inputs,
                        int threads = 1, Layout layout = Layout::dense, By by = By::code) {
  std::vector<Memory> outputs = make_outputs(body, layout);
  run(body, space, views(inputs), views(outputs), threads, by);
  return outputs;
}

// ---- the same body, one node at a time, each in a loop of its own through memory ----

Attributes copy_of(const Node& node) { return node.attributes; }

std::vector<Memory> run_unfused(const Graph& body, const Shape& space, const std::vector<Memory>& inputs) {
  std::vector<std::unique_ptr<Memory>> values(static_cast<size_t>(body.size()));
  for (int32_t i = 0; i < body.size(); ++i) {
    const Node& node = body.node(i);
    const TensorType& type = node.outputs[0];
    if (node.op == Op::input) {
      const Memory& input = inputs[static_cast<size_t>(node.attributes.integer("index"))];
      values[static_cast<size_t>(i)] = std::make_unique<Memory>(type.dtype, type.shape);
      for (int64_t e = 0; e < type.shape.elements(); ++e)
        values[static_cast<size_t>(i)]->set(e, input.get(e));
      continue;
    }
    Graph single;
    Values operands;
    std::vector<TensorView> operand_views;
    for (const ValueId input : node.inputs) {
      const TensorType& t = body.type(input);
      operands.push_back(leaf(single, static_cast<int64_t>(operands.size()), t.dtype, t.shape));
      operand_views.push_back(values[static_cast<size_t>(input.node)]->view());
    }
    single.output("y", single.add(node.op, operands, copy_of(node)));
    values[static_cast<size_t>(i)] = std::make_unique<Memory>(type.dtype, type.shape);
    run(single, space, operand_views, {values[static_cast<size_t>(i)]->view()}, 1, By::interpreter);
  }
  std::vector<Memory> outputs;
  for (const Graph::Output& output : body.outputs())
    outputs.push_back(std::move(*values[static_cast<size_t>(output.value.node)]));
  return outputs;
}

// ---- random bodies ----

// Bodies of all that the contract allows, with leaves of random shapes and dtypes.
class RandomBody {
 public:
  RandomBody(uint64_t seed, const Shape& space) : random_(seed), space_(space), per_row_(space) {
    per_row_[space.rank() - 1] = 1;
    for (int i = 0; i < 3; ++i) full_.push_back(as_full(cast_to_float(new_leaf(any_float()))));
    rows_.push_back(broadcast_to(cast_to_float(new_leaf(any_float(), true)), per_row_));
    for (int64_t steps = random_.integer(3, 12); steps > 0; --steps) step();
    make_outputs();
  }

  const Graph& graph() const { return graph_; }

  std::vector<Memory> inputs(uint64_t seed) {
    std::vector<Memory> result;
    Random random(seed);
    for (const TensorType& type : leaves_) {
      result.emplace_back(type.dtype, type.shape, static_cast<Layout>(random.integer(0, 3)));
      result.back().fill(random);
    }
    return result;
  }

 private:
  DType any_float() {
    const DType choices[] = {DType::f32, DType::f32, DType::f32, DType::bf16, DType::f16};
    return choices[random_.integer(0, 4)];
  }
  Value add_leaf(DType dtype, const Shape& shape) {
    leaves_.push_back({dtype, shape});
    return leaf(graph_, static_cast<int64_t>(leaves_.size()) - 1, dtype, shape);
  }
  // Sizes are the space's or, sometimes, 1.
  Value new_leaf(DType dtype, bool per_row = false) {
    Shape shape = per_row ? per_row_ : space_;
    for (int axis = 0; axis + 1 < shape.rank(); ++axis)
      if (random_.chance(0.2)) shape[axis] = 1;
    return add_leaf(dtype, shape);
  }
  Value cast_to_float(Value x) { return cast(x, DType::f32); }
  Value as_full(Value x) { return broadcast_to(x, space_); }
  Value pick(const Values& from) {
    return from[static_cast<size_t>(random_.integer(0, static_cast<int64_t>(from.size()) - 1))];
  }
  Value full() { return random_.chance(0.2) ? as_full(pick(rows_)) : pick(full_); }

  Value arithmetic(Value a, Value b) {
    switch (random_.integer(0, 11)) {
      case 0: return a + b;
      case 1: return a - b;
      case 2: return a * b;
      case 3: return a / (abs(b) + 1.0);
      case 4: return maximum(a, b);
      case 5: return minimum(a, b);
      case 6: return where(less(a, b), a, b * 0.5);
      case 7: return where(less_equal(a, constant_like(b, 0.25)), b, -a);
      case 8: return cast_to_float(cast(a, random_.chance(0.5) ? DType::bf16 : DType::f16)) + b;
      case 9: return cast_to_float(equal(a, b)) * a;
      case 10: return a * 0.5 + b;
      default: return cast_to_float(cast(minimum(abs(a), constant_like(a, 100)), DType::i32)) - b;
    }
  }
  Value function(Value x) {
    switch (random_.integer(0, 10)) {
      case 0: return exp(minimum(x, constant_like(x, 3)));
      case 1: return log(abs(x) + 1.0);
      case 2: return sqrt(abs(x));
      case 3: return rsqrt(abs(x) + 1.0);
      case 4: return tanh(x);
      case 5: return sigmoid(x);
      case 6: return erf(x);
      case 7: return sin(x);
      case 8: return cos(x);
      case 9: return abs(x);
      default: return -x;
    }
  }
  Value leaf_like() {
    switch (random_.integer(0, 4)) {
      case 0: {
        Shape shape = space_;
        if (random_.chance(0.3) && space_.rank() > 1) shape[0] = 1;
        return as_full(cast_to_float(roll(add_leaf(any_float(), shape), random_.integer(0, space_.back()))));
      }
      case 1:
        return cast_to_float(iota(graph_, space_, static_cast<int>(random_.integer(0, space_.rank() - 1)))) *
               0.01;
      case 2: return where(as_full(new_leaf(DType::boolean)), full(), full());
      case 3: return cast_to_float(as_full(new_leaf(DType::u8)));
      default:
        if (space_.rank() == 1) return full() + 1.0;
        if (!rng_) rng_ = add_leaf(DType::i32, {4});
        return philox(rng_, space_, 77);
    }
  }
  void step() {
    switch (random_.integer(0, 7)) {
      case 0:
      case 1: full_.push_back(arithmetic(full(), full())); break;
      case 2:
      case 3: full_.push_back(function(full())); break;
      case 4: full_.push_back(leaf_like()); break;
      case 5: {
        const Value x = full();
        const Value y = random_.chance(0.3) ? x * full() : x;
        const Shape axes = {space_.rank() - 1};
        rows_.push_back(random_.chance(0.7) ? reduce_sum(y, axes) * (1.0 / static_cast<double>(space_.back()))
                                            : reduce_max(y, axes));
        break;
      }
      case 6: rows_.push_back(arithmetic(pick(rows_), pick(rows_))); break;
      default: rows_.push_back(function(pick(rows_))); break;
    }
  }
  void make_outputs() {
    graph_.output("full", full_.back());
    if (random_.chance(0.2)) graph_.output("leaf", full_.front());
    if (random_.chance(0.5)) graph_.output("narrow", cast(pick(full_), DType::bf16));
    if (random_.chance(0.5)) graph_.output("row", rows_.back());
    if (random_.chance(0.3)) graph_.output("truth", less(full(), full()));
    if (space_.rank() > 1 && random_.chance(0.5)) {
      Shape axes;
      for (int64_t axis = 0, count = random_.integer(1, space_.rank() - 1); axis < count; ++axis)
        axes.push_back(axis);
      const Value x = full();
      graph_.output("column", reduce_sum(random_.chance(0.5) ? x * full() : x, axes));
      if (random_.chance(0.3)) graph_.output("columns", reduce_max(full(), axes));
    }
  }

  Graph graph_;
  Random random_;
  Shape space_, per_row_;
  std::vector<TensorType> leaves_;
  Values full_, rows_;
  Value rng_;
};

const std::vector<Shape>& spaces() {
  static const std::vector<Shape> all = {
      {1},        {3},          {70},       {5000},        {1, 1},       {7, 1},     {300, 2},
      {3, 3},     {17, 31},     {40, 32},   {23, 33},      {64, 256},    {3, 5000},  {2, 70000},
      {5, 4, 33}, {2, 3, 4, 5}, {1, 6, 32}, {4, 1, 7, 64}, {2, 5, 3, 1}, {2000, 16}, {1, 70000}};
  return all;
}

}  // namespace

TEST_CASE("loop: random bodies give the bits of their nodes run one by one") {
  uint64_t seed = 1;
  for (const Shape& space : spaces())
    for (int repeat = 0; repeat < (space.elements() > 4000 ? 4 : 12); ++repeat, ++seed) {
      CAPTURE(to_string(space));
      CAPTURE(seed);
      RandomBody body(seed, space);
      verify(body.graph());
      const std::vector<Memory> inputs = body.inputs(seed);
      const std::vector<Memory> expected = run_unfused(body.graph(), space, inputs);
      for (const By by : {By::interpreter, By::code}) {
        CAPTURE(by == By::code);
        const std::vector<Memory> got = run(body.graph(), space, inputs, 1 + static_cast<int>(seed % 3),
                                            static_cast<Layout>(seed % 4), by);
        for (size_t o = 0; o < got.size(); ++o) {
          CAPTURE(body.graph().outputs()[o].name);
          REQUIRE(got[o].same(expected[o]));
        }
      }
    }
}

TEST_CASE("loop: any number of threads gives the same bits") {
  for (const Shape& space : {Shape{3000, 48}, Shape{7, 20000}, Shape{200000}, Shape{6, 50, 4, 64}})
    for (uint64_t seed = 100; seed < 106; ++seed) {
      RandomBody body(seed, space);
      const std::vector<Memory> inputs = body.inputs(seed);
      const std::vector<Memory> one = run(body.graph(), space, inputs, 1);
      for (const int threads : {2, 3}) {
        const std::vector<Memory> several = run(body.graph(), space, inputs, threads);
        for (size_t o = 0; o < one.size(); ++o) REQUIRE(several[o].same(one[o]));
      }
    }
}

// ---- bodies that models are made of ----

namespace {

struct LoopBody {
  Graph graph;
  Shape space;
  std::vector<TensorType> leaves;

  explicit LoopBody(const Shape& s) : space(s) {}
  Value leaf(const Shape& shape, DType dtype = DType::f32) {
    leaves.push_back({dtype, shape});
    return ::leaf(graph, static_cast<int64_t>(leaves.size()) - 1, dtype, shape);
  }
  Value full(DType dtype = DType::f32) { return leaf(space, dtype); }
  Value per_row() {
    Shape shape = space;
    shape[space.rank() - 1] = 1;
    return leaf(shape);
  }
  Value per_column() {
    Shape shape = Shape::filled(space.rank(), 1);
    shape[space.rank() - 1] = space.back();
    return leaf(shape);
  }
  Shape lead_axes() const {
    Shape axes;
    for (int axis = 0; axis + 1 < space.rank(); ++axis) axes.push_back(axis);
    return axes;
  }
  void output(Value value) { graph.output("y" + std::to_string(graph.outputs().size()), value); }

  std::vector<Memory> inputs(uint64_t seed) const {
    std::vector<Memory> result;
    Random random(seed);
    for (const TensorType& type : leaves) {
      result.emplace_back(type.dtype, type.shape);
      result.back().fill(random);
    }
    return result;
  }
};

using Build = void (*)(LoopBody& b);

void rms_norm_gain(LoopBody& b) { b.output(rms_norm(b.full(), 1e-6, b.per_column())); }
void rms_norm_backward(LoopBody& b) {
  const Value x = b.full(), dy = b.full(), gain = b.per_column();
  const Value r = rsqrt(mean(x * x, {-1}) + 1e-6);
  const Value xhat = x * r, dh = dy * gain;
  b.output((dh - xhat * mean(dh * xhat, {-1})) * r);
  b.output(r);
  if (b.space.rank() > 1) b.output(reduce_sum(dy * xhat, b.lead_axes()));
}
void layer_norm(LoopBody& b) {
  const Value x = b.full();
  const Value centred = x - mean(x, {-1});
  b.output(centred * rsqrt(mean(centred * centred, {-1}) + 1e-5));
}
void softmax_body(LoopBody& b) { b.output(softmax(b.full())); }
void logsumexp_body(LoopBody& b) {
  const Value x = b.full();
  const Value largest = reduce_max(x, {-1});
  b.output(log(reduce_sum(exp(x - largest), {-1})) + largest);
}
void swiglu(LoopBody& b) { b.output(silu(b.full()) * b.full()); }
void gelu_body(LoopBody& b) { b.output(gelu(b.full())); }
void ngpt_update(LoopBody& b) {
  const Value h = b.full(), a = b.full();
  b.output(l2_normalize(lerp(h, l2_normalize(a), b.per_column())));
}
void rotate(LoopBody& b) {
  const Value x = b.full();
  b.output(x * b.full() + roll(x, b.space.back() / 2) * b.per_column());
}
void column_sums(LoopBody& b) {
  const Value x = b.full(), y = b.full();
  const Shape axes = b.space.rank() > 1 ? b.lead_axes() : Shape{};
  if (axes.empty()) return b.output(x + y);
  b.output(reduce_sum(x, axes));
  b.output(reduce_sum(x * y, axes));
  b.output(reduce_max(y, {0}));
  b.output(reduce_sum(reduce_sum(x, {-1}) * y, {0}));
}
void causal_mask(LoopBody& b) {
  const Value x = b.full();
  const int last = b.space.rank() - 1;
  const Value mask = less_equal(iota(b.graph, b.space, last), iota(b.graph, b.space, std::max(last - 1, 0)));
  b.output(where(mask, x, constant_like(x, -1)));
}

const Build kBodies[] = {rms_norm_gain, rms_norm_backward, layer_norm, softmax_body, logsumexp_body, swiglu,
                         gelu_body,     ngpt_update,       rotate,     column_sums,  causal_mask};

std::vector<reference::Tensor> run_reference(const LoopBody& body, const std::vector<Memory>& inputs) {
  Graph graph;
  Node node;
  node.op = Op::loop;
  reference::Bindings bindings;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = "x" + std::to_string(i);
    node.inputs.push_back(input(graph, name, body.leaves[i].dtype, body.leaves[i].shape).id);
    reference::Tensor tensor{body.leaves[i].shape, {}};
    for (int64_t e = 0; e < tensor.shape.elements(); ++e) tensor.data.push_back(inputs[i].get(e));
    bindings[name] = tensor;
  }
  for (const Graph::Output& output : body.graph.outputs())
    node.outputs.push_back(body.graph.type(output.value));
  // The graph outlives the node: no ownership.
  node.attributes.set("body", nf::Body(nf::Body(), &body.graph));
  node.attributes.set("space", body.space);
  verify_loop(graph, node);
  const int32_t index = graph.add_node(node).node;
  for (size_t o = 0; o < body.graph.outputs().size(); ++o)
    graph.output("y" + std::to_string(o), graph.value({index, static_cast<int32_t>(o)}));
  reference::Bindings state;
  return reference::evaluate(graph, bindings, state);
}

// Makes chosen outputs share the memory of chosen inputs, and compares with outputs of their own.
void check_shared(const LoopBody& body, const std::vector<std::pair<size_t, size_t>>& output_on_input) {
  CAPTURE(to_string(body.space));
  const std::vector<Memory> expected = run(body.graph, body.space, body.inputs(5));
  for (const int threads : {1, 2}) {
    const std::vector<Memory> inputs = body.inputs(5);
    std::vector<Memory> outputs = make_outputs(body.graph);
    std::vector<TensorView> output_views = views(outputs);
    for (const auto& [output, input] : output_on_input) output_views[output] = inputs[input].view();
    run(body.graph, body.space, views(inputs), output_views, threads);
    std::vector<const Memory*> got;
    for (const Memory& output : outputs) got.push_back(&output);
    for (const auto& [output, input] : output_on_input) got[output] = &inputs[input];
    for (size_t o = 0; o < got.size(); ++o) CHECK(got[o]->same(expected[o]));
  }
}

const std::vector<Shape>& shared_spaces() {
  static const std::vector<Shape> all = {{17, 33},   {300, 64}, {3, 5000}, {1, 70000},
                                         {2, 70000}, {100000},  {1, 40}};
  return all;
}

}  // namespace

TEST_CASE("loop: the bodies of models agree with double precision") {
  for (const Build build : kBodies)
    for (const Shape& space : {Shape{1}, Shape{257}, Shape{5000}, Shape{6, 1}, Shape{5, 31}, Shape{33, 256},
                               Shape{2, 5000}, Shape{2, 20000}, Shape{3, 4, 5, 64}, Shape{2, 7, 1, 32}}) {
      LoopBody body(space);
      build(body);
      const std::vector<Memory> inputs = body.inputs(11);
      const std::vector<Memory> got = run(body.graph, space, inputs, 2);
      const std::vector<reference::Tensor> expected = run_reference(body, inputs);
      for (size_t o = 0; o < got.size(); ++o) {
        reference::Tensor tensor{expected[o].shape, {}};
        for (int64_t e = 0; e < tensor.shape.elements(); ++e) tensor.data.push_back(got[o].get(e));
        CAPTURE(to_string(space));

        CAPTURE(o);
        // Where all terms cancel, only the absolute error says something.
        CHECK(std::min(test::relative_error(tensor, expected[o]), test::largest_error(tensor, expected[o])) <
              2e-6);
      }
    }
}

TEST_CASE("loop: outputs may share the memory of inputs") {
  for (const Shape& space : shared_spaces()) {
    LoopBody update(space);
    const Value p = update.full(), g = update.full(), m = update.full();
    const Value new_m = m * 0.9 + g * 0.1;
    update.output(p - new_m / (abs(new_m) + 1e-8) * 0.01);
    update.output(new_m);
    check_shared(update, {{0, 0}, {1, 2}});

    LoopBody normalize(space);
    normalize.output(softmax(normalize.full()));
    check_shared(normalize, {{0, 0}});

    LoopBody residual(space);
    const Value x = residual.full();
    residual.output(x + rms_norm(x, 1e-6));
    residual.output(rms_norm(x, 1e-6) * residual.full());
    check_shared(residual, {{0, 0}, {1, 1}});

    LoopBody narrow(space);
    narrow.output(cast(rms_norm(narrow.full(DType::bf16), 1e-6), DType::bf16));
    check_shared(narrow, {{0, 0}});

    LoopBody exchange(space);
    const Value a = exchange.full(), b = exchange.full();
    exchange.output(b);
    exchange.output(a);
    exchange.output(a + b);
    check_shared(exchange, {{0, 0}, {1, 1}});

    LoopBody scaled(space);
    const Value scale = scaled.per_row(), y = scaled.full();
    const Value sum = reduce_sum(y * scale, {-1});
    scaled.output(sum + scale);
    scaled.output(y * scale - sum);
    check_shared(scaled, {{0, 0}, {1, 1}});

    LoopBody decay(space);
    const Value factor = decay.per_row();
    decay.output(decay.full() * factor);
    decay.output(factor * 0.5);
    check_shared(decay, {{1, 0}});
  }
}

TEST_CASE("loop: views with strides of their own are written nowhere else") {
  for (const Layout layout : {Layout::sliced, Layout::transposed, Layout::reversed}) {
    LoopBody body({4, 6, 40});
    rms_norm_gain(body);
    const std::vector<Memory> inputs = body.inputs(3);
    const std::vector<Memory> dense = run(body.graph, body.space, inputs);
    const std::vector<Memory> strided = run(body.graph, body.space, inputs, 1, layout);
    CHECK(strided[0].same(dense[0]));
    const auto untouched = std::count(strided[0].bytes().begin(), strided[0].bytes().end(), std::byte{0x5a});
    const auto gaps = static_cast<int64_t>(strided[0].bytes().size()) - body.space.elements() * 4;
    CHECK(untouched >= gaps);
    CHECK(untouched < gaps + body.space.elements() / 8);
  }
}

TEST_CASE("loop: one kernel runs many times and sees the new contents") {
  LoopBody body({50, 300});
  softmax_body(body);
  std::vector<Memory> inputs = body.inputs(1);
  const std::vector<Memory> outputs = make_outputs(body.graph);
  const cpu::LoopKernel kernel(body.graph, body.space, views(inputs), views(outputs));
  std::vector<std::byte> workspace(cpu::LoopKernel::workspace(body.graph, body.space, 2));
  for (uint64_t seed = 1; seed < 4; ++seed) {
    Random random(seed);
    inputs[0].fill(random);
    kernel.run(workspace.data(), 2);
    CHECK(outputs[0].same(run(body.graph, body.space, inputs)[0]));
  }
}

TEST_CASE("loop: the listing names the instructions") {
  LoopBody body({4, 100000});
  softmax_body(body);
  const std::vector<Memory> inputs = body.inputs(1), outputs = make_outputs(body.graph);
  const std::string text = cpu::LoopKernel(body.graph, body.space, views(inputs), views(outputs)).describe();
  CHECK(text.find("exp_f") != std::string::npos);
  CHECK(text.find("per piece of a row") != std::string::npos);
}

TEST_CASE("loop: what does not fit is refused") {
  LoopBody body({4, 8});
  swiglu(body);
  const std::vector<Memory> inputs = body.inputs(1), outputs = make_outputs(body.graph);
  std::vector<TensorView> bad = views(inputs);
  bad[1].dtype = DType::i32;
  CHECK_THROWS_AS(cpu::LoopKernel(body.graph, body.space, bad, views(outputs)), Error);
  bad = views(outputs);
  bad[0].shape = {4, 9};
  CHECK_THROWS_AS(cpu::LoopKernel(body.graph, body.space, views(inputs), bad), Error);
  CHECK_THROWS_AS(cpu::LoopKernel(body.graph, body.space, views(inputs), {}), Error);

  LoopBody wide({4, 8});
  wide.output(wide.full(DType::f64) * 2.0);
  const Memory eight(DType::f64, {4, 8});
  CHECK_THROWS_AS(
      cpu::LoopKernel(wide.graph, wide.space, std::vector{eight.view()}, std::vector{eight.view()}), Error);
}
