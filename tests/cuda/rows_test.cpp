// What moves and adds whole rows on the CUDA backend, against the reference.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "cuda/kernels.h"
#include "nf/executable.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/cuda/recording_gpu.h"
#include "tests/support/graphs.h"
#include "tests/support/loops.h"

using namespace nf;
using test::Bindings;
using test::Layout;
using test::Memory;
using test::Tensor;

namespace {

// Outputs and states on the device equal the reference's, to the last bit unless `tolerance` is given.
// `inputs` and `state` hold numbers that every dtype of the graph knows exactly.
void check(const Graph& graph, const Bindings& inputs, const Bindings& state = {}, double tolerance = 0) {
  Bindings ours = state, theirs = state;
  const std::vector<Tensor> results = test::run_on(cuda::emulated_cuda_device(), graph, inputs, ours);
  Bindings left = state;
  const std::vector<Tensor> expected = reference::evaluate(graph, inputs, left);
  REQUIRE(results.size() == expected.size());
  for (size_t i = 0; i < results.size(); ++i)
    CHECK(test::relative_error(results[i], expected[i]) <= tolerance);
  for (const auto& [name, tensor] : left) CHECK(test::relative_error(ours.at(name), tensor) <= tolerance);
}

Tensor whole(const Shape& shape, uint64_t seed) { return test::random_integers(shape, seed, -64, 64); }

Memory memory_of(const Tensor& tensor, DType dtype, Layout layout = Layout::dense) {
  Memory memory(dtype, tensor.shape, layout);
  for (int64_t i = 0; i < tensor.shape.elements(); ++i) memory.set(i, tensor.data[static_cast<size_t>(i)]);
  return memory;
}

std::vector<double> elements_of(const Memory& memory) {
  std::vector<double> elements;
  for (int64_t i = 0; i < memory.view().shape.elements(); ++i) elements.push_back(memory.get(i));
  return elements;
}

// A node and what it shall make of its inputs' memory.
struct Large {
  Value value;
  Launch (*bind)(const cuda::BoundNode& bound);
  std::vector<Memory> inputs;
  Memory output;
  std::vector<double> expected;
};

// Runs the nodes as if their tensors were large.
void check_as_large(const std::vector<Large>& cases) {
  const auto recording = std::make_shared<cuda::RecordingGpu>();
  cuda::KernelLibrary library(cuda::emulated_gpu(), cases.size()), recorded(recording, cases.size());
  std::vector<Launch> launches;
  for (const Large& c : cases)
    for (cuda::KernelLibrary* each : {&recorded, &library}) {
      const Launch launch = c.bind({.graph = *c.value.graph,
                                    .node = c.value.graph->node(c.value.id.node),
                                    .inputs = test::views(c.inputs),
                                    .outputs = {c.output.view()},
                                    .workspace = nullptr,
                                    .library = *each,
                                    .wide_index = true});
      if (each == &library) launches.push_back(launch);
    }
  recorded.compile();
  CHECK(recording->kernels().size() > 1);
  for (const auto& [name, source] : recording->kernels())
    CHECK(source.text.find(", uint64_t>(params)") != std::string::npos);
  library.compile();
  for (size_t i = 0; i < cases.size(); ++i) {
    launches[i]();
    CAPTURE(i);
    CHECK(elements_of(cases[i].output) == cases[i].expected);
  }
  library.faults()->check();
}

}  // namespace

TEST_CASE("cuda: gather copies rows of any width") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t width : {1, 5, 8, 64}) {
      Graph graph;
      const Value table = input(graph, "table", dtype, {11, width}),
                  ids = input(graph, "ids", DType::i32, {3, 7});
      graph.output("rows", embedding(table, ids));
      check(graph, {{"table", whole({11, width}, 1)}, {"ids", test::random_integers({3, 7}, 2, 0, 10)}});
    }
}

