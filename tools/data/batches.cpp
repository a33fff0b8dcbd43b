#include "tools/data/batches.h"

#include <nf/error.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "tools/data/batch_rows.h"

namespace nf {
namespace {

void check(const TokenDataset& dataset, const BatchOptions& options) {
  // Keeps every product of sizes far from overflow, and positions within int32.
  constexpr int64_t kMost = int64_t{1} << 30;
  require(options.batch > 0 && options.length > 0 && options.batch <= kMost / options.length,
          "data: a batch of {} rows of {} tokens is not possible", options.batch, options.length);
  require(options.ranks > 0 && options.ranks <= kMost && options.rank >= 0 && options.rank < options.ranks,
          "data: rank {} of {} ranks is not possible", options.rank, options.ranks);
  require(options.pool_batches > 0 && options.pool_batches <= kMost,
          "data: a pool must hold at least one batch, got {}", options.pool_batches);
  require(!options.random_offsets || options.mode == BatchMode::pack,
          "data: random offsets need the mode pack; a padded row is a whole document");
  for (int64_t i = 0; i < dataset.documents(); ++i)
    if (dataset.length(i) > 1) return;
  fail("data: nothing to predict: no document of the {} has two tokens", dataset.documents());
}

}  // namespace

void Batches::next(Batch& batch) {
  fill(position_, batch);
  if (++position_.index == batches_per_epoch_) {
    position_.index = 0;
    ++position_.epoch;
  }
}

void Batches::seek(const BatchPosition& position) {
  require(position.epoch >= 0 && position.index >= 0 && position.index < batches_per_epoch_,
          "data: no batch {} in epoch {}: an epoch of this dataset has {} batches; was the run begun with "
          "other data "
          "or batch settings?",
          position.index, position.epoch, batches_per_epoch_);
  position_ = position;
}

void set_shape(Batch& batch, int64_t rows, int64_t length) {
  batch.batch = rows;
  batch.length = length;
  batch.real_target_tokens = 0;
  for (auto* values : {&batch.ids, &batch.targets, &batch.documents, &batch.positions})
    values->resize(static_cast<size_t>(rows * length));
}

RowWriter::RowWriter(Batch& batch, int64_t row)
    : batch_(batch), at_(static_cast<size_t>(row * batch.length)), left_(batch.length) {}

void RowWriter::append(const TokenDataset& dataset, int64_t document, int64_t offset, int64_t count) {
  const auto at = static_cast<ptrdiff_t>(at_);
  const bool more = offset + count < dataset.length(document);
  dataset.copy(document, offset, std::span(batch_.ids).subspan(at_, static_cast<size_t>(count)));
  std::copy_n(batch_.ids.begin() + at + 1, count - 1, batch_.targets.begin() + at);
  const std::span<int32_t> last(&batch_.targets[at_ + static_cast<size_t>(count) - 1], 1);
  if (more)
    dataset.copy(document, offset + count, last);
  else
    last[0] = kIgnoreIndex;
  std::fill_n(batch_.documents.begin() + at, count, document_++);
  std::iota(batch_.positions.begin() + at, batch_.positions.begin() + at + count, 0);
  batch_.real_target_tokens += more ? count : count - 1;
  at_ += static_cast<size_t>(count);
  left_ -= count;
}

void RowWriter::pad(int32_t id) {
  const auto at = static_cast<ptrdiff_t>(at_);
  std::fill_n(batch_.ids.begin() + at, left_, id);
  std::fill_n(batch_.targets.begin() + at, left_, kIgnoreIndex);
  std::fill_n(batch_.documents.begin() + at, left_, kPaddingDocument);
  std::fill_n(batch_.positions.begin() + at, left_, 0);
  at_ += static_cast<size_t>(left_);
  left_ = 0;
}

int64_t count_batches(int64_t rows, const BatchOptions& options) {
  const int64_t step = options.batch * options.ranks;
  return std::max(int64_t{1}, options.drop_last ? rows / step : (rows + step - 1) / step);
}

std::unique_ptr<Batches> make_batches(TokenDataset dataset, const BatchOptions& options) {
  check(dataset, options);
  return options.mode == BatchMode::pack ? make_packed_batches(std::move(dataset), options)
                                         : make_padded_batches(std::move(dataset), options);
}

}  // namespace nf
