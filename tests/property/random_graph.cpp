#include "tests/property/random_graph.h"

#include <algorithm>
#include <cmath>

#include "nf/gradients.h"
#include "nf/ops.h"

namespace nf::test {
namespace {

constexpr int64_t kMostElements = 1500;

class Generator {
 public:
  Generator(RandomGraph& result, uint64_t seed) : result_(result), graph_(result.graph), random_(seed) {}

  void run() {
    for (int64_t i = random_.integer(2, 4); i > 0; --i) add_leaf();
    for (int64_t i = random_.integer(3, 25); i > 0; --i) add_op();
    if (random_.chance(0.5)) add_gradients();
    for (int64_t i = random_.integer(0, 2); i > 0; --i) add_assign();
    if (random_.chance(0.2)) add_assign_slice();
    for (int64_t i = random_.integer(1, 4); i > 0; --i) add_output(any());
    add_output(values_.back());
  }

 private:
  using Step = Value (Generator::*)();

  // ---- choosing ----
  Value any() {
    return values_[static_cast<size_t>(random_.integer(0, static_cast<int64_t>(values_.size()) - 1))];
  }
  // Late values more often, so that graphs grow deep.
  Value recent() {
    const auto count = static_cast<int64_t>(values_.size());
    return values_[static_cast<size_t>(random_.integer(std::max<int64_t>(0, count - 5), count - 1))];
  }
  Value some() { return random_.chance(0.6) ? recent() : any(); }
  Value some_float() {
    for (int tries = 0; tries < 20; ++tries)
      if (const Value x = some(); is_float(x.dtype())) return x;
    return add_leaf();
  }
  Value of_rank_at_least(int rank) {
    for (int tries = 0; tries < 20; ++tries)
      if (const Value x = some_float(); x.shape().rank() >= rank) return x;
    Shape shape;
    for (int axis = 0; axis < rank; ++axis) shape.push_back(size());
    return new_leaf(shape);
  }
  int axis_of(const Shape& shape) { return static_cast<int>(random_.integer(0, shape.rank() - 1)); }
  int64_t size() {
    static constexpr std::array<int64_t, 9> kSizes = {1, 2, 2, 3, 4, 5, 7, 8, 17};
    return kSizes[static_cast<size_t>(random_.integer(0, 8))];
  }
  DType narrow_or_f32() { return random_.chance(0.3) ? DType::bf16 : DType::f32; }

  // ---- leaves ----
  Value new_leaf(const Shape& shape) { return leaf(shape, narrow_or_f32()); }
  Value leaf(const Shape& shape, DType dtype) {
    const bool is_state = random_.chance(0.3);
    const std::string name = (is_state ? "state" : "input") + std::to_string(leaves_++);
    Tensor data = random_tensor(shape, random_.bits());
    for (double& x : data.data) x = std::clamp(x, -2.5, 2.5);
    (is_state ? result_.state : result_.inputs)[name] = data;
    const Value x = is_state ? state(graph_, name, dtype, shape) : input(graph_, name, dtype, shape);
    leaves_of_floats_.push_back(x);
    return x;
  }
  Value integers(const Shape& shape, int64_t low, int64_t high) {
    const std::string name = "input" + std::to_string(leaves_++);
    result_.inputs[name] = random_integers(shape, random_.bits(), low, high);
    return input(graph_, name, DType::i32, shape);
  }
  Value rng() {
    if (!result_.inputs.contains("rng")) result_.inputs["rng"] = {{4}, {1, 2, 3, 4}};
    return input(graph_, "rng", DType::i32, {4});
  }
  // A shape that shares its last axes with an earlier one, so that values meet.
  Shape related_shape() {
    Shape shape;
    if (values_.empty() || random_.chance(0.25)) {
      for (int64_t rank = random_.integer(0, 4); rank > 0; --rank) shape.push_back(size());
    } else {
      const Shape base = any().shape();
      const int64_t from = random_.chance(0.5) || base.rank() == 0 ? 0 : random_.integer(0, base.rank() - 1);
      for (int axis = static_cast<int>(from); axis < base.rank(); ++axis)
        shape.push_back(random_.chance(0.25) ? 1 : base[axis]);
    }
    return shape.elements() <= kMostElements ? shape : Shape{4, 8};
  }
  Value add_leaf() {
    values_.push_back(new_leaf(related_shape()));
    return values_.back();
  }

