// The mode pad: a row is one document, and rows of similar length go together.
#include <algorithm>
#include <numeric>
#include <optional>

#include "tools/data/batch_rows.h"
#include "tools/data/shuffle.h"

namespace nf {
namespace {

// `inputs` tokens of a document from `offset`; the token after them exists and is the last target.
struct Row {
  int64_t document, offset, inputs;
};

std::vector<Row> cut_rows(const TokenDataset& dataset, const BatchOptions& options) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < dataset.documents(); ++i) {
    const int64_t inputs = dataset.length(i) - 1;
    const int64_t end = options.truncate ? std::min(inputs, options.length) : inputs;
    for (int64_t offset = 0; offset < end; offset += options.length)
      rows.push_back({i, offset, std::min(options.length, end - offset)});
  }
  return rows;
}

class PaddedBatches final : public Batches {
 public:
  PaddedBatches(TokenDataset dataset, std::vector<Row> rows, const BatchOptions& options)
      : Batches(options.seed, count_batches(static_cast<int64_t>(rows.size()), options)),
        dataset_(std::move(dataset)),
        options_(options),
        rows_(std::move(rows)),
        order_(rows_.size()),
        batch_order_(static_cast<size_t>(batches_per_epoch())) {
    std::iota(order_.begin(), order_.end(), 0);
    std::iota(batch_order_.begin(), batch_order_.end(), 0);
  }

 private:
  void fill(const BatchPosition& position, Batch& batch) override {
    prepare_epoch(position);
    const auto step = batch_order_[static_cast<size_t>(position.index)];
    const auto rows = rows_of(step * options_.ranks + options_.rank, options_.batch);
    int64_t longest = 1;
    for (const int64_t row : rows) longest = std::max(longest, rows_[static_cast<size_t>(row)].inputs);
    set_shape(batch, options_.batch, (longest + kLengthMultiple - 1) / kLengthMultiple * kLengthMultiple);
    for (int64_t i = 0; i < options_.batch; ++i) {
      RowWriter writer(batch, i);
      if (i < static_cast<int64_t>(rows.size())) {
        const Row& row = rows_[static_cast<size_t>(rows[static_cast<size_t>(i)])];
        writer.append(dataset_, row.document, row.offset, row.inputs);
      }
      writer.pad(options_.padding_id);
    }
  }

  // The n-th piece of `size` rows of the epoch's order, which may be cut short or empty at the end.
  std::span<int64_t> rows_of(int64_t n, int64_t size) {
    const auto total = static_cast<int64_t>(order_.size());
    const int64_t begin = std::min(n * size, total), end = std::min(begin + size, total);
    return std::span(order_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }

  void prepare_epoch(const BatchPosition& position) {
    if (!options_.shuffle ||
        (ordered_ && ordered_->seed == position.seed && ordered_->epoch == position.epoch))
      return;
    const auto epoch = static_cast<uint64_t>(position.epoch);
    std::iota(order_.begin(), order_.end(), 0);
    shuffle(std::span(order_), position.seed, 2 * epoch);

    // Rows left out by drop_last are the last ones here, before sorting, so others are left out in every
    // epoch.
    const auto used = std::min(rows_.size(), static_cast<size_t>(batches_per_epoch() * step_rows()));
    const auto shorter = [&](int64_t a, int64_t b) {
      const int64_t length_a = rows_[static_cast<size_t>(a)].inputs,
                    length_b = rows_[static_cast<size_t>(b)].inputs;
      return length_a != length_b ? length_a < length_b : a < b;
    };
    const auto pool = static_cast<size_t>(options_.pool_batches * step_rows());
    for (size_t begin = 0; begin < used; begin += pool) {
      const auto first = order_.begin() + static_cast<ptrdiff_t>(begin);
      std::sort(first, first + static_cast<ptrdiff_t>(std::min(pool, used - begin)), shorter);
    }
    std::iota(batch_order_.begin(), batch_order_.end(), 0);
    shuffle(std::span(batch_order_), position.seed, 2 * epoch + 1);
    ordered_ = position;
  }

  int64_t step_rows() const { return options_.batch * options_.ranks; }

  TokenDataset dataset_;
  BatchOptions options_;
  std::vector<Row> rows_;
  std::vector<int64_t> order_;            // of the rows in this epoch
  std::vector<int64_t> batch_order_;      // of the batches
  std::optional<BatchPosition> ordered_;  // the epoch both belong to
};

}  // namespace

std::unique_ptr<Batches> make_padded_batches(TokenDataset dataset, const BatchOptions& options) {
  std::vector<Row> rows = cut_rows(dataset, options);
  return std::make_unique<PaddedBatches>(std::move(dataset), std::move(rows), options);
}

}  // namespace nf
