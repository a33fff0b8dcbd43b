// What both modes share: writing rows, counting batches, and the order of an epoch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tools/data/batches.h"

namespace nf {

// Gives `batch` its shape, keeping the memory of its vectors.
void set_shape(Batch& batch, int64_t rows, int64_t length);

// Writes one row of a batch from left to right; its size is that of set_shape().
class RowWriter {
 public:
  RowWriter(Batch& batch, int64_t row);

  int64_t left() const { return left_; }

  // The next `count` positions (at least 1, at most left()) are tokens of a document that was not in this row
  // before, from its token `offset` on. Where the document goes on, its next token is the last one's target.
  void append(const TokenDataset& dataset, int64_t document, int64_t offset, int64_t count);

  // Fills the rest of the row.
  void pad(int32_t id);

 private:
  Batch& batch_;
  size_t at_;
  int64_t left_;
  int32_t document_ = 0;
};

// Batches of an epoch of `rows` rows.
int64_t count_batches(int64_t rows, const BatchOptions& options);

std::unique_ptr<Batches> make_packed_batches(TokenDataset dataset, const BatchOptions& options);
std::unique_ptr<Batches> make_padded_batches(TokenDataset dataset, const BatchOptions& options);

}  // namespace nf