  // ---- ops ----
  void add_op() {
    static constexpr std::array kSteps = {
        &Generator::unary,       &Generator::unary,     &Generator::binary,       &Generator::binary,
        &Generator::binary,      &Generator::choose,    &Generator::narrow,       &Generator::scaled,
        &Generator::reduction,   &Generator::reduction, &Generator::row_function, &Generator::row_function,
        &Generator::moved,       &Generator::moved,     &Generator::moved,        &Generator::joined,
        &Generator::broadcasted, &Generator::product,   &Generator::product,      &Generator::looked_up,
        &Generator::scattered,   &Generator::attended,  &Generator::entropy,      &Generator::rotated,
        &Generator::dropped,     &Generator::counted,   &Generator::new_input};
    const Step step = kSteps[static_cast<size_t>(random_.integer(0, kSteps.size() - 1))];
    const Value x = (this->*step)();
    if (x && x.shape().elements() <= kMostElements) values_.push_back(x);
  }

  Value new_input() { return new_leaf(related_shape()); }

  Value unary() {
    const Value x = some_float();
    switch (random_.integer(0, 12)) {
      case 0: return -x;
      case 1: return exp(minimum(x, constant_like(x, 2)));
      case 2: return log(abs(x) + 0.5);
      case 3: return sqrt(abs(x) + 0.3);
      case 4: return rsqrt(square(tanh(x)) + 0.3);
      case 5: return tanh(x);
      case 6: return sigmoid(x);
      case 7: return erf(x);
      case 8: return sin(x);
      case 9: return cos(x);
      case 10: return silu(x);
      case 11: return gelu(x);
      default: return relu(x);
    }
  }

  // Two values that broadcast against each other, if the dice find any.
  std::pair<Value, Value> pair() {
    for (int tries = 0; tries < 30; ++tries) {
      const Value a = some(), b = some();
      int64_t elements = 1;
      bool fits = true;
      for (int i = 1; i <= std::max(a.shape().rank(), b.shape().rank()); ++i) {
        const int64_t m = i <= a.shape().rank() ? a.size(-i) : 1, n = i <= b.shape().rank() ? b.size(-i) : 1;
        fits = fits && (m == n || m == 1 || n == 1);
        elements *= std::max(m, n);
      }
      if (fits && elements <= kMostElements) return {a, b};
    }
    const Value a = some();
    return {a, a};
  }

  Value binary() {
    auto [a, b] = pair();
    if (!is_float(a.dtype()) && !is_float(b.dtype())) return random_.chance(0.5) ? a + b : a - b;
    if (!is_float(a.dtype())) a = cast(a, DType::f32);
    if (!is_float(b.dtype())) b = cast(b, DType::f32);
    switch (random_.integer(0, 6)) {
      case 0: return a + b;
      case 1: return a - b;
      case 2: return tanh(a) * b;
      case 3: return a / (abs(b) + 0.7);
      case 4: return maximum(a, b);
      case 5: return minimum(a, b);
      default: return lerp(a, b, constant(graph_, 0.3));
    }
  }

  Value choose() {
    const auto [a, b] = pair();
    const Value condition = random_.chance(0.5)   ? less(a, b)
                            : random_.chance(0.5) ? less_equal(b, a)
                                                  : equal(a, b);
    return where(condition, a, random_.chance(0.3) ? constant(graph_, 1, a.dtype()) : b);
  }

