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
#include "tests/support/loops.h"

using namespace nf;
using test::Layout;
using test::LoopBody;
using test::make_outputs;
using test::Memory;
using test::Random;
using test::views;

namespace {

// What runs a loop: the interpreter, or machine code where this processor has it.
enum class By { interpreter, code };

void run(const Graph& body, const Shape& space, const std::vector<TensorView>& inputs,
         const std::vector<TensorView>& outputs, int threads = 1, By by = By::code) {
  cpu::LoopCodes codes;
  const cpu::LoopKernel kernel(body, space, inputs, outputs, by == By::code ? &codes : nullptr);
  std::vector<std::byte> workspace(cpu::LoopKernel::workspace(body, space, threads));
  kernel.run(workspace.data(), threads);
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
      operands.push_back(test::loop_leaf(single, static_cast<int64_t>(operands.size()), t.dtype, t.shape));
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

}  // namespace

TEST_CASE("loop: random bodies give the bits of their nodes run one by one") {
  uint64_t seed = 1;
  for (const Shape& space : test::loop_spaces())
    for (int repeat = 0; repeat < (space.elements() > 4000 ? 4 : 12); ++repeat, ++seed) {
      CAPTURE(fmt::format("{}", space));
      CAPTURE(seed);
      LoopBody body(space);
      test::fill_randomly(body, seed);
      verify(body.graph);
      const std::vector<Memory> inputs = body.inputs(seed, true);
      const std::vector<Memory> expected = run_unfused(body.graph, space, inputs);
      for (const By by : {By::interpreter, By::code}) {
        CAPTURE(by == By::code);
        const std::vector<Memory> got =
            run(body.graph, space, inputs, 1 + static_cast<int>(seed % 3), static_cast<Layout>(seed % 4), by);
        for (size_t o = 0; o < got.size(); ++o) {
          CAPTURE(body.graph.outputs()[o].name);
          REQUIRE(got[o].same(expected[o]));
        }
      }
    }
}

TEST_CASE("loop: any number of threads gives the same bits") {
  for (const Shape& space : {Shape{3000, 48}, Shape{7, 20000}, Shape{200000}, Shape{6, 50, 4, 64}})
    for (uint64_t seed = 100; seed < 106; ++seed) {
      LoopBody body(space);
      test::fill_randomly(body, seed);
      const std::vector<Memory> inputs = body.inputs(seed, true);
      const std::vector<Memory> one = run(body.graph, space, inputs, 1);
      for (const int threads : {2, 3}) {
        const std::vector<Memory> several = run(body.graph, space, inputs, threads);
        for (size_t o = 0; o < one.size(); ++o) REQUIRE(several[o].same(one[o]));
      }
    }
}

namespace {

// Makes chosen outputs share the memory of chosen inputs, and compares with outputs of their own.
void check_shared(const LoopBody& body, const std::vector<std::pair<size_t, size_t>>& output_on_input) {
  CAPTURE(fmt::format("{}", body.space));
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
  for (const test::BuildBody build : test::model_bodies())
    for (const Shape& space : {Shape{1}, Shape{257}, Shape{5000}, Shape{6, 1}, Shape{5, 31}, Shape{33, 256},
                               Shape{2, 5000}, Shape{2, 20000}, Shape{3, 4, 5, 64}, Shape{2, 7, 1, 32}}) {
      LoopBody body(space);
      build(body);
      const std::vector<Memory> inputs = body.inputs(11);
      const std::vector<Memory> got = run(body.graph, space, inputs, 2);
      const std::vector<reference::Tensor> expected = test::interpret_loop(body.graph, space, inputs);
      for (size_t o = 0; o < got.size(); ++o) {
        reference::Tensor tensor{expected[o].shape, {}};
        for (int64_t e = 0; e < tensor.shape.elements(); ++e) tensor.data.push_back(got[o].get(e));
        CAPTURE(fmt::format("{}", space));

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
    test::rms_norm_with_gain(body);
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
  test::softmax_loop(body);
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
  test::softmax_loop(body);
  const std::vector<Memory> inputs = body.inputs(1), outputs = make_outputs(body.graph);
  const std::string text = cpu::LoopKernel(body.graph, body.space, views(inputs), views(outputs)).describe();
  CHECK(text.find("exp_f") != std::string::npos);
  CHECK(text.find("per piece of a row") != std::string::npos);
}

TEST_CASE("loop: what does not fit is refused") {
  LoopBody body({4, 8});
  test::swiglu_loop(body);
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
