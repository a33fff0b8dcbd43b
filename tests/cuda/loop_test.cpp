// Fused loops on the GPU, by the emulator: bodies of all kinds against the interpreter, in every layout, with
// memory that outputs share with inputs. All kernels of a test are compiled at once.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "cuda/kernels.h"
#include "cuda/loop_plan.h"
#include "graph/loop.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/cuda/recording_gpu.h"
#include "tests/support/graphs.h"
#include "tests/support/loops.h"

using namespace nf;
using test::Layout;
using test::LoopBody;
using test::Memory;
using test::Tensor;

namespace {

// A body with its tensors, to be bound, compiled with others, and run.
class Case {
 public:
  Case(const Shape& space, uint64_t seed, const std::function<void(LoopBody&)>& build,
       bool in_any_layout = false, Layout layout = Layout::dense)
      : body_(space), seed_(seed) {
    build(body_);
    inputs_ = body_.inputs(seed, in_any_layout);
    outputs_ = test::make_outputs(body_.graph, layout);
  }

  // Makes an output share the memory of an input.
  void share(size_t output, size_t input) { shared_.push_back({output, input}); }

  void set(size_t input, int64_t element, double value) { inputs_[input].set(element, value); }

  // Both as if the tensors were large: threads have several vectors, or positions have 64 bits.
  void take_several_vectors() { many_vectors_ = 1; }
  void widen_index() { wide_index_ = true; }

  cuda::LoopPlan plan() const {
    return cuda::plan_loop(body_.graph, body_.space, test::views(inputs_), test::views(outputs_),
                           many_vectors_);
  }

  void bind(cuda::KernelLibrary& library) {
    Node node;
    node.op = Op::loop;
    for (const Memory& input : inputs_)
      node.inputs.push_back(
          nf::input(graph_, "x" + std::to_string(node.inputs.size()), input.view().dtype, input.view().shape)
              .id);
    for (const Graph::Output& output : body_.graph.outputs())
      node.outputs.push_back(body_.graph.type(output.value));
    node.attributes.set("body", Body(Body(), &body_.graph));  // which outlives the node
    node.attributes.set("space", body_.space);
    verify_loop(graph_, node);
    workspace_.resize(static_cast<size_t>(cuda::loop_workspace(graph_, node)), std::byte{0xFF});
    cuda::BoundNode bound{graph_,  node,       test::views(inputs_), test::views(outputs_), workspace_.data(),
                          library, wide_index_};
    for (const auto& [output, input] : shared_) bound.outputs[output] = inputs_[input].view();
    launch_ = cuda::bind_loop(bound, many_vectors_);
  }

  void check(double tolerance) {
    INFO("space ", fmt::format("{}", body_.space), ", seed ", seed_, "\n", to_text(body_.graph));
    const std::vector<Tensor> expected = test::interpret_loop(body_.graph, body_.space, inputs_);
    launch_();
    for (size_t o = 0; o < outputs_.size(); ++o) {
      const Memory* memory = &outputs_[o];
      for (const auto& [output, input] : shared_)
        if (output == o) memory = &inputs_[input];
      Tensor got{expected[o].shape, {}};
      for (int64_t e = 0; e < got.shape.elements(); ++e) got.data.push_back(memory->get(e));
      Tensor rounded = expected[o];
      for (double& x : rounded.data) x = test::rounded(x, memory->view().dtype);
      CAPTURE(o);
      // Where all terms cancel, only the absolute error says something.
      CHECK(std::min(test::relative_error(got, rounded), test::largest_error(got, rounded)) <
            (rounds() ? 1e-2 : tolerance));
    }
  }

 private:
  // The interpreter never rounds.
  bool rounds() const {
    for (int32_t i = 0; i < body_.graph.size(); ++i)
      if (body_.graph.node(i).op == Op::cast && size_of(body_.graph.node(i).outputs[0].dtype) == 2)
        return true;
    return false;
  }