  Value narrow() {
    const Value x = some_float();
    if (random_.chance(0.15)) return cast(cast(x, DType::f16), DType::f32);
    return cast(x, x.dtype() == DType::bf16 ? DType::f32 : DType::bf16);
  }

  Value scaled() {
    const Value x = some_float();
    switch (random_.integer(0, 5)) {
      case 0: return x * 0.5;
      case 1: return x + 1.0;
      case 2: return 1.0 - x;
      case 3: return x / 3.0;
      case 4: return soft_cap(x, 2);
      default: return hard_cap(x, 1.5);
    }
  }

  Shape some_axes(int rank) {
    Shape axes;
    for (int axis = 0; axis < rank; ++axis)
      if (random_.chance(0.5)) axes.push_back(axis);
    if (axes.empty()) axes.push_back(rank - 1);
    return axes;
  }

  Value reduction() {
    const Value x = of_rank_at_least(1);
    const Shape axes = some_axes(x.shape().rank());
    const bool keep = random_.chance(0.6);
    switch (random_.integer(0, 3)) {
      case 0: return reduce_max(x, axes, keep);
      case 1: return reduce_sum(x, axes, keep) * 0.25;
      default: return mean(x, axes, keep);
    }
  }

  Value row_function() {
    const Value x = of_rank_at_least(1);
    switch (random_.integer(0, 4)) {
      case 0: return softmax(x);
      case 1: return logsumexp(x);
      case 2: return rms_norm(x, 1e-2, random_.chance(0.5) ? new_leaf({x.shape().back()}) : Value{});
      case 3: return l2_normalize(x + 0.3, axis_of(x.shape()));
      default: return x - mean(x, {-1});
    }
  }

  Value moved() {
    const Value x = random_.chance(0.85) ? of_rank_at_least(1) : some();
    const Shape& shape = x.shape();
    if (shape.rank() == 0) return reshape(x, {1, 1});
    switch (random_.integer(0, 4)) {
      case 0: return reshaped(x);
      case 1: return transpose(x, axis_of(shape), axis_of(shape));
      case 2: {
        const int axis = axis_of(shape);
        const int64_t start = random_.integer(0, shape[axis] - 1);
        return slice(x, axis, start, random_.integer(1, shape[axis] - start));
      }
      case 3: return roll(x, random_.integer(-2, 3));
      default: return shape.rank() < 5 ? unsqueeze(x, axis_of(shape)) : x;
    }
  }

  Value reshaped(Value x) {
    const Shape& shape = x.shape();
    if (random_.chance(0.4)) return reshape(x, {-1});
    if (random_.chance(0.5)) return reshape(x, {shape[0], -1});
    Shape split;  // one even axis becomes two
    bool done = false;
    for (int64_t n : shape) {
      if (!done && n % 2 == 0 && shape.rank() < 5) {
        split.push_back(2);
        n /= 2;
        done = true;
      }
      split.push_back(n);
    }
    return reshape(x, split);
  }

  Value joined() {
    const Value x = of_rank_at_least(1);
    const int axis = axis_of(x.shape());
    const Value y = random_.chance(0.5) ? tanh(x) : slice(x, axis, 0, random_.integer(1, x.shape()[axis]));
    Values parts{x, cast(y, x.dtype())};
    if (random_.chance(0.4)) parts.push_back(cast(x * 0.5, x.dtype()));
    return concat(parts, axis);
  }

  Value broadcasted() {
    const Value x = some();
    Shape shape = x.shape();
    for (int axis = 0; axis < shape.rank(); ++axis)
      if (shape[axis] == 1 && random_.chance(0.7)) shape[axis] = size();
    if (shape.rank() < 4 && random_.chance(0.5)) {
      Shape longer{size()};
      for (int64_t n : shape) longer.push_back(n);
      shape = longer;
    }
    return shape.elements() <= kMostElements ? broadcast_to(x, shape) : Value{};
  }

