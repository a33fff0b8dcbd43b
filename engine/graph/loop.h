// What an Op::loop node is: the contract between the fuse pass, which makes loops, and the backends, which
// run them.
//
// A loop node has the attributes "body" (a Graph) and "space" (a Shape S of rank >= 1: the iteration space).
// The last axis of S is the row; the others count rows. In the body:
//  * Op::input leaves stand for the loop node's inputs; attribute "index" is the input's number. A leaf has
//    S's rank, and each of its sizes is S's or 1 (the tensor it is bound to has exactly the leaf's shape, any
//    strides), except the rng of an Op::philox, which is i32 [4].
//  * Op::constant, Op::iota and Op::philox have the shape S or S-with-last-1.
//  * Op::roll applies to a leaf whose last size is the row's, and nothing else moves data but
//    Op::broadcast: from a leaf, to S or to S-with-last-1; from S-with-last-1, to S.
//  * All other nodes are elementwise of shape S ("full") or S-with-last-1 ("per row"), or reductions:
//      row reduction: over the last axis, full -> per row; may be followed by anything;
//      column reduction: over the leading axes 0..c contiguous (c < rank - 1), of a full value; only ever
//      an output.
//  * body.outputs() are the loop node's outputs in order; each is a full, per-row or column-reduced node,
//    stored with its dtype.
// Dtypes inside are f32, i32, boolean, and bf16/f16/u8 as operands or results of cast or where, or of leaves.
// (f64 and i64 only run on the reference backend.) bf16 and f16 values are rounded when made, so whether a
// value passes through memory never changes its bits. An output may share its memory with an input of the
// same dtype, shape and strides whose only use in the body is unrolled and unbroadcast: a backend must have
// read an element before it writes that element, and rows independently.
#pragma once

#include <span>

#include "nf/graph.h"

namespace nf {

// The number of leading axes that a column reduction sums away, or 0 if `node` is no column reduction in
// space S.
int column_axes(const Node& node, const Shape& space);

// How a loop is walked: drops axes of size 1 and joins neighbours that every tensor walks as one; `keep_row`
// leaves the last axis alone. `strides` are the tensors' over the axes of the space, 0 where they repeat;
// rewritten for the new space, which is the result.
Shape collapse(const Shape& space, std::span<Strides* const> strides, bool keep_row);

// Throws Error unless the loop node obeys the contract above.
void verify_loop(const Graph& graph, const Node& loop);

}  // namespace nf
