// Matrix products of the CUDA backend against the reference: what the GPU's library takes, and what the plain
// kernel does.
#include <doctest/doctest.h>

#include "cuda/kernels.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Bindings;
using test::Tensor;

namespace {

// Against the reference on operands rounded to their dtypes; the result is f32.
void check(DType dtype, const Shape& a_shape, const Shape& b_shape, MatmulOptions options) {
  options.dtype = DType::f32;
  Graph graph;
  const Value a = input(graph, "a", dtype, a_shape);
  const Value b = input(graph, "b", dtype, b_shape);
  graph.output("c", matmul(a, b, options));
  Bindings inputs{{"a", test::random_tensor(a_shape, 1)}, {"b", test::random_tensor(b_shape, 2)}}, state;
  for (auto& [name, tensor] : inputs)
    for (double& x : tensor.data) x = test::rounded(x, dtype);
  const Tensor expected = test::run_reference(graph, inputs)[0];
  const Tensor result = test::run_on(cuda::emulated_cuda_device(), graph, inputs, state)[0];
  CHECK(test::relative_error(result, expected) < 1e-6);
}

}  // namespace

TEST_CASE("cuda: products in all layouts and dtypes") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        const Shape a = ta ? Shape{2, 7, 5} : Shape{2, 5, 7}, b = tb ? Shape{2, 19, 7} : Shape{2, 7, 19};
        check(dtype, a, b, {.transpose_a = ta, .transpose_b = tb});
      }
}

TEST_CASE("cuda: a batch that shares b") { check(DType::f32, {2, 3, 4, 8}, {5, 8}, {.transpose_b = true}); }

// The plain kernel, called as the backend calls it for operands that the GPU's library does not take.
TEST_CASE("emulator: products of mixed dtypes and any strides") {
  const auto gpu = cuda::emulated_gpu();
  cuda::KernelLibrary library(gpu);
  const int64_t m = 37, n = 21, k = 50;
  std::vector<bf16> as(static_cast<size_t>(2 * m * k));
  std::vector<float> bs(static_cast<size_t>(k * n)), cs(static_cast<size_t>(m * n), 1.0F);
  test::Random random(3);
  for (bf16& x : as) x = to_bf16(static_cast<float>(random.normal()));
  for (float& x : bs) x = static_cast<float>(random.normal());
  const Product product{.m = m,
                        .n = n,
                        .k = k,
                        .a = {DType::bf16, 2, 2 * m},
                        .b = {DType::f32, n, 1},
                        .c = {DType::f32, n, 1},
                        .accumulate = true};
  REQUIRE_FALSE(cuda::Gpu::multiplies(product));
  const Launch launch = cuda::plain_product(library, product, as.data(), bs.data(), cs.data());
  library.compile();
  launch();
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double expected = 1;
      for (int64_t x = 0; x < k; ++x)
        expected += static_cast<double>(to_float(as[static_cast<size_t>(2 * (x * m + i))])) *
                    static_cast<double>(bs[static_cast<size_t>(x * n + j)]);
      CHECK(cs[static_cast<size_t>(i * n + j)] == doctest::Approx(expected).epsilon(1e-5));
    }
}