  Value product() {
    Value a = of_rank_at_least(2);
    if (a.dtype() == DType::f16) a = cast(a, DType::f32);
    const bool ta = random_.chance(0.3), tb = random_.chance(0.5);
    const int64_t k = a.size(ta ? -2 : -1), n = size();
    Shape shape;
    if (random_.chance(0.4))
      for (int axis = 0; axis < a.shape().rank() - 2; ++axis) shape.push_back(a.shape()[axis]);
    shape.push_back(tb ? n : k);
    shape.push_back(tb ? k : n);
    const Value b = leaf(shape, a.dtype());
    const Value y = matmul(a, b,
                           {.transpose_a = ta,
                            .transpose_b = tb,
                            .dtype = random_.chance(0.5) ? std::optional(DType::f32) : std::nullopt});
    return y * (1 / std::sqrt(static_cast<double>(k)));
  }

  Value looked_up() {
    const Value table = of_rank_at_least(1);
    Shape rows;
    for (int64_t rank = random_.integer(1, 2); rank > 0; --rank) rows.push_back(size());
    if (rows.elements() * table.shape().elements() > kMostElements * 4) return {};
    const Value ids = integers(rows, 0, table.shape()[0] - 1);
    return table.shape().rank() == 2 && random_.chance(0.6) ? embedding(table, ids) : gather(table, ids);
  }

  Value scattered() {
    const Value x = of_rank_at_least(1);
    const int64_t count = random_.integer(1, 6);
    return scatter_add(integers({x.shape()[0]}, 0, count - 1), x, count);
  }

  Value attended() {
    const int64_t batch = random_.integer(1, 2), kv_heads = random_.integer(1, 2),
                  width = 2 * random_.integer(1, 3);
    const int64_t heads = kv_heads * random_.integer(1, 2), t = random_.integer(1, 6),
                  s = t + random_.integer(0, 3);
    const DType dtype = narrow_or_f32();
    const Value q = leaf({batch, t, heads, width}, dtype), k = leaf({batch, s, kv_heads, width}, dtype);
    const Value v = leaf({batch, s, kv_heads, random_.integer(1, 5)}, dtype);
    AttentionOptions options{.scale = 0.6, .causal = random_.chance(0.7), .window = random_.integer(0, 3)};
    if (random_.chance(0.3)) {
      options.cap = 1.2;
      options.cap_type = random_.chance(0.5) ? CapType::soft : CapType::hard;
    }
    if (random_.chance(0.3)) {
      options.q_documents = integers({batch, t}, -1, 1);
      options.k_documents = integers({batch, s}, 0, 1);
    }
    if (random_.chance(0.2)) options.length = integers({}, t, s);
    if (random_.chance(0.2)) {
      options.dropout = 0.3;
      options.dropout_stream = 5;
      options.rng = rng();
    }
    return attention(random_.chance(0.5) ? cast(rms_norm(q, 1e-3), dtype) : q, k, v, options);
  }

  Value entropy() {
    Value hidden = of_rank_at_least(2);
    hidden = reshape(hidden, {-1, hidden.shape().back()});
    if (hidden.dtype() == DType::f16) hidden = cast(hidden, DType::f32);
    const int64_t vocabulary = random_.integer(2, 20);
    const Value weight = leaf({vocabulary, hidden.shape()[1]}, hidden.dtype());
    CrossEntropyOptions options{.logit_scale = 0.5};
    if (random_.chance(0.3)) options.z_loss = 0.1;
    if (random_.chance(0.3)) options.scale = leaf({vocabulary}, DType::f32);
    if (random_.chance(0.3)) options.vocab_size = random_.integer(1, vocabulary);
    if (random_.chance(0.3)) {
      options.cap = 2;
      options.cap_type = random_.chance(0.5) ? CapType::soft : CapType::hard;
    }
    const int64_t real = options.vocab_size > 0 ? options.vocab_size : vocabulary;
    const Value targets = integers({hidden.shape()[0]}, 0, real - 1);
    if (random_.chance(0.5)) {  // some are ignored
      const std::string& name = graph_.node(targets.id).attributes.text("name");
      std::vector<double>& ids = result_.inputs[name].data;
      for (size_t i = 0; i < ids.size(); i += 3) ids[i] = kIgnoreIndex;
    }
    return linear_cross_entropy(hidden, weight, targets, options);
  }