TEST_CASE("cuda: an id that is no row is the CPU's error, and the next run knows nothing of it") {
  Graph graph;
  const Value table = input(graph, "table", DType::f32, {4, 8}), ids = input(graph, "ids", DType::i32, {300});
  graph.output("rows", embedding(table, ids));
  const Tensor rows = whole({4, 8}, 3);
  for (const double bad : {-1.0, 4.0, double{1 << 30}}) {
    Tensor wrong = test::random_integers({300}, 2, 0, 3);
    wrong.data[270] = wrong.data[299] = bad;
    std::vector<std::string> messages;
    for (const auto& device : {cpu_device(1), cuda::emulated_cuda_device()}) {
      const auto executable = compile(graph, std::make_shared<State>(device));
      executable->set_bytes("table", test::encode(rows, DType::f32));
      executable->set_bytes("ids", test::encode(wrong, DType::i32));
      std::vector<std::byte> out(static_cast<size_t>(executable->output_type("rows").bytes()));
      try {
        executable->run();
        executable->get_bytes("rows", out);
      } catch (const Error& error) {
        messages.emplace_back(error.what());
      }
      executable->set_bytes("ids", test::encode(test::random_integers({300}, 2, 0, 3), DType::i32));
      executable->run();
      executable->get_bytes("rows", out);
      device->synchronize();
    }
    REQUIRE(messages.size() == 2);
    CHECK(messages[0] == messages[1]);
    CHECK(messages[0].find("at position 270 is not in [0, 4)") != std::string::npos);
  }
}

TEST_CASE("cuda: rows that share an id are summed in order, however often it occurs") {
  struct Case {
    int64_t count, rows, width, highest;
  };
  for (const auto& [count, rows, width, highest] :
       {Case{1, 1, 1, 0}, Case{63, 9, 3, 8}, Case{64, 5, 8, 4}, Case{700, 1300, 5, 1299}, Case{1000, 3, 4, 0},
        Case{513, 4, 300, 1}, Case{5000, 70000, 2, 69999}})
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool accumulate : {false, true}) {
        CAPTURE(count);
        CAPTURE(accumulate);
        Graph graph;
        const Value table = state(graph, "table", dtype, {rows, width}),
                    ids = input(graph, "ids", DType::i32, {count}),
                    factor = input(graph, "factor", DType::f32, {count, width}),
                    sum = state(graph, "sum", DType::f32, {rows, width});
        const Value loss = reduce_sum(cast(embedding(table, ids), DType::f32) * factor, {0, 1});
        const Value gradient = cast(gradients(loss, std::array{table})[0], DType::f32);
        assign(sum, accumulate ? sum + gradient : gradient);
        check(graph,
              {{"ids", test::random_integers({count}, 5, 0, highest)}, {"factor", whole({count, width}, 6)}},
              {{"table", whole({rows, width}, 7)}, {"sum", whole({rows, width}, 8)}},
              dtype == DType::f32 ? 0 : 4e-3);
      }
}

TEST_CASE("cuda: positions whose id is no row are left out of the sums") {
  for (const int64_t rows : {3, 300}) {
    Graph graph;
    const Value ids = input(graph, "ids", DType::i32, {200}),
                updates = input(graph, "updates", DType::f32, {200, 3});
    graph.output("sums", scatter_add(ids, updates, rows));
    const Tensor where = test::random_integers({200}, 9, -2, rows + 2), what = whole({200, 3}, 10);
    std::vector<double> expected(static_cast<size_t>(rows * 3));
    for (size_t i = 0; i < where.data.size(); ++i)
      for (size_t j = 0; j < 3; ++j)
        if (where.data[i] >= 0 && where.data[i] < static_cast<double>(rows))
          expected[static_cast<size_t>(where.data[i]) * 3 + j] += what.data[i * 3 + j];
    Bindings state;
    CHECK(test::run_on(cuda::emulated_cuda_device(), graph, {{"ids", where}, {"updates", what}}, state)[0]
              .data == expected);
  }
}

TEST_CASE("cuda: concats and copies of windows") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8})
    for (const int axis : {0, 1, 2}) {
      Graph graph;
      const Value a = input(graph, "a", dtype, {3, 8, 6}), b = input(graph, "b", dtype, {3, 8, 6});
      graph.output("joined", concat({slice(a, axis, 1, 2), b, transpose(transpose(a, 0, 1), 0, 1)}, axis));
      graph.output("turned", transpose(concat({transpose(a, 0, 2), transpose(b, 0, 2)}, 1), 0, 2));
      const auto bytes = [](uint64_t seed) { return test::random_integers({3, 8, 6}, seed, 0, 100); };
      check(graph, {{"a", bytes(1)}, {"b", bytes(2)}});
    }
}

