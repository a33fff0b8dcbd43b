// The compiler of fused loops, in three files: nodes to values (loop_compile.cpp), tensors to streams
// (loop_streams.cpp), values to instructions (loop_emit.cpp).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cpu/loop_program.h"
#include "graph/loop.h"
#include "graph/op_table.h"

namespace nf::cpu {

class LoopCompiler {
 public:
  LoopCompiler(const Graph& body, const Shape& space, std::span<const TensorView> inputs,
               std::span<const TensorView> outputs);

  LoopProgram compile();

 private:
  // What is known of a node.
  struct Info {
    int32_t alias = -1;  // the node that holds its lanes: itself unless a broadcast, or a cast of no effect
    bool needed = false;
    int32_t stream = -1;
    Extent extent;
    bool by_lead = false;
    int level = 0;  // chunked: the first stage in which it can be had
    int uses = 0;
    bool row_reduction = false, column_reduction = false;
    bool product = false;  // a reduction that multiplies the operands of its operand
    int32_t constant = -1;
    int32_t slot = -1;  // where its lanes are now
  };
  enum class List : uint8_t { prologue, before, body, after };

  Info& info(int32_t node) { return info_[static_cast<size_t>(node)]; }
  Info& info(ValueId id) { return info(info(id.node).alias); }
  int32_t holder(ValueId id) { return info(id.node).alias; }
  const Node& operand_node(const Node& node) { return body_.node(holder(node.inputs[0])); }

  // Nodes (loop_compile.cpp).
  void resolve_nodes();
  Info& use(ValueId id);
  // A sum of products needs no register for the products.
  void join_product(int32_t i);
  // The values that a node's instruction reads.
  std::vector<int32_t> operands(int32_t i);

  // Streams (loop_streams.cpp).
  // Strides over the space's axes of a tensor whose sizes are the space's or 1.
  Strides over_space(const Shape& shape, const Strides& strides) const;
  void make_streams();
  void make_stream(int32_t i);
  void make_output(int32_t o);
  void make_column(const Node& node, const TensorView& view);
  // The rng of a philox: read where it is, at any stride.
  int32_t rng_stream(const Node& philox);

  // The tile (loop_compile.cpp).
  void lay_out();

  // Values (loop_compile.cpp).
  void analyse();
  void derive(int32_t i);
  int32_t new_register(Extent extent, List list, bool lanes = false);
  // Tensors in which tiles follow each other without gaps.
  void choose_prefetches();

  // Instructions (loop_emit.cpp).
  List list_of(Extent extent, bool by_lead) const;
  std::vector<Instruction>& list(List which);
  // Bytes from row to row of a value of this extent in registers.
  int64_t register_step(Extent extent) const { return extent.rows && extent.cols ? program_.cols * 4 : 0; }
  // Makes operand i of an instruction over `domain` read `slot`, which holds a value of extent `value`.
  void read(Instruction& instruction, int i, int32_t slot, Extent value, Extent domain);
  void read(Instruction& instruction, int i, int32_t node, Extent domain);
  // Lanes that instructions can read: in place where memory holds them so.
  bool in_place(const Stream& stream) const;
  // Puts a node's lanes where instructions can read them.
  void fetch(int32_t node);
  void load(int32_t node);
  // Whether a leaf is an output that shares its memory with another output: stores could then overwrite it
  // before they read it.
  bool stored_elsewhere(int32_t node);
  // A register over `domain` with a copy of the value in every place.
  int32_t spread(int32_t node, Extent domain, List where);
  void emit_elementwise(int32_t i);
  // The operands of a reduction, spread out over the columns where they are splats.
  Instruction reduction(int32_t i, Code family, List where);
  void emit_row_reduction(int32_t i);
  void emit_chunked_reduction(int32_t i);
  void emit_column_reduction(int32_t i, int32_t output_stream);
  // Stores round to bf16 and f16 themselves: a cast to them that only stores read is left out.
  int32_t stored_node(const Graph::Output& output);
  void emit_store(int32_t o);
  void emit();
  // Forgets casts that stores make up for.
  void drop_rounding();
  void emit_stage(int stage);
  // The nodes that a stage computes. Values per row are computed once, as soon as they can be; full values in
  // each stage that reduces or stores something made of them.
  std::vector<bool> wanted_in(int stage);

  const Graph& body_;
  const Shape& space_;
  std::span<const TensorView> inputs_, outputs_;
  LoopProgram program_;
  std::vector<Info> info_;
  std::vector<int32_t> output_streams_;
  std::vector<std::pair<int32_t, int64_t>> rng_streams_;  // stream, bytes between its elements
  std::vector<VirtualRegister> registers_;
  bool reduces_rows_ = false;
  int last_stage_ = 0;
};

}  // namespace nf::cpu