  LoopBody body_;
  uint64_t seed_;
  Graph graph_;
  std::vector<Memory> inputs_, outputs_;
  std::vector<std::pair<size_t, size_t>> shared_;
  int64_t many_vectors_ = cuda::kManyVectors;
  bool wide_index_ = false;
  std::vector<std::byte> workspace_;
  Launch launch_;
};

using Cases = std::vector<std::unique_ptr<Case>>;

void compile(const Cases& cases) {
  cuda::KernelLibrary library(cuda::emulated_gpu());
  for (const auto& c : cases) c->bind(library);
  library.compile();
}

void check_all(const Cases& cases, double tolerance = 2e-6) {
  compile(cases);
  for (const auto& c : cases) c->check(tolerance);
}

// A map of one row by the dice. Its first output can have the memory of its first input.
void fill_map(LoopBody& body, uint64_t seed) {
  test::Random random(seed);
  const auto one_of = [&]<typename T>(const std::vector<T>& from) {
    return from[static_cast<size_t>(random.integer(0, static_cast<int64_t>(from.size()) - 1))];
  };
  const auto as_float = [](const Value& x) { return cast(x, DType::f32); };
  const Shape one = Shape::filled(body.space.rank(), 1);
  const DType first = one_of(std::vector{DType::bf16, DType::f32});
  Values values{as_float(body.full(first))};
  if (random.chance(0.6))
    values.push_back(
        as_float(body.full(one_of(std::vector{DType::bf16, DType::f32, DType::f16, DType::u8}))));
  if (random.chance(0.4)) values.push_back(as_float(broadcast_to(body.leaf(one, DType::bf16), body.space)));
  if (random.chance(0.3))
    values.push_back(as_float(iota(body.graph, body.space, body.space.rank() - 1)) * 1e-3);
  if (random.chance(0.2)) values.push_back(as_float(roll(body.full(DType::bf16), body.space.back() / 3)));
  if (random.chance(0.3))
    values.push_back(where(body.full(DType::boolean), values[0], constant_like(values[0], -1)));
  for (int step = 0; step < 4; ++step) {
    const Value x = values.back(), y = one_of(values);
    values.push_back(
        one_of(Values{x * 0.5 + y, maximum(x, -y), tanh(x) - y, where(less(x, y), x, y * 0.25)}));
  }
  body.output(cast(values.back(), first));
  if (random.chance(0.5)) body.output(cast(values[values.size() - 2], DType::bf16));
  if (random.chance(0.3)) body.output(less(values.back(), values.front()));
}

}  // namespace

TEST_CASE("cuda loop: the bodies of models") {
  Cases cases;
  for (const test::BuildBody build : test::model_bodies())
    for (const Shape& space : {Shape{1}, Shape{257}, Shape{5000}, Shape{6, 1}, Shape{70, 5}, Shape{33, 64},
                               Shape{5, 129}, Shape{33, 384}, Shape{3, 1000}, Shape{40, 512}, Shape{2, 5000},
                               Shape{2, 20000}, Shape{3, 4, 5, 64}, Shape{2, 7, 1, 32}})
      cases.push_back(std::make_unique<Case>(space, 11, build));
  check_all(cases);
}

TEST_CASE("cuda loop: threads with several vectors, where little is read of each") {
  Cases cases;
  const auto add = [&](const Shape& space, const std::function<void(LoopBody&)>& build) -> Case& {
    return *cases.emplace_back(std::make_unique<Case>(space, 3, build));
  };
  constexpr int64_t kMany = 4 * cuda::kManyVectors;  // elements
  const auto narrow = [](LoopBody& b) { b.output(cast(b.full(), DType::bf16)); };
  CHECK(Case({kMany - 4}, 3, narrow).plan().per_lane == 1);
  const Case& two = add({kMany}, narrow);
  const Case& four =
      add({kMany + 1026}, [](LoopBody& b) { b.output(cast(b.full(DType::bf16), DType::f32)); });
  Case& shared = add({1 << 10, (1 << 10) + 1}, [](LoopBody& b) {
    const Value x = b.full();
    b.output(x * 0.5);
    b.output(less(x, x * 0.25));
  });
  shared.share(0, 0);
  CHECK(two.plan().per_lane == 2);
  CHECK(four.plan().per_lane == 4);
  CHECK(shared.plan().per_lane == 2);
  check_all(cases);
}

