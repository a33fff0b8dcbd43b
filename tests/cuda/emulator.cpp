#include "tests/cuda/emulator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "nf/error.h"
#include "tests/cuda/emulated.h"
#include "tests/cuda/emulated_products.h"
#include "tests/cuda/fiber.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace nf::cuda {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr uint32_t kWarp = 32;
constexpr uint32_t kMaxSharedBytes = 227 << 10;  // of sm_90; sm_80 has 163 KiB

struct Copy {
  void* to;
  uint32_t count;
  std::array<unsigned char, 16> bytes;
};

// The state of a barrier of warpgroup.cuh.
struct Phases {
  uint16_t arrivals, missing;
  uint32_t phase;

  void arrive() {
    if (--missing > 0) return;
    missing = arrivals;
    ++phase;
  }
};
static_assert(sizeof(Phases) == sizeof(uint64_t));

// Copies whose end is an arrival there.
struct CopiesToArrive {
  std::vector<Copy> copies;
  Phases* barrier;
  uint32_t thread;
};

struct Fiber {
  enum class State : uint8_t {
    ready,
    at_barrier,
    at_exchange,
    at_phase,
    at_part_barrier,
    done
  } state = State::ready;
  EmulatedThread thread{};
  Context context;
  std::unique_ptr<unsigned char[]> stack = std::make_unique<unsigned char[]>(kStackBytes);
  std::vector<Copy> open_copies;              // not in a group yet
  std::deque<std::vector<Copy>> groups = {};  // under way, oldest first
  uint64_t known = 0;                         // shared memory written by then its products may read
  const Phases* barrier = nullptr;            // at_phase: waits until the latest phase of `parity` is over
  uint32_t parity = 0;
  int part_barrier = 0;

  bool can_go_on() const {
    return state == State::ready || (state == State::at_phase && barrier->phase % 2 != parity);
  }
};

// A barrier of some of a block's threads.
struct PartBarrier {
  uint32_t threads = 0, arrived = 0;
};

struct Warp {
  uint32_t lanes = 0, waiting = 0;
  uint64_t turn = 0;
  alignas(16) std::array<std::array<unsigned char, size_t{16} * kWarp>, 2> parts{};
  WarpProducts products = {};
};

class Block {
 public:
  void run(EmulatedKernel kernel, const LaunchShape& shape, const void* params, Dim index) {
    kernel_ = kernel;
    params_ = params;
    shared_.assign((shape.shared_bytes + 2048) / 4, 0xFFFFFFFFU);  // NaNs
    auto address = reinterpret_cast<uintptr_t>(shared_.data());
    address = (address + 1023) / 1024 * 1024;
    memory_ = {reinterpret_cast<unsigned char*>(address),
               std::vector<uint64_t>((shape.shared_bytes + 15) / 16)};
    clock_ = 0;
    copies_.clear();
    part_barriers_ = {};
    while (fibers_.size() < shape.threads) fibers_.push_back(std::make_unique<Fiber>());
    count_ = alive_ = shape.threads;
    waiting_ = 0;
    warps_.assign((count_ + kWarp - 1) / kWarp, {});
    for (uint32_t i = 0; i < count_; ++i) {
      Fiber& fiber = *fibers_[i];
      fiber.state = Fiber::State::ready;
      fiber.thread = {{i, 0, 0},
                      index,
                      {shape.threads, 1, 1},
                      {shape.grid_x, shape.grid_y, shape.grid_z},
                      reinterpret_cast<unsigned char*>(address)};
      fiber.open_copies.clear();
      fiber.groups.clear();
      fiber.known = 0;
      ++warps_[i / kWarp].lanes;
      fiber.context.begin({fiber.stack.get(), kStackBytes}, &Block::enter);
    }
    schedule((index.x + index.y + index.z) % 2 != 0);
  }

  Fiber& current() { return *fibers_[current_]; }
  Warp& warp() { return warps_[current_ / kWarp]; }
  SharedMemory& memory() { return memory_; }
  uint32_t thread() const { return current_; }
  uint64_t clock() const { return clock_; }

  void barrier() {
    if (++waiting_ == alive_) return release_block();
    wait(Fiber::State::at_barrier);
  }

  const unsigned char* exchange(const void* mine, unsigned bytes) {
    Warp& warp = this->warp();
    auto& parts = warp.parts[warp.turn % 2];
    if (bytes > 0) std::memcpy(parts.data() + size_t{16} * (current_ % kWarp), mine, bytes);
    if (++warp.waiting == warp.lanes)
      release_warp(warp);
    else
      wait(Fiber::State::at_exchange);
    return parts.data();
  }

  void wait_phase(const Phases* barrier, uint32_t parity) {
    current().barrier = barrier;
    current().parity = parity;
    wait(Fiber::State::at_phase);
  }

