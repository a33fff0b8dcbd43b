// Threads. Work is cut by its shape, never by the number of threads, so that results are the same bits for
// any number.
#pragma once

#include <cstdint>
#include <utility>

namespace nf {

// Runs body(i) for every i in [0, tasks), each exactly once, on up to `threads` OpenMP threads; order is
// unspecified, so tasks must write disjoint memory. `body` must not throw.
template <typename Body>
void parallel_for(int threads, int64_t tasks, Body&& body) {
  if (threads <= 1 || tasks <= 1) {
    for (int64_t i = 0; i < tasks; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < tasks; ++i) body(i);
}

}  // namespace nf