TEST_CASE("cuda: states are written, and slices of them from an entry on") {
  for (const int64_t width : {3, 8}) {
    Graph graph;
    const Value cache = state(graph, "cache", DType::bf16, {2, 9, width}),
                copy = state(graph, "copy", DType::f32, {5}),
                x = input(graph, "x", DType::bf16, {2, 3, width}), y = input(graph, "y", DType::f32, {5}),
                start = input(graph, "start", DType::i32, {});
    assign_slice(cache, x, start);
    assign(copy, y);
    for (const double at : {0.0, 4.0, 6.0})
      check(graph, {{"x", whole({2, 3, width}, 1)}, {"y", whole({5}, 2)}, {"start", {{}, {at}}}},
            {{"cache", whole({2, 9, width}, 3)}, {"copy", whole({5}, 4)}});

    // Out of range: nothing is written, and reading anything is the CPU's error.
    const auto memory = std::make_shared<State>(cuda::emulated_cuda_device());
    const auto executable = compile(graph, memory);
    const auto bytes_of = [&](const std::string& name) {
      std::vector<std::byte> bytes(static_cast<size_t>(memory->type(name).bytes()));
      memory->read(name, bytes);
      return bytes;
    };
    memory->write("cache", test::encode(whole({2, 9, width}, 3), DType::bf16));
    for (const int32_t at : {-1, 7}) {
      executable->set("start", std::span(&at, 1));
      executable->run();
      CHECK_THROWS_WITH_AS(bytes_of("copy"),
                           doctest::Contains(fmt::format("3 entries from {} on do not fit in 9", at).c_str()),
                           Error);
      CHECK(bytes_of("cache") == test::encode(whole({2, 9, width}, 3), DType::bf16));
    }
  }
}

TEST_CASE("emulator: positions of 64 bits, which only large tensors need, lead to the same places") {
  Graph graph;
  const Value start = input(graph, "start", DType::i32, {}), ids = input(graph, "ids", DType::i32, {70});
  const auto bytes = [](const Shape& shape, uint64_t seed) {
    return test::random_integers(shape, seed, 0, 100);
  };
  // Appends the rows `first` to `last` of so many elements.
  const auto append = [](std::vector<double>& to, const Tensor& from, int64_t first, int64_t last,
                         int64_t width) {
    to.insert(to.end(), from.data.begin() + first * width, from.data.begin() + last * width);
  };
  const Shape shape{6, 10, 12}, part{6, 3, 12};
  const Tensor a = bytes(shape, 1), b = bytes(shape, 2), x = bytes(part, 3), table = bytes({11, 64}, 4),
               rows = test::random_integers({70}, 5, 0, 10);
  std::vector<Large> cases;
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    const auto named = [&](const char* name) { return name + std::string(nf::name(dtype)); };
    const Value joined =
        concat({input(graph, named("a"), dtype, shape), input(graph, named("b"), dtype, shape)}, 1);
    for (const Layout layout : {Layout::dense, Layout::transposed, Layout::sliced, Layout::reversed}) {
      Large& c = cases.emplace_back(Large{joined, cuda::bind_concat, {}, Memory(dtype, {6, 20, 12}), {}});
      c.inputs.push_back(memory_of(a, dtype, layout));
      c.inputs.push_back(memory_of(b, dtype));
      for (int64_t i = 0; i < 6; ++i)
        for (const Tensor* from : {&a, &b}) append(c.expected, *from, i, i + 1, 120);
    }
    const Value gathered = embedding(input(graph, named("table"), dtype, {11, 64}), ids);
    Large& gather = cases.emplace_back(Large{gathered, cuda::bind_gather, {}, Memory(dtype, {70, 64}), {}});
    gather.inputs.push_back(memory_of(table, dtype));
    gather.inputs.push_back(memory_of(rows, DType::i32));
    for (const double id : rows.data)
      append(gather.expected, table, static_cast<int64_t>(id), static_cast<int64_t>(id) + 1, 64);

    const Value written = assign_slice(state(graph, named("state"), dtype, shape),
                                       input(graph, named("x"), dtype, part), start);
    Large& write = cases.emplace_back(Large{written, cuda::bind_assign_slice, {}, memory_of(a, dtype), {}});
    write.inputs.push_back(memory_of(a, dtype));
    write.inputs.push_back(memory_of(x, dtype));
    write.inputs.push_back(memory_of({{}, {4}}, DType::i32));
    for (int64_t i = 0; i < 6; ++i) {
      append(write.expected, a, i * 10, i * 10 + 4, 12);
      append(write.expected, x, i * 3, i * 3 + 3, 12);
      append(write.expected, a, i * 10 + 7, i * 10 + 10, 12);
    }
  }
  check_as_large(cases);
}
