#include "tests/cuda/emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

#include "nf/error.h"
#include "tests/cuda/emulated.h"
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
  std::array<unsigned char, 16> bytes;
};

struct Fiber {
  enum class State : uint8_t { ready, at_barrier, at_exchange, done } state = State::ready;
  EmulatedThread thread{};
  ucontext_t context{};
  std::unique_ptr<unsigned char[]> stack = std::make_unique<unsigned char[]>(kStackBytes);
  std::vector<Copy> open_copies;              // not in a group yet
  std::deque<std::vector<Copy>> groups = {};  // under way, oldest first
};

struct Warp {
  uint32_t lanes = 0, waiting = 0;
  uint64_t turn = 0;
  alignas(16) std::array<std::array<unsigned char, size_t{16} * kWarp>, 2> parts{};
};

class Block {
 public:
  void run(EmulatedKernel kernel, const LaunchShape& shape, const void* params, Dim index) {
    kernel_ = kernel;
    params_ = params;
    shared_.assign((shape.shared_bytes + 2048) / 4, 0xFFFFFFFFU);  // NaNs
    auto address = reinterpret_cast<uintptr_t>(shared_.data());
    address = (address + 1023) / 1024 * 1024;
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
      ++warps_[i / kWarp].lanes;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = &scheduler_;
      makecontext(&fiber.context, &Block::enter, 0);
    }
    schedule((index.x + index.y + index.z) % 2 != 0);
  }

  Fiber& current() { return *fibers_[current_]; }

  void barrier() {
    if (++waiting_ == alive_) return release_block();
    wait(Fiber::State::at_barrier);
  }

  const unsigned char* exchange(const void* mine, unsigned bytes) {
    Warp& warp = warps_[current_ / kWarp];
    auto& parts = warp.parts[warp.turn % 2];
    if (bytes > 0) std::memcpy(parts.data() + size_t{16} * (current_ % kWarp), mine, bytes);
    if (++warp.waiting == warp.lanes)
      release_warp(warp);
    else
      wait(Fiber::State::at_exchange);
    return parts.data();
  }

 private:
  static void enter();

  void wait(Fiber::State state) {
    Fiber& fiber = current();
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler_);
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
    current().state = Fiber::State::done;
    --alive_;
    if (alive_ > 0 && waiting_ == alive_) release_block();
  }

  void schedule(bool backwards) {
    bool progress = true;
    while (alive_ > 0) {
      require(progress, "emulator: the threads of a block wait for each other forever");
      progress = false;
      for (uint32_t i = 0; i < count_; ++i) {
        current_ = backwards ? count_ - 1 - i : i;
        if (current().state != Fiber::State::ready) continue;
        progress = true;
        swapcontext(&scheduler_, &current().context);
      }
    }
  }

  EmulatedKernel kernel_ = nullptr;
  const void* params_ = nullptr;
  ucontext_t scheduler_{};
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> shared_;
  uint32_t current_ = 0, count_ = 0, alive_ = 0, waiting_ = 0;
};

thread_local Block* running = nullptr;

void Block::enter() {
  running->kernel_(running->params_);
  running->finish();
}

void land(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
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

void nf_emulated_copy(void* to, const void* from, bool valid) {
  nf::cuda::Copy copy{to, {}};
  if (valid) std::memcpy(copy.bytes.data(), from, copy.bytes.size());
  nf::cuda::running->current().open_copies.push_back(copy);
}

void nf_emulated_commit() {
  nf::cuda::Fiber& fiber = nf::cuda::running->current();
  fiber.groups.push_back(std::move(fiber.open_copies));
  fiber.open_copies.clear();
}

void nf_emulated_wait(int pending) {
  auto& groups = nf::cuda::running->current().groups;
  for (; groups.size() > static_cast<size_t>(pending); groups.pop_front()) nf::cuda::land(groups.front());
}

uint16_t nf_emulated_to_f16(float x) { return nf::to_f16(x).bits; }
float nf_emulated_from_f16(uint16_t bits) { return nf::to_float(nf::f16{bits}); }
}
