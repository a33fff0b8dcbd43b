#include "base/parallel.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace nf {
namespace {

TEST_SUITE("base/parallel") {
  TEST_CASE("every task runs exactly once, for any number of threads and tasks") {
    for (const int threads : {1, 2, 3, 8, 40})
      for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
        std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
        parallel_for(threads, tasks, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; });
        for (const std::atomic<int>& count : runs) CHECK(count == 1);
      }
  }

  TEST_CASE("a thread's number is below the limit and is no one else's meanwhile") {
    constexpr int kThreads = 4;
    std::array<std::atomic<int>, kThreads> inside{};
    std::atomic<bool> clash{false};
    for (int round = 0; round < 50; ++round)
      parallel_for(kThreads, 64, [&](int64_t, int thread) {
        if (thread < 0 || thread >= kThreads || inside[static_cast<size_t>(thread)]++ != 0) clash = true;
        std::this_thread::yield();
        --inside[static_cast<size_t>(thread)];
      });
    CHECK_FALSE(clash);
  }

  TEST_CASE("one that is held up is helped out by the others") {
    std::atomic<int> done{0};
    parallel_for(2, 100, [&](int64_t task) {
      // The first task of the caller's half waits for all of the rest, its own half included.
      if (task != 0) {
        ++done;
        return;
      }
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (done < 99 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      CHECK(done == 99);
    });
  }

  TEST_CASE("a call from inside a task, and from a second thread, does its tasks alone") {
    std::atomic<int64_t> sum{0};
    const auto outer = [&] {
      parallel_for(3, 20, [&](int64_t i) { parallel_for(3, 20, [&](int64_t j) { sum += 20 * i + j; }); });
    };
    { const std::jthread first(outer), second(outer), third(outer); }
    CHECK(sum == 3 * (400 * 399 / 2));
  }

  TEST_CASE("many short calls in a row, with pauses in which workers fall asleep") {
    std::vector<int64_t> values(512);
    for (int round = 0; round < 2000; ++round) {
      parallel_for(3, 16, [&](int64_t task) {
        for (int64_t i = task * 32; i < (task + 1) * 32; ++i) values[static_cast<size_t>(i)] += i;
      });
      if (round % 400 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(std::accumulate(values.begin(), values.end(), int64_t{0}) == 2000 * (512 * 511 / 2));
  }

  TEST_CASE("there is a processor to run on") { CHECK(processor_count() >= 1); }
}

}  // namespace
}  // namespace nf