  Value rotated() {
    const int64_t t = random_.integer(1, 5), width = 2 * random_.integer(1, 4);
    const Value x = new_leaf({random_.integer(1, 2), t, random_.integer(1, 3), width});
    return rope(x, leaf({t, width}, DType::f32), leaf({t, width}, DType::f32));
  }

  Value dropped() { return dropout(some_float(), 0.3, rng(), random_.bits()); }

  Value counted() {
    Shape shape = related_shape();
    if (shape.rank() == 0) shape = {size()};
    return iota(graph_, shape, axis_of(shape)) + constant(graph_, 1, DType::i32);
  }

  // ---- what a graph does with its values ----
  void add_output(Value x) { graph_.output("output" + std::to_string(graph_.outputs().size()), x); }

  void add_gradients() {
    Value loss;
    for (int64_t i = random_.integer(1, 3); i > 0; --i) {
      const Value x = cast(some_float(), DType::f32);
      const double count = static_cast<double>(x.shape().elements());
      const Value part = sum(random_.chance(0.5) ? square(tanh(x)) : x * 0.3) * (1 / count);
      loss = loss ? loss + part : part;
    }
    Values wrt;
    for (const Value& x : leaves_of_floats_)
      if (random_.chance(0.6)) wrt.push_back(x);
    if (wrt.empty()) return;
    const Values grads = gradients(loss, wrt);
    add_output(loss);
    for (size_t i = 0; i < grads.size(); ++i) {
      if (random_.chance(0.4)) {  // accumulated, as a training step does
        const std::string name = "grad" + std::to_string(i);
        result_.state[name] = random_tensor(grads[i].shape(), random_.bits());
        const Value sum = state(graph_, name, DType::f32, grads[i].shape());
        assign(sum,
               random_.chance(0.5) ? sum + cast(grads[i], DType::f32) : cast(grads[i], DType::f32) + sum);
      } else {
        add_output(grads[i]);
      }
    }
  }

  void add_assign() {
    const Value x = some_float();
    const std::string name = "assigned" + std::to_string(leaves_++);
    result_.state[name] = random_tensor(x.shape(), random_.bits());
    const Value target = state(graph_, name, x.dtype(), x.shape());
    if (random_.chance(0.3)) {
      assign(target, x);
      return;
    }
    const Value updated = lerp(target, x, constant(graph_, 0.25));
    assign(target, cast(updated, x.dtype()));
    if (random_.chance(0.4)) values_.push_back(target + 1.0);  // somebody reads the old value
  }

  void add_assign_slice() {
    const Value x = of_rank_at_least(2);
    Shape shape = x.shape();
    const int64_t more = random_.integer(0, 3);
    shape[1] += more;
    const std::string name = "cache" + std::to_string(leaves_++);
    result_.state[name] = random_tensor(shape, random_.bits());
    const Value cache = state(graph_, name, x.dtype(), shape);
    values_.push_back(assign_slice(cache, x, integers({}, 0, more)));
  }

  RandomGraph& result_;
  Graph& graph_;
  Random random_;
  Values values_;            // what later ops may use
  Values leaves_of_floats_;  // what gradients are taken with respect to
  int leaves_ = 0;
};

}  // namespace

void fill_randomly(RandomGraph& result, uint64_t seed) {
  Generator generator(result, seed);
  generator.run();
}

}  // namespace nf::test
