// Checkpoints written while the run goes on.
//
// save() copies what is to be saved and returns; a thread writes the copy. The next save() waits until the
// one before is on disk, so that one copy is the most there ever is; its memory is kept from save to save. A
// machine that lacks the memory for it has its checkpoints written at once instead, which changes no bit of
// them.
//
//     CheckpointWriter writer(run, 3, [&](const std::filesystem::path& folder) { … });
//     writer.save(100, data, true);
//     writer.finish();
#pragma once

#include <functional>
#include <future>
#include <memory>

#include "tools/trainer/checkpoint.h"

namespace nf {

class CheckpointWriter {
 public:
  // `keep`: see prune_checkpoints. `written` is told of every checkpoint that has reached the disk, by the
  // thread that calls the functions below. No copy is made while the machine has less than the copy's memory
  // to spare, as `available` tells (bytes; 0: nobody knows).
  CheckpointWriter(std::filesystem::path run, int64_t keep,
                   std::function<void(const std::filesystem::path&)> written,
                   std::function<int64_t()> available = {});
  // Waits; what went wrong by then is not told.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Writes RUN/checkpoint-STEP, marks it as the best if it is, and removes old ones. Returns its folder,
  // which appears later. Throws what the checkpoint before it threw.
  // `last`: the run is over, so it is written before save() returns, without a copy.
  std::filesystem::path save(int64_t step, CheckpointData data, bool best, bool last = false);
  // Marks a checkpoint that was saved before.
  void mark_best(int64_t step);

  // Looks whether the checkpoint is on disk by now; throws what writing it threw.
  void poll();
  // Waits until it is.
  void finish();

  // Bytes of the copy; 0 when none was made.
  int64_t copy_bytes() const { return copy_bytes_; }

 private:
  bool copy(CheckpointData& data);

  std::filesystem::path run_;
  int64_t keep_;
  std::function<void(const std::filesystem::path&)> written_;
  std::function<int64_t()> available_;
  std::unique_ptr<std::byte[]> memory_;
  int64_t copy_bytes_ = 0;
  std::future<std::filesystem::path> running_;
};

}  // namespace nf
