// Batches of token ids for training and validation, resumable at any batch.
//
//     auto batches = make_batches(train, {.mode = BatchMode::pack, .batch = 16, .length = 256});
//     Batch batch;
//     batches->next(batch);                     // for ever; an epoch is batches_per_epoch() calls
//     BatchPosition here = batches->position(); // three integers for the checkpoint
//     …
//     batches->seek(here);                      // the next batch is exactly the one that would have come
//
// Every batch is a pure function of the dataset, the options and its position: no generator state, the same
// on every machine. Filling a batch allocates nothing once its vectors are large enough.
//
// pack   The documents stand back to back in one stream, cut into windows of `length` inputs (the next
//        window begins with the last target of this one), so every token but the first of each document is a
//        target exactly once per epoch. Windows are shuffled each epoch. random_offsets: windows begin at
//        random places of the stream instead, as is usual for a single running text; an epoch is as many
//        batches as it would take to read the stream once.
// pad    A row is one document; a longer one is cut into rows of `length` inputs (or truncated to one).
//        Rows of similar length go together: shuffled, sorted within large pools, batches shuffled. A batch
//        is as long as its longest row, rounded up to a multiple of kLengthMultiple, so that few shapes have
//        to be compiled.
//
// In both, a position whose next token belongs to another document has no target, so nothing is learned
// across a boundary; `documents` lets attention keep to its own document; positions count from the start of
// the document or of the row, whichever is later, so they are below `length`. Rows that the last batch of an
// epoch lacks are padding.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "nf/ops.h"  // kIgnoreIndex
#include "tools/data/dataset.h"

namespace nf {

constexpr int32_t kPaddingDocument = -1;  // a position that holds no token
constexpr int64_t kLengthMultiple = 8;    // of a padded batch

// All four are [batch, length], row-major. Padding: id padding_id, target kIgnoreIndex, document
// kPaddingDocument, position 0; it stands only at the end of a row.
struct Batch {
  int64_t batch = 0, length = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;    // the next token
  std::vector<int32_t> documents;  // number of the document within its row, from 0
  std::vector<int32_t> positions;  // within the document
  int64_t real_target_tokens = 0;  // targets that are not kIgnoreIndex: the divisor of a mean loss; may be 0
};

// The batch that comes next. The whole state of an iteration; the caller stores it.
struct BatchPosition {
  uint64_t seed = 0;
  int64_t epoch = 0;  // from 0
  int64_t index = 0;  // within the epoch, 0 … batches_per_epoch() - 1

  bool operator==(const BatchPosition&) const = default;
};

enum class BatchMode : uint8_t { pack, pad };  // see the top of this file

struct BatchOptions {
  BatchMode mode = BatchMode::pack;
  int64_t batch = 8;            // rows
  int64_t length = 256;         // inputs per row: exactly in pack, at most in pad
  uint64_t seed = 0;            // of the first position
  bool shuffle = true;          // false: in order, every epoch alike, for validation
  bool drop_last = false;       // leave out an incomplete last batch, unless it is the only one
  bool random_offsets = false;  // pack only
  bool truncate = false;        // pad only: drop what exceeds `length` instead of cutting it into more rows
  int64_t pool_batches = 64;    // pad only: batches per pool that is sorted by length
  int32_t padding_id = 0;
  // Data parallel: this process is `rank` of `ranks`, and takes rows rank·batch … of every ranks·batch rows.
  // Together the ranks see what one process with ranks times the batch would. Its share of a last batch may
  // be all padding.
  int64_t rank = 0, ranks = 1;
};

class Batches {
 public:
  virtual ~Batches() = default;

  // Fills `batch` with the batch at position() and advances, into the next epoch after the last of one.
  void next(Batch& batch);

  const BatchPosition& position() const { return position_; }

  // Throws Error for a position that this dataset and these options do not have.
  void seek(const BatchPosition& position);

  int64_t batches_per_epoch() const { return batches_per_epoch_; }

 protected:
  Batches(uint64_t seed, int64_t batches_per_epoch)
      : position_{seed, 0, 0}, batches_per_epoch_(batches_per_epoch) {}

  virtual void fill(const BatchPosition& position, Batch& batch) = 0;

 private:
  BatchPosition position_;
  int64_t batches_per_epoch_;
};

// Keeps its own (shared) copy of the dataset. Throws Error for options out of range, and for a dataset
// without a single target, that is without a document of two tokens. Not safe to share between threads.
std::unique_ptr<Batches> make_batches(TokenDataset dataset, const BatchOptions& options);

// The same batches, each made by a thread of its own while the one before is in use, so that a training step
// never waits for a disk or for the shuffling of an epoch. After seek() the first one is made on the spot.
std::unique_ptr<Batches> prefetched(std::unique_ptr<Batches> batches);

}  // namespace nf