TEST_CASE("cuda loop: random maps whose threads have several vectors, where blocks end and beside it") {
  Cases cases;
  std::set<int> vectors;
  const auto add = [&](const Shape& space, uint64_t seed) -> const Case& {
    const bool is_dense = seed % 3 > 0;
    cases.push_back(std::make_unique<Case>(
        space, seed, [seed](LoopBody& body) { fill_map(body, seed); }, !is_dense,
        is_dense ? Layout::dense : static_cast<Layout>(seed % 4)));
    cases.back()->take_several_vectors();
    if (is_dense && seed % 2 == 0) cases.back()->share(0, 0);
    return *cases.back();
  };
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const cuda::LoopPlan plan = add({5}, seed).plan();
    vectors.insert(plan.per_lane);
    const int64_t block = int64_t{plan.lanes} * plan.per_lane * plan.vector;
    for (const int64_t size : {block - 1, block, block + 1, 2 * block + 77}) add({size}, seed);
    add({3, block}, seed);
  }
  CHECK(vectors.size() > 2);
  check_all(cases);
}

TEST_CASE("cuda loop: positions of 64 bits, which only large tensors need") {
  Cases cases;
  uint64_t seed = 100;
  for (const Shape& space : {Shape{5000}, Shape{23, 33}, Shape{5, 4, 33}, Shape{3, 5000}, Shape{1, 20000}})
    for (int repeat = 0; repeat < 3; ++repeat, ++seed) {
      cases.push_back(std::make_unique<Case>(
          space, seed, [seed](LoopBody& body) { test::fill_randomly(body, seed); }, true,
          static_cast<Layout>(seed % 4)));
      cases.back()->widen_index();
    }
  const auto recording = std::make_shared<cuda::RecordingGpu>();
  cuda::KernelLibrary recorded(recording);
  for (const auto& c : cases) c->bind(recorded);
  recorded.compile();
  size_t wide = 0;
  for (const auto& [name, source] : recording->kernels())
    wide += source.text.find("using Index = int64_t;") != std::string::npos ? 1 : 0;
  CHECK(wide > 5);
  check_all(cases, 1e-5);
}

TEST_CASE("cuda loop: random bodies in every layout") {
  Cases cases;
  uint64_t seed = 1;
  for (const Shape& space : test::loop_spaces())
    for (int repeat = 0; repeat < (space.elements() > 4000 ? 3 : 8); ++repeat, ++seed)
      cases.push_back(std::make_unique<Case>(
          space, seed, [seed](LoopBody& body) { test::fill_randomly(body, seed); }, true,
          static_cast<Layout>(seed % 4)));
  check_all(cases, 1e-5);
}

TEST_CASE("cuda loop: every op, on floats and on integers") {
  Cases cases;
  for (const Shape& space : {Shape{5, 64}, Shape{3, 7}})
    cases.push_back(std::make_unique<Case>(space, 3, [](LoopBody& b) {
      const Value x = b.full(), y = b.full(), z = abs(y) + 0.5;
      for (const Value value : {
               -x,
               exp(x),
               log(z),
               sqrt(z),
               rsqrt(z),
               tanh(x),
               sigmoid(x),
               erf(x),
               abs(x),
               sin(x),
               cos(x),
               x + y,
               x - y,
               x * y,
               x / z,
               maximum(x, y),
               minimum(x, y),
               where(less(x, y), x, y),
               cast(equal(x, x), DType::f32),
               cast(less_equal(x, y), DType::f32),
           })
        b.output(value);
      const Value i = b.full(DType::i32), j = b.full(DType::i32), n = b.full(DType::u8),
                  t = b.full(DType::boolean);
      for (const Value value : {-i, abs(i - j), i + j, i - j, i * j, i / (j + 1), maximum(i, j),
                                minimum(i, j), where(less(i, j), i, -j), cast(x * 3.0, DType::i32),
                                cast(n, DType::i32), cast(t, DType::i32), cast(i, DType::u8)})
        b.output(value);
      for (const Value value : {equal(i, j), less(i, j), less_equal(i, j), cast(i, DType::boolean), t})
        b.output(value);
      b.output(cast(i, DType::f32) + cast(n, DType::f32) + cast(t, DType::f32));
      b.output(reduce_sum(i, {1}));
      b.output(reduce_max(i - 5, {1}));
      b.output(reduce_sum(i, {0}));
      b.output(reduce_max(x, {0}));
    }));
  check_all(cases);
}