  void part_barrier(int number, uint32_t threads) {
    if (count_at_part_barrier(number, threads)) return;
    current().part_barrier = number;
    wait(Fiber::State::at_part_barrier);
  }
  // Counts the thread; true when it is the last of `threads`.
  bool count_at_part_barrier(int number, uint32_t threads) {
    PartBarrier& barrier = part_barriers_.at(static_cast<size_t>(number));
    require(number > 0 && threads % kWarp == 0, "emulator: a barrier {} of {} threads", number, threads);
    require(barrier.arrived == 0 || barrier.threads == threads,
            "emulator: a barrier of {} threads that others count as {}", threads, barrier.threads);
    barrier.threads = threads;
    if (++barrier.arrived < threads) return false;
    barrier.arrived = 0;
    for (const auto& fiber : fibers_)
      if (fiber->state == Fiber::State::at_part_barrier && fiber->part_barrier == number)
        fiber->state = Fiber::State::ready;
    return true;
  }

  void arrive_after_copies(Phases* barrier) {
    std::vector<Copy> copies;
    for (auto& group : current().groups) copies.insert(copies.end(), group.begin(), group.end());
    copies.insert(copies.end(), current().open_copies.begin(), current().open_copies.end());
    current().groups.clear();
    current().open_copies.clear();
    copies_.push_back({std::move(copies), barrier, current_});
  }

  void land(const std::vector<Copy>& copies) {
    ++clock_;
    for (const Copy& copy : copies) {
      std::memcpy(copy.to, copy.bytes.data(), copy.count);
      const auto at = static_cast<size_t>(static_cast<unsigned char*>(copy.to) - memory_.data) / 16;
      if (at < memory_.written.size()) memory_.written[at] = clock_;
    }
  }

 private:
  static void enter();
  void run_thread();

  void wait(Fiber::State state) {
    Fiber& fiber = current();
    fiber.state = state;
    Context::go(fiber.context, scheduler_);
  }

  void release_block() {
    waiting_ = 0;
    for (uint32_t i = 0; i < count_; ++i)
      if (fibers_[i]->state == Fiber::State::at_barrier) fibers_[i]->state = Fiber::State::ready;
  }

  void release_warp(Warp& warp) {
    warp.waiting = 0;
    ++warp.turn;
    const uint32_t first = static_cast<uint32_t>(&warp - warps_.data()) * kWarp;
    for (uint32_t i = first; i < std::min(first + kWarp, count_); ++i)
      if (fibers_[i]->state == Fiber::State::at_exchange) fibers_[i]->state = Fiber::State::ready;
  }

  // A thread that has returned no longer counts at barriers; a warp's collectives need all its lanes.
  void finish() {
    if (!failure_ && has_copies())
      failure_ = std::make_exception_ptr(Error("emulator: a thread ends amid its copies"));
    current().state = Fiber::State::done;
    --alive_;
    if (alive_ > 0 && waiting_ == alive_) release_block();
  }

  bool has_copies() {
    return !current().open_copies.empty() ||
           std::any_of(current().groups.begin(), current().groups.end(),
                       [](const auto& group) { return !group.empty(); }) ||
           std::any_of(copies_.begin(), copies_.end(),
                       [&](const CopiesToArrive& c) { return c.thread == current_; });
  }

  void schedule(bool backwards) {
    bool progress = true;
    while (alive_ > 0) {
      if (!progress) land_some(backwards);
      progress = false;
      for (uint32_t i = 0; i < count_; ++i) {
        current_ = backwards ? count_ - 1 - i : i;
        if (!current().can_go_on()) continue;
        current().state = Fiber::State::ready;
        progress = true;
        Context::go(scheduler_, current().context);
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
      }
    }
    require(copies_.empty(), "emulator: a block ends amid its copies");
    for (const PartBarrier& barrier : part_barriers_)
      require(barrier.arrived == 0, "emulator: a block ends while a barrier waits for more threads");
  }

  // When nobody can go on, and not before, a thread's copies end that others wait for.
  void land_some(bool newest) {
    require(!copies_.empty(), "emulator: the threads of a block wait for each other forever");
    const auto at = newest ? copies_.end() - 1 : copies_.begin();
    land(at->copies);
    at->barrier->arrive();
    copies_.erase(at);
  }

  EmulatedKernel kernel_ = nullptr;
  const void* params_ = nullptr;
  Context scheduler_;
  std::exception_ptr failure_;  // what a thread threw
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> shared_;
  SharedMemory memory_;
  uint64_t clock_ = 0;                 // counts landings
  std::deque<CopiesToArrive> copies_;  // under way
  std::array<PartBarrier, 16> part_barriers_{};
  uint32_t current_ = 0, count_ = 0, alive_ = 0, waiting_ = 0;
};

thread_local Block* running = nullptr;

void Block::enter() { running->run_thread(); }

void Block::run_thread() {
  Context::arrive(scheduler_);
  try {
    kernel_(params_);
  } catch (...) {
    failure_ = std::current_exception();
  }
  finish();
  Context::leave(current().context, scheduler_);
}

}  // namespace

