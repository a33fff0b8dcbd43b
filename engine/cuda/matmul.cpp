// Matrix products: the GPU's library where it takes the operands, else a plain kernel.
#include "cuda/kernels.h"
#include "cuda/kernels/matmul_params.h"
#include "cuda/sources.h"

namespace nf::cuda {
namespace {

constexpr int64_t kTile = 16;  // of c per block, one thread an element

Operand operand(const void* data, const MatrixLayout& layout) {
  return {data, layout.row_stride, layout.col_stride, layout.batch_stride};
}

}  // namespace

Launch plain_product(KernelLibrary& library, const Product& p, const void* a, const void* b, void* c) {
  const auto threads = static_cast<uint32_t>(kTile * kTile);
  const std::string function =
      fmt::format("matmul<{}, {}, {}>", type_name(p.a.dtype), type_name(p.b.dtype), type_name(p.c.dtype));
  const MatmulParams params{
      operand(a, p.a), operand(b, p.b), c, p.c.row_stride, p.c.batch_stride, p.m, p.n, p.k, p.accumulate};
  require(p.batch <= 65535, "cuda: a matmul with a batch of {}", p.batch);
  const int64_t tiles = (p.m + kTile - 1) / kTile * ((p.n + kTile - 1) / kTile);
  const LaunchShape shape{
      .grid_x = blocks(tiles, 1), .grid_z = static_cast<uint32_t>(p.batch), .threads = threads};
  return library.launch(instantiate("matmul.cuh", "MatmulParams", function, threads), shape, params);
}

bool Gpu::multiplies(const Product& p) {
  // Rows, or columns, are runs of adjacent elements that do not overlap.
  const auto is_dense = [](const MatrixLayout& m, int64_t rows, int64_t columns) {
    const bool by_rows = (m.col_stride == 1 || columns == 1) && (m.row_stride >= columns || rows == 1);
    const bool by_columns = (m.row_stride == 1 || rows == 1) && (m.col_stride >= rows || columns == 1);
    return by_rows || by_columns;
  };
  const bool is_wide = p.a.dtype == DType::f32 && p.c.dtype == DType::f32,
             is_narrow = p.a.dtype == DType::bf16 && (p.c.dtype == DType::f32 || p.c.dtype == DType::bf16);
  return p.a.dtype == p.b.dtype && (is_wide || is_narrow) && is_dense(p.a, p.m, p.k) &&
         is_dense(p.b, p.k, p.n);
}

int64_t matmul_workspace(const Graph& graph, const Node& node) {
  const Product product = product_of(node, dense_view(graph.type(node.inputs[0])),
                                     dense_view(graph.type(node.inputs[1])), dense_view(node.outputs[0]));
  return product.a.dtype == product.b.dtype ? Gpu::kProductWorkspace : 0;
}

Launch bind_matmul(const BoundNode& bound) {
  const Product product = product_of(bound.node, bound.inputs[0], bound.inputs[1], bound.outputs[0]);
  require(!product.accumulate || bound.inputs[2].data == bound.outputs[0].data,
          "cuda: matmul in {} accumulates into another tensor's memory", bound.graph.scope_name(bound.node));
  if (!Gpu::multiplies(product))
    return plain_product(bound.library, product, bound.inputs[0].data, bound.inputs[1].data,
                         bound.outputs[0].data);
  return bound.library.gpu().product(product, bound.inputs[0].data, bound.inputs[1].data,
                                     bound.outputs[0].data, bound.workspace);
}

}  // namespace nf::cuda
