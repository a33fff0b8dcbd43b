// Writes the kernel of a plan: cuda/loop_source.h says what it looks like. The forms and how they go from row
// to row are in loop_source.cpp, leaves, values and outputs in loop_values.cpp, column reductions in
// loop_columns.cpp.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "cuda/loop_source.h"
#include "cuda/loop_text.h"

namespace nf::cuda {

class LoopWriter {
 public:
  LoopWriter(const LoopPlan& plan, std::span<const TensorView> inputs, std::span<const TensorView> outputs);
  LoopSource run();

 private:
  using To = LoopSource::Pointer::To;

  // What a phase does for each vector.
  struct Work {
    std::vector<int32_t> values;  // to compute, in order
    std::vector<int32_t> row_reductions, column_reductions, outputs;
    bool empty() const {
      return values.empty() && row_reductions.empty() && column_reductions.empty() && outputs.empty();
    }
  };

  const Node& node(int32_t i) const { return body_.node(i); }
  DType dtype(int32_t i) const { return node(i).outputs[0].dtype; }
  std::string_view lane_type_of(int32_t i) const;
  int32_t output_count() const { return static_cast<int32_t>(body_.outputs().size()); }
  int32_t tensor_of_output(int32_t o) const { return plan_.output_tensors[static_cast<size_t>(o)]; }
  const LoopTensor& output_tensor(int32_t o) const { return plan_.tensor(tensor_of_output(o)); }

  // ---- forms
  void name_pointers();
  void point(To to, int32_t number, const std::string& declaration);
  void write_map();
  void find_short_vector();
  void write_rows();
  void write_columns();
  void name_members();
  void find_row();
  void walk_units(int64_t tiles);
  void begin_row();
  void place_tensors();
  void end_row(const std::string& who);
  bool has_short_vector() const { return plan_.columns % plan_.vector != 0; }
  std::string address(std::string base, int32_t tensor, const std::string& column) const;
  std::string guard() const { return guard_.empty() ? "" : fmt::format("if ({}) ", guard_); }

  // ---- vectors of a thread
  bool has_many() const { return plan_.per_lane > 1; }
  std::string dimension() const { return has_many() ? fmt::format("[{}]", plan_.per_lane) : ""; }
  std::string subscript() const { return has_many() ? "[k]" : ""; }
  void open_vectors();
  void open_vectors_of_map();
  void close_vectors();
  bool fills_vectors() const;

  // ---- values
  bool is_leaf(int32_t i) const;
  bool is_computed(int32_t i) const;
  bool is_loaded_once(int32_t i) const;
  void load_leaves(bool once);
  std::string loaded(int32_t i) const;
  std::string philox(int32_t i, int count, const std::string& column) const;
  std::string operand(int32_t i) const;
  std::string expression(int32_t i) const;
  std::string row_leaf(int32_t i) const;
  void write_row_values(int level);

  // ---- phases
  void write_phases();
  Work work_of(int phase) const;
  void write_phase(const Work& work);
  void load_for(const Work& work);
  void write_elements(const Work& work);
  void define(int32_t i);
  void store(int32_t o);

  // ---- row reductions
  bool shares_parts() const;
  void declare_shared();
  void end_reductions(int phase);

  // ---- column reductions
  void begin_column(int32_t i);
  void accumulate_in_memory(int32_t i);
  void finish_block();
  void combine_groups(const ColumnReduction& column, const std::string& tile);
  int64_t tile_columns() const { return int64_t{plan_.lanes} * plan_.per_lane * plan_.vector; }
  std::string result_at(const ColumnReduction& column, const std::string& of) const;

  const LoopPlan& plan_;
  const Graph& body_;
  std::span<const TensorView> inputs_, outputs_;
  bool in_memory_;  // leaves are read anew in every phase
  Text text_;
  LoopSource result_;
  std::vector<std::string> places_;  // of the row in each tensor; empty where it is at the begin
  std::string guard_;                // of what is written, where a row may not be there
  std::string row_guard_;            // of what is read: columns that are not there have been left out
  std::set<int32_t> defined_;        // in the loop over elements
};

std::string_view lane_type(DType dtype);
std::string_view combiner(const Node& reduction);
std::string identity(const Node& reduction);

}  // namespace nf::cuda
