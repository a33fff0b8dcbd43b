// The pool. A job is open from its start until its caller finds no more tasks; a worker takes part only if it
// joins while the job is open, and the caller then waits for those that did. All in a handful of atomics:
// `gate_` holds the number of the job, whether it is open, and how many workers are inside.
#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nf {
namespace {

constexpr int kMaxThreads = 256;
constexpr size_t kLine = 128;      // two cache lines: processors fetch them in pairs
constexpr int kSpinRounds = 4000;  // of some 40 ns: the gaps within a step are shorter, pauses longer

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: first awake, then asleep.
uint64_t wait_for_change(const std::atomic<uint64_t>& value, uint64_t old) {
  for (int round = 0; round < kSpinRounds; ++round) {
    const uint64_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// A thread's part of the tasks: [begin, end) in one word. The owner takes from the front, others from the
// back.
struct alignas(kLine) Part {
  std::atomic<uint64_t> range{0};

  static constexpr uint64_t pack(uint64_t begin, uint64_t end) { return end << 32 | begin; }

  // A task from the front or the back, or -1.
  int64_t take(bool front) {
    uint64_t seen = range.load(std::memory_order_relaxed);
    while (true) {
      const uint64_t begin = seen & 0xffffffff, end = seen >> 32;
      if (begin >= end) return -1;
      const uint64_t rest = front ? pack(begin + 1, end) : pack(begin, end - 1);
      if (range.compare_exchange_weak(seen, rest, std::memory_order_acq_rel, std::memory_order_relaxed))
        return static_cast<int64_t>(front ? begin : end - 1);
    }
  }
};

class Pool {
 public:
  ~Pool() {
    stop_ = true;
    gate_.fetch_add(kNextJob, std::memory_order_release);
    gate_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // False where another caller has the pool.
  bool run(int threads, int64_t tasks, ParallelBody function, void* body) {
    const std::unique_lock lock(caller_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    threads = static_cast<int>(std::min<int64_t>({threads, tasks, kMaxThreads}));
    threads = start_workers(threads - 1) + 1;
    function_ = function;
    body_ = body;
    threads_.store(threads, std::memory_order_relaxed);
    for (int i = 0; i < threads; ++i)
      parts_[i].range.store(Part::pack(static_cast<uint64_t>(tasks * i / threads),
                                       static_cast<uint64_t>(tasks * (i + 1) / threads)),
                            std::memory_order_relaxed);
    gate_.fetch_add(kNextJob | kOpen, std::memory_order_release);
    gate_.notify_all();
    run_tasks(0, threads);
    uint64_t gate = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    while ((gate & kInside) != 0) gate = wait_for_change(gate_, gate);
    return true;
  }

 private:
  // Starts those that are missing; returns how many of the `count` there are.
  int start_workers(int count) {
    try {
      while (static_cast<int>(workers_.size()) < count) {
        const int thread = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, thread, seen = gate_.load()] { work(thread, seen); });
      }
    } catch (const std::system_error&) {  // the operating system has no more; fewer do the same work
    }
    return std::min(count, static_cast<int>(workers_.size()));
  }

  // The words of gate_: workers inside, open, number of the job.
  static constexpr uint64_t kInside = 0xffff, kOpen = 0x10000, kNextJob = 0x20000;

  void run_tasks(int thread, int threads) {
    for (int i = 0; i < threads; ++i) {
      Part& part = parts_[(thread + i) % threads];
      for (int64_t task = part.take(i == 0); task >= 0; task = part.take(i == 0))
        function_(body_, task, thread);
    }
  }

  void work(int thread, uint64_t seen) {
    while (true) {
      uint64_t gate = wait_for_change(gate_, seen);
      if (stop_) return;
      // Joins the job, unless it is over, full, or was joined before.
      bool joined = false;
      while ((gate & kOpen) != 0 && gate / kNextJob != seen / kNextJob && !joined) {
        joined =
            gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire);
        if (joined) ++gate;
      }
      seen = gate;
      if (!joined) continue;
      const int threads = threads_.load(std::memory_order_relaxed);
      if (thread < threads) run_tasks(thread, threads);
      seen = gate_.fetch_sub(1, std::memory_order_acq_rel) - 1;
      if ((seen & (kOpen | kInside)) == 0) gate_.notify_all();
    }
  }

  std::mutex caller_;
  std::vector<std::thread> workers_;
  std::atomic<bool> stop_{false};
  alignas(kLine) std::atomic<uint64_t> gate_{0};
  ParallelBody function_ = nullptr;
  void* body_ = nullptr;
  std::atomic<int> threads_{0};
  Part parts_[kMaxThreads];
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

int processor_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void run_parallel(int threads, int64_t tasks, ParallelBody function, void* body) {
  constexpr int64_t kMaxTasks = int64_t{1} << 31;
  if (tasks < kMaxTasks && pool().run(threads, tasks, function, body)) return;
  for (int64_t task = 0; task < tasks; ++task) function(body, task, 0);
}

}  // namespace nf
