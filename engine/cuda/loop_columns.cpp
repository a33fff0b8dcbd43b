// Column reductions: in registers until a block is done, or in memory where rows are wide.
#include <algorithm>

#include "cuda/loop_writer.h"
#include "cuda/sources.h"

namespace nf::cuda {

void LoopWriter::begin_column(int32_t i) {
  text_.line("{} c{}{}[{}];", lane_type_of(i), i, dimension(), plan_.vector);
  if (has_many()) {
    text_.unroll();
    text_.open("for (int k = 0; k < {}; ++k)", plan_.per_lane);
  }
  text_.unroll();
  text_.line("for (int j = 0; j < {}; ++j) c{}{}[j] = {};", plan_.vector, i, subscript(), identity(node(i)));
  if (has_many()) text_.close();
}

// Where the block's result for a column goes: its partial results, or the output itself.
std::string LoopWriter::result_at(const ColumnReduction& column, const std::string& of) const {
  const auto element = [&](const std::string& row) {
    return plan_.columns == 1 ? row : fmt::format("{} * {} + {}", row, plan_.columns, of);
  };
  const bool one_row = plan_.kept_rows == 1;
  if (column.partials > 1)
    return fmt::format(
        "partial{}[{}]", column.output,
        element(one_row ? "Index(block)" : fmt::format("Index(block * {} + kept_row)", plan_.kept_rows)));
  const TensorView& view = outputs_[static_cast<size_t>(column.output)];
  const std::string kept = one_row ? of : fmt::format("({})", element("kept_row"));
  return fmt::format("out{}[{}]", column.output, offset_of(kept, view.shape, view.strides));
}

// A thread has the same columns in every row.
void LoopWriter::accumulate_in_memory(int32_t i) {
  text_.unroll();
  text_.open("for (int j = 0; j < {}; ++j)", plan_.vector);
  for (const ColumnReduction& column : plan_.column_reductions) {
    if (column.node != i) continue;
    const std::string to = result_at(column, "(column + j)");
    text_.line("{0} = first == begin ? c{1}[j] : {2}::combine({0}, c{1}[j]);", to, i, combiner(node(i)));
  }
  text_.close();
}

// The groups' results become the block's.
void LoopWriter::finish_block() {
  for (const ColumnReduction& column : plan_.column_reductions) {
    const int32_t i = column.node;
    const std::string tile = fmt::format("{}_tile", lane_type_of(i));
    if (plan_.groups > 1) text_.line("__syncthreads();");
    open_vectors();
    text_.unroll();
    text_.open("for (int j = 0; j < {}; ++j)", plan_.vector);
    if (plan_.groups > 1)
      text_.line("{}[group][{} * {} + j] = c{}{}[j];", tile,
                 has_many() ? fmt::format("(k * {} + member)", plan_.lanes) : "member", plan_.vector, i,
                 subscript());
    else
      text_.line("{} = c{}{}[j];", result_at(column, "(column + j)"), i, subscript());
    text_.close();
    close_vectors();
    if (plan_.groups > 1) combine_groups(column, tile);
  }
}

void LoopWriter::combine_groups(const ColumnReduction& column, const std::string& tile) {
  const int64_t tiles = plan_.form == LoopForm::columns ? blocks(plan_.vectors, plan_.lanes) : 1;
  text_.line("__syncthreads();");
  text_.open("for (int i = threadIdx.x; i < {}; i += {})", tile_columns(), plan_.threads());
  text_.line("const Index at = {}i;",
             tiles == 1 ? "" : fmt::format("Index(blockIdx.x % {}) * {} + ", tiles, tile_columns()));
  if (tiles * tile_columns() != plan_.columns) text_.line("if (at >= {}) break;", plan_.columns);
  text_.line("{} value = {}[0][i];", lane_type_of(column.node), tile);
  text_.unroll();
  text_.line("for (int g = 1; g < {}; ++g) value = {}::combine(value, {}[g][i]);", plan_.groups,
             combiner(node(column.node)), tile);
  text_.line("{} = value;", result_at(column, "at"));
  text_.close();
}

}  // namespace nf::cuda
