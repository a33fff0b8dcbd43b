// Executables: inputs, outputs, shared states and arenas, and errors that name what is wrong.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <limits>

#include "cpu/isa.h"
#include "graph/op_table.h"
#include "nf/executable.h"
#include "nf/ops.h"
#include "tests/support/graphs.h"

using namespace nf;

namespace {

std::shared_ptr<State> fresh_state() { return std::make_shared<State>(cpu_device(1)); }

std::vector<float> output(const Executable& executable, std::string_view name) {
  std::vector<float> values(static_cast<size_t>(executable.output_type(name).shape.elements()));
  executable.get_bytes(name, std::as_writable_bytes(std::span(values)));
  return values;
}

// y = a x + b over states a and b.
std::unique_ptr<Graph> line() {
  auto graph = std::make_unique<Graph>();
  const Value x = input(*graph, "x", DType::f32, {3});
  graph->output("y", state(*graph, "a", DType::f32, {}) * x + state(*graph, "b", DType::f32, {}));
  return graph;
}

const std::vector<float> kThree = {1, 2, 3};

}  // namespace

TEST_CASE("executable: runs on its inputs, which stay from run to run") {
  const auto state = fresh_state();
  const auto step = compile(*line(), state);
  fill_constant(*state, "a", 2);
  fill_constant(*state, "b", 1);
  step->set<float>("x", kThree);
  step->run();
  CHECK(output(*step, "y") == std::vector<float>{3, 5, 7});
  fill_constant(*state, "b", 0);
  step->run();
  CHECK(output(*step, "y") == std::vector<float>{2, 4, 6});
}

TEST_CASE("executable: frozen states give the same bits, and states that the graph writes are not frozen") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(name(dtype));
    Graph graph;
    const Shape shape{70, 64};
    const Value x = cast(input(graph, "x", DType::f32, {2, 64}), dtype);
    const std::array names{"kept", "moved", "followed"};
    Values weights;
    for (const char* name : names) {
      weights.push_back(nf::state(graph, name, dtype, shape));
      graph.output(name, matmul(x, weights.back(), {.transpose_b = true, .dtype = DType::f32}));
    }
    // One loop writes both.
    assign(weights[1], cast(weights[1] + 1.0, dtype));
    assign(weights[2], cast(weights[2] + weights[1], dtype));

    std::vector<float> inputs(128);
    for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = 0.25F * static_cast<float>(i % 9) - 1;
    std::vector<std::vector<float>> results[2];
    for (const bool frozen : {false, true}) {
      const auto state = fresh_state();
      for (const char* name : names) {
        state->ensure(name, {dtype, shape});
        const std::span<std::byte> memory = state->memory(name);
        for (size_t i = 0; i < memory.size(); ++i)  // 0.5 … 0.996 in both dtypes
          memory[i] = std::byte(i % 2 == 1 ? 0x3f : i % 251);
      }
      const auto step = compile(graph, state, {.frozen = frozen});
      step->set<float>("x", inputs);
      // A copy is what the CPU reads: what becomes of the state does not matter.
      if (frozen && cpu::cpu_features().avx2) std::ranges::fill(state->memory("kept"), std::byte{0});
      for (int run = 0; run < 2; ++run) {
        step->run();
        for (const char* name : names) results[frozen].push_back(output(*step, name));
      }
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0][1] != results[0][4]);
    CHECK(results[0][2] != results[0][5]);
  }
}

TEST_CASE("executable: states are made where they are missing, of zeros, and shared by name") {
  const auto state = fresh_state();
  Graph counter;
  const Value n = nf::state(counter, "n", DType::f32, {});
  assign(n, n + 1.0);
  Graph reader;
  reader.output("n", nf::state(reader, "n", DType::f32, {}) * 1.0);
  const auto count = compile(counter, state), read = compile(reader, state);
  read->run();
  CHECK(read->scalar("n") == 0);
  for (int i = 0; i < 3; ++i) count->run();
  read->run();
  CHECK(read->scalar("n") == 3);
}

TEST_CASE("executable: a state of another type is an error") {
  const auto state = fresh_state();
  state->ensure("a", {DType::f32, {7}});
  CHECK_THROWS_WITH_AS(compile(*line(), state), "state: 'a' is f32[7], not f32[]", Error);
}