TEST_CASE("cuda loop: column reductions of all kinds") {
  Cases cases;
  for (const Shape& space :
       {Shape{300, 64}, Shape{7, 5, 129}, Shape{3, 2000}, Shape{6, 40, 33}, Shape{2, 3, 70, 8}, Shape{40, 1},
        Shape{40, 3, 1}, Shape{1, 50}, Shape{1, 4, 30}, Shape{2, 20000}})
    for (const bool with_rows : {false, true})
      cases.push_back(std::make_unique<Case>(space, 9, [&](LoopBody& b) {
        Value x = b.full(DType::bf16);
        x = cast(x, DType::f32) * b.per_column() + b.full();
        if (with_rows) x = softmax(x);
        b.output(x);
        for (int axes = 1; axes < space.rank(); ++axes) {
          Shape reduced;
          for (int axis = 0; axis < axes; ++axis) reduced.push_back(axis);
          b.output(reduce_sum(x, reduced));
          b.output(reduce_max(x * 2.0, reduced));
          b.output(reduce_sum(b.full(DType::i32), reduced));
        }
        b.output(reduce_sum(x, {0}));  // once more
      }));
  check_all(cases);
}

TEST_CASE("cuda loop: a NaN wins, and infinities pass") {
  Cases cases;
  cases.push_back(std::make_unique<Case>(Shape{2, 40}, 1, [](LoopBody& b) {
    const Value x = b.full(), y = b.full();
    for (const Value value : {maximum(x, y), minimum(x, y), reduce_max(x, {1}), reduce_max(x, {0}),
                              reduce_sum(x, {1}), exp(x), sigmoid(x), tanh(x)})
      b.output(value);
  }));
  cases[0]->set(0, 3, std::nan(""));
  cases[0]->set(1, 5, std::nan(""));
  cases[0]->set(0, 45, HUGE_VAL);
  cases[0]->set(0, 60, -HUGE_VAL);
  cases[0]->set(1, 45, -HUGE_VAL);
  check_all(cases);
}

TEST_CASE("cuda loop: outputs may share the memory of inputs") {
  Cases cases;
  const auto add = [&](const Shape& space, const std::vector<std::pair<size_t, size_t>>& shared,
                       const std::function<void(LoopBody&)>& build) {
    cases.push_back(std::make_unique<Case>(space, 5, build));
    for (const auto& [output, input] : shared) cases.back()->share(output, input);
  };
  for (const Shape& space : {Shape{17, 33}, Shape{300, 64}, Shape{3, 5000}, Shape{1, 20000}, Shape{2, 20000},
                             Shape{10001}, Shape{1, 40}, Shape{2, 1000}}) {
    add(space, {{0, 0}, {1, 2}}, [](LoopBody& b) {
      const Value p = b.full(), g = b.full(), m = b.full();
      const Value new_m = m * 0.9 + g * 0.1;
      b.output(p - new_m / (abs(new_m) + 1e-8) * 0.01);
      b.output(new_m);
    });
    add(space, {{0, 0}}, [](LoopBody& b) { b.output(softmax(b.full())); });
    add(space, {{0, 0}, {1, 1}}, [](LoopBody& b) {
      const Value x = b.full();
      b.output(x + rms_norm(x, 1e-6));
      b.output(rms_norm(x, 1e-6) * b.full());
    });
    add(space, {{0, 0}},
        [](LoopBody& b) { b.output(cast(rms_norm(b.full(DType::bf16), 1e-6), DType::bf16)); });
    add(space, {{0, 0}, {1, 1}}, [](LoopBody& b) {
      const Value x = b.full(), y = b.full();
      b.output(y);
      b.output(x);
      b.output(x + y);
    });
    add(space, {{0, 0}, {1, 1}}, [](LoopBody& b) {
      const Value scale = b.per_row(), y = b.full();
      const Value sum = reduce_sum(y * scale, {-1});
      b.output(sum + scale);
      b.output(y * scale - sum);
    });
    add(space, {{1, 0}}, [](LoopBody& b) {
      const Value factor = b.per_row();
      b.output(b.full() * factor);
      b.output(factor * 0.5);
    });
  }
  check_all(cases);
}
