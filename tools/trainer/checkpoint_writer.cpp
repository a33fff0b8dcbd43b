#include "tools/trainer/checkpoint_writer.h"

#include <chrono>
#include <cstring>
#include <new>

namespace nf {
namespace {

namespace fs = std::filesystem;

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path run, int64_t keep, std::function<void(const fs::path&)> written,
                                   std::function<int64_t()> available)
    : run_(std::move(run)), keep_(keep), written_(std::move(written)), available_(std::move(available)) {}

CheckpointWriter::~CheckpointWriter() {
  if (running_.valid()) running_.wait();
}

// Moves the tensors' bytes into the copy, unless they are copies already; false when there is no memory for
// it.
bool CheckpointWriter::copy(CheckpointData& data) {
  if (!data.copies.empty()) return true;
  size_t needed = 0;
  for (const auto* tensors : {&data.model, &data.optimizer})
    for (const NamedTensor& tensor : *tensors) needed += tensor.bytes.size();
  if (std::cmp_greater(needed, copy_bytes_)) {
    memory_.reset();
    copy_bytes_ = 0;
    const int64_t available = available_ ? available_() : 0;
    if (available > 0 && std::cmp_greater(needed, available)) return false;
    memory_.reset(new (std::nothrow) std::byte[needed]);
    if (!memory_) return false;
    copy_bytes_ = static_cast<int64_t>(needed);
  }
  std::byte* to = memory_.get();
  for (auto* tensors : {&data.model, &data.optimizer})
    for (NamedTensor& tensor : *tensors) {
      if (!tensor.bytes.empty()) std::memcpy(to, tensor.bytes.data(), tensor.bytes.size());
      tensor.bytes = {to, tensor.bytes.size()};
      to += tensor.bytes.size();
    }
  return true;
}

fs::path CheckpointWriter::save(int64_t step, CheckpointData data, bool best, bool last) {
  finish();
  const bool later = !last && copy(data);
  running_ = std::async(later ? std::launch::async : std::launch::deferred,
                        [run = run_, keep = keep_, step, best, data = std::move(data)] {
                          fs::path folder = write_checkpoint(run, step, data);
                          if (best) nf::mark_best(run, step);
                          prune_checkpoints(run, keep);
                          return folder;
                        });
  if (!later) finish();
  return checkpoint_folder(run_, step);
}

void CheckpointWriter::mark_best(int64_t step) {
  finish();
  nf::mark_best(run_, step);
  prune_checkpoints(run_, keep_);  // the best one until now may go
}

void CheckpointWriter::poll() {
  if (running_.valid() && running_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) finish();
}

void CheckpointWriter::finish() {
  if (!running_.valid()) return;
  const fs::path folder = running_.get();
  if (written_) written_(folder);
}

}  // namespace nf
