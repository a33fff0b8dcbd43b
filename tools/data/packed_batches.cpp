// The mode pack: windows of one long stream of documents.
#include <algorithm>
#include <numeric>
#include <optional>

#include "tools/data/batch_rows.h"
#include "tools/data/shuffle.h"

namespace nf {
namespace {

class PackedBatches final : public Batches {
 public:
  PackedBatches(TokenDataset dataset, const BatchOptions& options)
      : Batches(options.seed, count_batches(count_windows(dataset, options), options)),
        dataset_(std::move(dataset)),
        options_(options),
        windows_(count_windows(dataset_, options)) {
    starts_.reserve(static_cast<size_t>(dataset_.documents()));
    int64_t start = 0;
    for (int64_t i = 0; i < dataset_.documents(); ++i) {
      starts_.push_back(start);
      start += dataset_.length(i);
    }
    if (options_.shuffle && !options_.random_offsets) order_.resize(static_cast<size_t>(windows_));
  }

 private:
  // The last token of the stream is nobody's input, for nothing follows it.
  static int64_t count_windows(const TokenDataset& dataset, const BatchOptions& options) {
    return (dataset.tokens() - 1 + options.length - 1) / options.length;
  }

  void fill(const BatchPosition& position, Batch& batch) override {
    prepare_epoch(position);
    set_shape(batch, options_.batch, options_.length);
    const int64_t first = (position.index * options_.ranks + options_.rank) * options_.batch;
    for (int64_t row = 0; row < options_.batch; ++row) {
      RowWriter writer(batch, row);
      if (const auto start = window_start(position, first + row)) write_window(*start, writer);
      writer.pad(options_.padding_id);
    }
  }

  // Where the window of the epoch's n-th row begins in the stream; nullopt past the last row.
  std::optional<int64_t> window_start(const BatchPosition& position, int64_t n) const {
    if (options_.random_offsets) {
      const int64_t choices = std::max(int64_t{1}, dataset_.tokens() - options_.length);
      return random_below(choices, position.seed, static_cast<uint64_t>(position.epoch),
                          static_cast<uint64_t>(n));
    }
    if (n >= windows_) return std::nullopt;
    return (options_.shuffle ? order_[static_cast<size_t>(n)] : n) * options_.length;
  }

  void write_window(int64_t start, RowWriter& writer) const {
    auto document = std::upper_bound(starts_.begin(), starts_.end(), start) - starts_.begin() - 1;
    int64_t offset = start - starts_[static_cast<size_t>(document)];
    for (; writer.left() > 0 && document < dataset_.documents(); ++document, offset = 0) {
      const int64_t count = std::min(writer.left(), dataset_.length(document) - offset);
      writer.append(dataset_, document, offset, count);
    }
  }

  void prepare_epoch(const BatchPosition& position) {
    if (order_.empty() || (ordered_ && ordered_->seed == position.seed && ordered_->epoch == position.epoch))
      return;
    std::iota(order_.begin(), order_.end(), 0);
    shuffle(std::span(order_), position.seed, static_cast<uint64_t>(position.epoch));
    ordered_ = position;
  }

  TokenDataset dataset_;
  BatchOptions options_;
  int64_t windows_;
  std::vector<int64_t> starts_;           // of each document in the stream
  std::vector<int64_t> order_;            // windows of the epoch; empty when they are taken in order
  std::optional<BatchPosition> ordered_;  // the epoch that order_ belongs to
};

}  // namespace

std::unique_ptr<Batches> make_packed_batches(TokenDataset dataset, const BatchOptions& options) {
  return std::make_unique<PackedBatches>(std::move(dataset), options);
}

}  // namespace nf
