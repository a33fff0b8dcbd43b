// What moves and adds whole rows on the CUDA backend, against the reference.
#include <doctest/doctest.h>

#include <array>

#include "nf/executable.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Bindings;
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
