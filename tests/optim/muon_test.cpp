#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "nf/error.h"
#include "nf/ops.h"
#include "nf/optim.h"
#include "tests/support/graphs.h"

using namespace nf;
using namespace nf::test;

namespace {

// Singular values by the one-sided Jacobi method: rotates pairs of rows until all are orthogonal; their
// lengths are the singular values, the min(rows, cols) largest of them.
std::vector<double> singular_values(Tensor matrix) {
  const auto rows = static_cast<size_t>(matrix.shape[0]), cols = static_cast<size_t>(matrix.shape[1]);
  std::vector<double>& a = matrix.data;
  const auto dot = [&](size_t i, size_t j) {
    double result = 0;
    for (size_t c = 0; c < cols; ++c) result += a[i * cols + c] * a[j * cols + c];
    return result;
  };
  for (int sweep = 0; sweep < 30; ++sweep)
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = i + 1; j < rows; ++j) {
        const double skew = dot(i, j);
        if (std::fabs(skew) < 1e-15) continue;
        const double zeta = (dot(j, j) - dot(i, i)) / (2 * skew);
        const double t = std::copysign(1 / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta)), zeta);
        const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
        for (size_t c = 0; c < cols; ++c) {
          const double x = a[i * cols + c], y = a[j * cols + c];
          a[i * cols + c] = cosine * x - sine * y;
          a[j * cols + c] = sine * x + cosine * y;
        }
      }
  std::vector<double> values;
  for (size_t i = 0; i < rows; ++i) values.push_back(std::sqrt(dot(i, i)));
  std::ranges::sort(values, std::greater());
  values.resize(std::min(rows, cols));
  return values;
}

Tensor orthogonalized(const std::shared_ptr<const Device>& device, const Tensor& u,
                      DType products = DType::f32) {
  Graph graph;
  graph.output("o", newton_schulz(input(graph, "u", DType::f32, u.shape), products));
  verify(graph);
  Bindings state;
  return run_on(device, graph, {{"u", u}}, state)[0];
}

Tensor transposed(const Tensor& x) {
  const int64_t rows = x.shape[0], cols = x.shape[1];
  Tensor y{{cols, rows}, std::vector<double>(x.data.size())};
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      y.data[static_cast<size_t>(j * rows + i)] = x.data[static_cast<size_t>(i * cols + j)];
  return y;
}

}  // namespace

TEST_CASE("the singular values of a known matrix") {  // the test's own yardstick
  const Tensor matrix{{3, 2}, {3, 0, 0, 0, 0, -2}};
  const std::vector<double> values = singular_values(matrix);
  CHECK(values.size() == 2);
  CHECK(values[0] == doctest::Approx(3));
  CHECK(values[1] == doctest::Approx(2));
  const std::vector<double> mixed = singular_values({{2, 2}, {3, 0, 4, 5}});
  CHECK(mixed[0] == doctest::Approx(std::sqrt(45.0)));
  CHECK(mixed[1] == doctest::Approx(std::sqrt(5.0)));
}

TEST_CASE("newton_schulz brings the singular values of a Gaussian close to 1") {
  for (const auto& device : {reference_device(), cpu_device(2)})
    for (const Shape& shape : {Shape{16, 48}, Shape{48, 16}, Shape{24, 96}}) {
      CAPTURE(device->name());
      CAPTURE(fmt::format("{}", shape));
      const Tensor u = random_tensor(shape, 11);
      const std::vector<double> before = singular_values(u);
      CHECK(before.front() > 1.5 * before.back());
      const std::vector<double> after = singular_values(orthogonalized(device, u));
      // The extremes of the quintic between its fixed points, and a margin for f32.
      CHECK(after.front() < 1.2025);
      CHECK(after.back() > 0.6815);
    }
}

TEST_CASE("newton_schulz does not care for scale or orientation") {
  const Tensor u = random_tensor({12, 20}, 12);
  Tensor large = u;
  for (double& x : large.data) x *= 1024;
  const auto device = cpu_device(2);
  const Tensor o = orthogonalized(device, u);
  CHECK(relative_error(orthogonalized(device, large), o) < 1e-5);
  CHECK(relative_error(transposed(orthogonalized(device, transposed(u))), o) < 1e-5);
  CHECK(relative_error(o, u) > 0.1);
}

TEST_CASE("newton_schulz of zero is zero and of a vector an error") {
  const Tensor zero{{4, 6}, std::vector<double>(24)};
  CHECK(orthogonalized(cpu_device(1), zero).data == zero.data);
  Graph graph;
  CHECK_THROWS_AS(newton_schulz(input(graph, "u", DType::f32, {8})), Error);
}

TEST_CASE("bf16 products change the orthogonal factor by a few of their roundings") {
  for (const Shape& shape : {Shape{32, 80}, Shape{80, 32}}) {
    const Tensor u = random_tensor(shape, 13);
    const Tensor exact = orthogonalized(cpu_device(2), u);
    const Tensor narrow = orthogonalized(cpu_device(2), u, DType::bf16);
    const double error = relative_error(narrow, exact);
    CHECK(error > 1e-4);  // it is bf16 that ran
    CHECK(error < 0.04);
    const std::vector<double> values = singular_values(narrow);
    CHECK(values.front() < 1.25);
    CHECK(values.back() > 0.63);
  }
  Graph graph;
  CHECK_THROWS_AS(newton_schulz(input(graph, "u", DType::f32, {4, 4}), DType::i32), Error);
}
