#include "tests/support/loops.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "graph/loop.h"
#include "nf/ops.h"

namespace nf::test {

Value loop_leaf(Graph& graph, int64_t index, DType dtype, const Shape& shape) {
  return graph.add(Op::input, {},
                   {{"index", index}, {"dtype", static_cast<int64_t>(dtype)}, {"shape", shape}});
}

std::vector<TensorView> views(const std::vector<Memory>& tensors) {
  std::vector<TensorView> result;
  for (const Memory& tensor : tensors) result.push_back(tensor.view());
  return result;
}

std::vector<Memory> make_outputs(const Graph& body, Layout layout) {
  std::vector<Memory> result;
  for (const Graph::Output& output : body.outputs())
    result.emplace_back(body.type(output.value).dtype, body.type(output.value).shape, layout);
  return result;
}

// ---- bodies by hand

Value LoopBody::leaf(const Shape& shape, DType dtype) {
  leaves.push_back({dtype, shape});
  return loop_leaf(graph, static_cast<int64_t>(leaves.size()) - 1, dtype, shape);
}

Value LoopBody::per_row() {
  Shape shape = space;
  shape[space.rank() - 1] = 1;
  return leaf(shape);
}

Value LoopBody::per_column() {
  Shape shape = Shape::filled(space.rank(), 1);
  shape[space.rank() - 1] = space.back();
  return leaf(shape);
}

Shape LoopBody::lead_axes() const {
  Shape axes;
  for (int axis = 0; axis + 1 < space.rank(); ++axis) axes.push_back(axis);
  return axes;
}

std::vector<Memory> LoopBody::inputs(uint64_t seed, bool in_any_layout) const {
  std::vector<Memory> result;
  Random random(seed);
  for (const TensorType& type : leaves) {
    const auto layout = in_any_layout ? static_cast<Layout>(random.integer(0, 3)) : Layout::dense;
    result.emplace_back(type.dtype, type.shape, layout);
    result.back().fill(random);
  }
  return result;
}

void rms_norm_with_gain(LoopBody& b) { b.output(rms_norm(b.full(), 1e-6, b.per_column())); }

void softmax_loop(LoopBody& b) { b.output(softmax(b.full())); }

void swiglu_loop(LoopBody& b) { b.output(silu(b.full()) * b.full()); }

namespace {

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
void logsumexp_body(LoopBody& b) {
  const Value x = b.full();
  const Value largest = reduce_max(x, {-1});
  b.output(log(reduce_sum(exp(x - largest), {-1})) + largest);
}
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

// ---- bodies by the dice

class Filler {
 public:
  Filler(LoopBody& body, uint64_t seed)
      : body_(body), graph_(body.graph), random_(seed), space_(body.space), per_row_(body.space) {
    per_row_[space_.rank() - 1] = 1;
    for (int i = 0; i < 3; ++i) full_.push_back(cast_to_float(as_full(new_leaf(any_float()))));
    rows_.push_back(cast_to_float(broadcast_to(new_leaf(any_float(), true), per_row_)));
    for (int64_t steps = random_.integer(3, 12); steps > 0; --steps) step();
    make_outputs();
  }

 private:
  DType any_float() {
    const DType choices[] = {DType::f32, DType::f32, DType::f32, DType::bf16, DType::f16};
    return choices[random_.integer(0, 4)];
  }
  Value add_leaf(DType dtype, const Shape& shape) { return body_.leaf(shape, dtype); }
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
        return cast_to_float(as_full(roll(add_leaf(any_float(), shape), random_.integer(0, space_.back()))));
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

  LoopBody& body_;
  Graph& graph_;
  Random random_;
  Shape space_, per_row_;
  Values full_, rows_;
  Value rng_;
};

}  // namespace

void fill_randomly(LoopBody& body, uint64_t seed) { Filler(body, seed); }

std::span<const BuildBody> model_bodies() {
  static constexpr std::array<BuildBody, 11> kBodies = {
      rms_norm_with_gain, rms_norm_backward, layer_norm, softmax_loop, logsumexp_body, swiglu_loop,
      gelu_body,          ngpt_update,       rotate,     column_sums,  causal_mask};
  return kBodies;
}

const std::vector<Shape>& loop_spaces() {
  static const std::vector<Shape> all = {
      {1},        {3},          {70},       {5000},        {1, 1},       {7, 1},     {300, 2},
      {3, 3},     {17, 31},     {40, 32},   {23, 33},      {64, 256},    {3, 5000},  {2, 70000},
      {5, 4, 33}, {2, 3, 4, 5}, {1, 6, 32}, {4, 1, 7, 64}, {2, 5, 3, 1}, {2000, 16}, {1, 70000}};
  return all;
}

std::vector<Tensor> interpret_loop(const Graph& body, const Shape& space, const std::vector<Memory>& inputs) {
  Graph graph;
  Node node;
  node.op = Op::loop;
  Bindings bindings;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = "x" + std::to_string(i);
    const TensorView& view = inputs[i].view();
    node.inputs.push_back(input(graph, name, view.dtype, view.shape).id);
    Tensor tensor{view.shape, {}};
    for (int64_t e = 0; e < tensor.shape.elements(); ++e) tensor.data.push_back(inputs[i].get(e));
    bindings[name] = tensor;
  }
  for (const Graph::Output& output : body.outputs()) node.outputs.push_back(body.type(output.value));
  // The graph outlives the node: no ownership.
  node.attributes.set("body", nf::Body(nf::Body(), &body));
  node.attributes.set("space", space);
  verify_loop(graph, node);
  const int32_t index = graph.add_node(node).node;
  for (size_t o = 0; o < body.outputs().size(); ++o)
    graph.output("y" + std::to_string(o), graph.value({index, static_cast<int32_t>(o)}));
  Bindings state;
  return reference::evaluate(graph, bindings, state);
}

}  // namespace nf::test