void emulate(EmulatedKernel kernel, const LaunchShape& shape, const void* params) {
  require(shape.threads >= 1 && shape.threads <= 1024 && shape.grid_x >= 1 && shape.grid_y >= 1 &&
              shape.grid_z >= 1 && shape.grid_y <= 65535 && shape.grid_z <= 65535,
          "emulator: a launch of {} x {} x {} blocks of {} threads", shape.grid_x, shape.grid_y, shape.grid_z,
          shape.threads);
  require(shape.shared_bytes <= kMaxSharedBytes, "emulator: a block with {} bytes of shared memory",
          shape.shared_bytes);
  thread_local Block block;
  running = &block;
  for (uint32_t z = 0; z < shape.grid_z; ++z)
    for (uint32_t y = 0; y < shape.grid_y; ++y)
      for (uint32_t x = 0; x < shape.grid_x; ++x) block.run(kernel, shape, params, {x, y, z});
}

}  // namespace nf::cuda

extern "C" {

EmulatedThread* nf_emulated_thread() { return &nf::cuda::running->current().thread; }

void nf_emulated_barrier() { nf::cuda::running->barrier(); }

const unsigned char* nf_emulated_exchange(const void* mine, unsigned bytes) {
  return nf::cuda::running->exchange(mine, bytes);
}

void nf_emulated_copy(void* to, const void* from, unsigned bytes, bool valid) {
  nf_emulated_aligned(to, bytes);
  nf_emulated_aligned(from, bytes);
  nf::cuda::Copy copy{to, bytes, {}};
  if (valid) std::memcpy(copy.bytes.data(), from, bytes);
  nf::cuda::running->current().open_copies.push_back(copy);
}

void nf_emulated_aligned(const void* address, unsigned bytes) {
  nf::require(reinterpret_cast<uintptr_t>(address) % bytes == 0,
              "emulator: {} bytes at {}, not aligned to that", bytes, address);
}

void nf_emulated_commit() {
  nf::cuda::Fiber& fiber = nf::cuda::running->current();
  fiber.groups.push_back(std::move(fiber.open_copies));
  fiber.open_copies.clear();
}

void nf_emulated_wait(int pending) {
  auto& groups = nf::cuda::running->current().groups;
  for (; groups.size() > static_cast<size_t>(pending); groups.pop_front())
    nf::cuda::running->land(groups.front());
}

void nf_emulated_multiply(float* sum, unsigned columns, const uint32_t* registers, uint64_t left,
                          uint64_t right, bool right_by_rows, bool accumulate) {
  nf::cuda::Block& block = *nf::cuda::running;
  block.warp().products.multiply(
      block.memory(), block.thread() / nf::cuda::kWarp, block.thread() % nf::cuda::kWarp,
      {sum, columns, registers, left, right, right_by_rows, accumulate, block.current().known});
}

void nf_emulated_fence_products() {
  nf::cuda::running->warp().products.begin(nf::cuda::running->thread() % nf::cuda::kWarp);
}

void nf_emulated_commit_products() {
  nf::cuda::running->warp().products.commit(nf::cuda::running->thread() % nf::cuda::kWarp);
}

void nf_emulated_wait_products(int pending) {
  nf_emulated_exchange(nullptr, 0);  // all lanes' products have been begun
  nf::cuda::Block& block = *nf::cuda::running;
  block.warp().products.wait(block.memory(), block.thread() / nf::cuda::kWarp,
                             block.thread() % nf::cuda::kWarp, static_cast<uint64_t>(pending));
}

void nf_emulated_fence_shared() { nf::cuda::running->current().known = nf::cuda::running->clock(); }

void nf_emulated_begin_phases(uint64_t* barrier, int arrivals) {
  const auto count = static_cast<uint16_t>(arrivals);
  new (barrier) nf::cuda::Phases{count, count, 0};
}

void nf_emulated_arrive(uint64_t* barrier, bool after_copies) {
  auto* const phases = reinterpret_cast<nf::cuda::Phases*>(barrier);
  if (after_copies)
    nf::cuda::running->arrive_after_copies(phases);
  else
    phases->arrive();
}

void nf_emulated_wait_phase(const uint64_t* barrier, uint32_t parity) {
  nf::cuda::running->wait_phase(reinterpret_cast<const nf::cuda::Phases*>(barrier), parity);
}

void nf_emulated_sync_threads(int barrier, int threads) {
  nf::cuda::running->part_barrier(barrier, static_cast<uint32_t>(threads));
}

void nf_emulated_arrive_threads(int barrier, int threads) {
  nf::cuda::running->count_at_part_barrier(barrier, static_cast<uint32_t>(threads));
}

uint16_t nf_emulated_to_f16(float x) { return nf::to_f16(x).bits; }
float nf_emulated_from_f16(uint16_t bits) { return nf::to_float(nf::f16{bits}); }
}
