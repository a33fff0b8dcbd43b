// What adds elements up: reductions and the matrix product.
#include <array>
#include <cmath>
#include <limits>

#include "reference/primitives.h"

namespace nf::reference {
namespace {

// The output is walked along with the input, standing still (stride 0) on the reduced axes.
template <typename Combine>
Tensor reduce(const Call& call, double initial, Combine combine) {
  const Tensor& x = call.input(0);
  Tensor y = zeros(call.shape());
  y.data.assign(y.data.size(), initial);
  Strides strides = dense_strides(call.shape());
  for (int64_t axis : call.node.attributes.list("axes")) strides[static_cast<int>(axis)] = 0;
  size_t i = 0;
  walk(x.shape, strides, 0, [&](int64_t offset) {
    double& target = y.data[static_cast<size_t>(offset)];
    target = combine(target, x.data[i++]);
  });
  return y;
}

Tensor reduce_sum(const Call& call) {
  return reduce(call, 0, [](double sum, double x) { return sum + x; });
}

Tensor reduce_max(const Call& call) {
  return reduce(call, -std::numeric_limits<double>::infinity(),
                [](double most, double x) { return x > most || std::isnan(x) ? x : most; });
}

// [..., m, k] x [..., k, n] (+ accumulator); b is one matrix when it has no leading axes.
Tensor matmul(const Call& call) {
  const Tensor& a = call.input(0);
  const Tensor& b = call.input(1);
  const bool transpose_a = call.node.attributes.integer("transpose_a") != 0;
  const bool transpose_b = call.node.attributes.integer("transpose_b") != 0;
  Tensor y = call.inputs.size() > 2 ? Tensor{call.shape(), call.input(2).data} : zeros(call.shape());
  const int64_t n = call.shape().back();
  const int64_t m = call.shape()[call.shape().rank() - 2];
  const int64_t k = a.shape[a.shape.rank() - (transpose_a ? 2 : 1)];
  const int64_t a_row = transpose_a ? 1 : k, a_inner = transpose_a ? m : 1;
  const int64_t b_inner = transpose_b ? 1 : n, b_column = transpose_b ? k : 1;
  const int64_t batches = m * n == 0 ? 0 : call.shape().elements() / (m * n);
  for (int64_t batch = 0; batch < batches; ++batch) {
    const double* a_matrix = a.data.data() + batch * m * k;
    const double* b_matrix = b.data.data() + (b.shape.rank() > 2 ? batch * k * n : 0);
    double* y_matrix = y.data.data() + batch * m * n;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t p = 0; p < k; ++p)
          y_matrix[i * n + j] += a_matrix[i * a_row + p * a_inner] * b_matrix[p * b_inner + j * b_column];
  }
  return y;
}

constexpr std::array kRows = {
    KernelRow{Op::reduce_sum, reduce_sum},
    KernelRow{Op::reduce_max, reduce_max},
    KernelRow{Op::matmul, matmul},
};

}  // namespace

std::span<const KernelRow> sum_kernels() { return kRows; }

}  // namespace nf::reference
