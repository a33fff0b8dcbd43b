// Products whose operands are views: the plan knows them as dense, and what it lends must be enough all the
// same.
#include <doctest/doctest.h>

#include "cpu/gemm.h"
#include "nf/executable.h"
#include "nf/ops.h"
#include "tests/support/graphs.h"

namespace nf::test {
namespace {

// The largest error of `product`, of bf16 arrays x and w, against the reference, relative to the largest
// value.
template <typename Build>
double error_of(const Shape& x_shape, const Shape& w_shape, int threads, Build product) {
  Graph graph;
  const Value x = input(graph, "x", DType::bf16, x_shape), w = input(graph, "w", DType::bf16, w_shape);
  graph.output("y", product(x, w));
  const Bindings inputs{{"x", random_tensor(x_shape, 1)}, {"w", random_tensor(w_shape, 2)}};
  Bindings state;
  return relative_error(run_on(cpu_device(threads), graph, inputs, state).front(),
                        run_reference(graph, inputs).front());
}

Value columns_by_rows(Value x, Value w) { return matmul(transpose(x, 0, 1), w); }

}  // namespace

TEST_CASE("matmul on views: transposed operands, and slices whose rows lie a power of two apart") {
  for (const int threads : {1, 2, 4}) {
    CAPTURE(threads);
    CHECK(error_of({2050, 252}, {2050, 256}, threads, columns_by_rows) < 1e-2);
    CHECK(error_of({2050, 3}, {2050, 256}, threads, columns_by_rows) < 1e-2);
    CHECK(error_of({3, 1030}, {512, 1030}, threads,
                   [](Value x, Value w) { return matmul(x, transpose(w, 0, 1)); }) < 1e-2);
    CHECK(error_of({3, 1030}, {1030, 512}, threads, [](Value x, Value w) {
            return matmul(x, transpose(w, 0, 1), {.transpose_b = true});
          }) < 1e-2);
    CHECK(error_of({300, 2048}, {1000, 500}, threads,
                   [](Value x, Value w) { return matmul(slice(x, 1, 0, 1000), w); }) < 1e-2);
  }
}

TEST_CASE("matmul on views: the plan's workspace is enough for the strides that are bound") {
  constexpr int kThreads = 2;
  Graph graph;
  graph.output("y", columns_by_rows(input(graph, "x", DType::bf16, {2050, 252}),
                                    input(graph, "w", DType::bf16, {2050, 256})));
  const auto executable = compile(graph, std::make_shared<State>(cpu_device(kThreads)));
  const cpu::GemmArgs bound{.m = 252,
                            .n = 256,
                            .k = 2050,
                            .a = {nullptr, DType::bf16, 1, 252},
                            .b = {nullptr, DType::bf16, 256, 1},
                            .c_dtype = DType::bf16,
                            .c_row_stride = 256};
  const Plan& plan = executable->plan();
  CHECK(plan.arena_bytes() - plan.activation_bytes >= static_cast<int64_t>(gemm_workspace(bound, kThreads)));
}

}  // namespace nf::test
