// Batches that are made ahead of their use.
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "tools/data/batches.h"

namespace nf {
namespace {

class PrefetchedBatches final : public Batches {
 public:
  explicit PrefetchedBatches(std::unique_ptr<Batches> batches)
      : Batches(batches->position().seed, batches->batches_per_epoch()),
        batches_(std::move(batches)),
        made_(batches_->position()) {
    seek(made_);
    batches_->next(ready_);  // here and not in the thread, so that what it allocates is allocated by now
    thread_ = std::thread([this] { work(); });
  }
  ~PrefetchedBatches() override {
    {
      const std::lock_guard lock(mutex_);
      state_ = State::stopping;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  // Who may touch batches_ and ready_: the thread while one is wanted, the caller otherwise.
  enum class State : uint8_t { wanted, ready, stopping };

  void fill(const BatchPosition& position, Batch& batch) override {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return state_ != State::wanted; });
    }
    if (state_ == State::ready && made_ == position) {
      if (error_) std::rethrow_exception(error_);
      batch = ready_;  // a copy, so that each keeps memory that fits
    } else {
      batches_->seek(position);
      batches_->next(batch);
    }
    {
      const std::lock_guard lock(mutex_);
      state_ = State::wanted;
    }
    changed_.notify_all();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return state_ == State::wanted || state_ == State::stopping; });
      if (state_ == State::stopping) return;
      lock.unlock();
      error_ = nullptr;
      made_ = batches_->position();
      try {
        batches_->next(ready_);
      } catch (...) {
        error_ = std::current_exception();
      }
      lock.lock();
      if (state_ == State::stopping) return;
      state_ = State::ready;
      changed_.notify_all();
    }
  }

  std::unique_ptr<Batches> batches_;
  Batch ready_;
  BatchPosition made_;  // of ready_
  std::exception_ptr error_;

  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::ready;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Batches> prefetched(std::unique_ptr<Batches> batches) {
  return std::make_unique<PrefetchedBatches>(std::move(batches));
}

}  // namespace nf