TEST_CASE("executable: wrong names and sizes are errors that say what was expected") {
  const auto step = compile(*line(), fresh_state(), {.name = "line"});
  CHECK(step->name() == "line");
  CHECK(step->has_input("x"));
  CHECK_FALSE(step->has_input("a"));
  CHECK(step->input_type("x") == TensorType{DType::f32, {3}});
  CHECK(step->output_type("y") == TensorType{DType::f32, {3}});
  const std::vector<float> two = {1, 2};
  CHECK_THROWS_WITH_AS(step->set<float>("x", two), "runtime: input 'x' is f32[3] of 12 bytes, not 8", Error);
  CHECK_THROWS_WITH_AS(step->set<float>("z", two), "runtime: line has no input 'z'", Error);
  CHECK_THROWS_WITH_AS(step->output_type("z"), "runtime: line has no output 'z'", Error);
  std::vector<std::byte> short_buffer(4);
  CHECK_THROWS_WITH_AS(step->get_bytes("y", short_buffer), "runtime: output 'y' has 12 bytes, not 4", Error);
  CHECK_THROWS_AS(step->scalar("y"), Error);
}

TEST_CASE("executable: outputs are dense whatever they are views of") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2, 3});
  graph.output("transposed", transpose(x, 0, 1));
  graph.output("middle", slice(x, 1, 1, 1));
  graph.output("doubled", broadcast_to(slice(x, 0, 1, 1), {2, 3}));
  const auto step = compile(graph, fresh_state());
  step->set<float>("x", std::vector<float>{0, 1, 2, 3, 4, 5});
  step->run();
  CHECK(output(*step, "transposed") == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(output(*step, "middle") == std::vector<float>{1, 4});
  CHECK(output(*step, "doubled") == std::vector<float>{3, 4, 5, 3, 4, 5});
}

TEST_CASE("executable: an output that is an old state shows the old state") {
  for (const auto& device : {cpu_device(1), reference_device()}) {
    CAPTURE(device->name());
    Graph graph;
    const Value s = nf::state(graph, "s", DType::f32, {3}), x = input(graph, "x", DType::f32, {3});
    assign(s, s + x);
    graph.output("before", s);
    test::Bindings state = {{"s", {{3}, {1, 1, 1}}}};
    const auto outputs = test::run_on(device, graph, {{"x", {{3}, {1, 2, 3}}}}, state);
    CHECK(state.at("s").data == std::vector<double>{2, 3, 4});
    CHECK(outputs[0].data == std::vector<double>{1, 1, 1});
  }
}

TEST_CASE("executable: tensors of every dtype are written in their own") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8}) {
    CAPTURE(name(dtype));
    Graph graph;
    graph.output("y", cast(tensor(graph, {1, 2, 250}, {3}, dtype), DType::f32));
    const auto step = compile(graph, fresh_state());
    step->run();
    CHECK(output(*step, "y") == std::vector<float>{1, 2, 250});
  }
}

TEST_CASE("executable: an arena may be shared") {
  const auto state = fresh_state();
  const auto graph = line();
  const Plan planned = plan(*graph, *state->device());
  const Buffer arena = state->device()->allocate(planned.arena_bytes());
  const auto one = compile(*graph, state, {}, arena), two = compile(*graph, state, {}, arena);
  fill_constant(*state, "a", 2);
  for (Executable* step : {one.get(), two.get(), one.get()}) {
    step->set<float>("x", kThree);
    step->run();
    CHECK(output(*step, "y") == std::vector<float>{2, 4, 6});
  }
}

TEST_CASE("executable: finds where a number stops being finite") {
  const auto state = fresh_state();
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2, 2}), w = nf::state(graph, "w", DType::f32, {2, 2});
  const Value h = [&] {
    const Scope scope(graph, "layers.4.mlp");
    return matmul(x, w);
  }();
  graph.output("y", exp(h));
  const auto step = compile(graph, state);
  const std::vector<float> ones(4, 1);
  step->set<float>("x", ones);
  CHECK(step->find_nonfinite() == "");
  fill_constant(*state, "w", 3e38);
  CHECK(step->find_nonfinite() == "matmul in layers.4.mlp");
  fill_constant(*state, "w", std::numeric_limits<double>::quiet_NaN());
  CHECK(step->find_nonfinite() == "state 'w'");
  fill_constant(*state, "w", 1);
  step->set<float>("x", std::vector<float>{1, 1, std::numeric_limits<float>::infinity(), 1});
  CHECK(step->find_nonfinite() == "input 'x'");
}

TEST_CASE("executable: an id that a table does not have is an error with its place") {
  Graph graph;
  const Value table = nf::state(graph, "table", DType::f32, {5, 2});
  graph.output("rows", embedding(table, input(graph, "ids", DType::i32, {3})));
  const auto step = compile(graph, fresh_state());
  step->set<int32_t>("ids", std::vector<int32_t>{0, 4, 5});
  CHECK_THROWS_WITH_AS(step->run(), "engine: gather in : id 5 at position 2 is not in [0, 5)", Error);
}
