// Threads. Work is cut by its shape, never by the number of threads, so that results are the same bits for
// any number.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace nf {

// Processors that this process may run on, at least 1.
int processor_count();

// A body as the pool sees it: a function of (body, task, thread).
using ParallelBody = void (*)(void* body, int64_t task, int thread);

// Runs all tasks on the caller and up to threads - 1 workers of the process's pool; see parallel_for.
void run_parallel(int threads, int64_t tasks, ParallelBody function, void* body);

// Runs body(task) or body(task, thread) for every task in [0, tasks), each exactly once. `thread`, in
// [0, threads), is one that runs no other task at the same time, for scratch memory of its own.
//
// Threads are the caller and workers that the process starts once and keeps. Each begins with a contiguous
// part of the tasks, the same part on every call, so that what a task finds was often left in its core's own
// caches by the task of the same place in the step before; whoever is done takes from the end of another's
// part. A worker that the operating system does not run is not waited for. While one caller has the pool, a
// second one, and a call from inside a task, do their tasks alone. `body` must not throw, and tasks must
// write disjoint memory. Allocates nothing, save when it starts workers.
template <typename Body>
void parallel_for(int threads, int64_t tasks, Body&& body) {
  constexpr bool kWantsThread = std::is_invocable_v<Body&, int64_t, int>;
  const auto call = [](void* b, int64_t task, int thread) {
    auto& typed = *static_cast<std::remove_reference_t<Body>*>(b);
    if constexpr (kWantsThread)
      typed(task, thread);
    else
      typed(task);
  };
  void* const erased = const_cast<void*>(static_cast<const void*>(std::addressof(body)));
  if (threads > 1 && tasks > 1) return run_parallel(threads, tasks, call, erased);
  for (int64_t task = 0; task < tasks; ++task) call(erased, task, 0);
}

}  // namespace nf
