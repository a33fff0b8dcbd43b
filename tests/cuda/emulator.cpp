#include "tests/cuda/emulator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <new>
#include <numeric>
#include <utility>

#include "nf/error.h"
#include "tests/cuda/emulated.h"
#include "tests/cuda/emulated_products.h"
#include "tests/cuda/fiber.h"
#include "tests/cuda/judge.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace nf::cuda {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr uint32_t kWarp = 32;
constexpr uint32_t kGarbage = 0xFFFFFFFF;  // a NaN, as one float or two of 16 bits

// The most dynamic shared memory of a block.
uint32_t most_shared_bytes(const GpuKind& kind) {
  if (kind.capability >= 90) return 227 << 10;
  return (kind.capability == 80 ? 163 : 99) << 10;
}

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t below(uint32_t end) { return static_cast<uint32_t>((next() >> 32) * end >> 32); }

 private:
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }
  uint64_t state_;
};

// The numbers below `count` as that order has them.
void put_in_order(std::vector<uint32_t>& numbers, uint32_t count, Order order, Random& random) {
  numbers.resize(count);
  std::iota(numbers.begin(), numbers.end(), 0U);
  if (order == Order::ascending) return;
  if (order == Order::descending) return std::reverse(numbers.begin(), numbers.end());
  for (uint32_t i = count; i > 1; --i) std::swap(numbers[i - 1], numbers[random.below(i)]);
}

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
  Context context;
  std::vector<Copy> open_copies;              // not in a group yet
  std::deque<std::vector<Copy>> groups = {};  // under way, oldest first
  uint64_t known = 0;                         // shared memory written by then its products may read
  const Phases* barrier = nullptr;            // at_phase: waits until the latest phase of `parity` is over
  uint32_t parity = 0;

  bool can_go_on() const {
    return state == State::ready || (state == State::at_phase && barrier->phase % 2 != parity);
  }
};

// A barrier of some of a block's threads.
struct PartBarrier {
  uint32_t threads = 0, arrived = 0;
  std::vector<uint32_t> waiting = {};
};

struct Warp {
  uint32_t lanes = 0, waiting = 0;
  EmulatedCollective kind = kSyncWarp;  // that its lanes wait at
  uint64_t turn = 0;
  alignas(16) std::array<std::array<unsigned char, size_t{16} * kWarp>, 2> parts{};
  WarpProducts products = {};
};

class Block {
 public:
  void begin(const EmulatedKernel& kernel, const LaunchShape& shape, const void* params, Order order) {
    kernel_ = &kernel;
    shape_ = shape;
    params_ = params;
    order_ = order;
    count_ = shape.threads;
    while (fibers_.size() < count_) fibers_.push_back(std::make_unique<Fiber>());
    if (stacks_.size() < count_ * kStackBytes) stacks_ = std::vector<unsigned char>(count_ * kStackBytes);
    memory_bytes_.resize(shape.shared_bytes + 1024);
    judge_.begin_launch();
  }

  void run(Dim index, Random& random) {
    index_ = index;
    random_ = &random;
    begin_memory();
    copies_.clear();
    part_barriers_ = {};
    alive_ = count_;
    waiting_ = 0;
    warps_.assign((count_ + kWarp - 1) / kWarp, {});
    for (uint32_t i = 0; i < count_; ++i) begin_thread(i);
    judge_.begin_block(count_);
    put_in_order(turns_, count_, order_, random);
    schedule();
  }

  Fiber& current() { return *fibers_[current_]; }
  Warp& warp() { return warps_[current_ / kWarp]; }
  SharedMemory& memory() { return memory_; }
  uint32_t thread() const { return current_; }
  uint64_t clock() const { return clock_; }
  Dim index() const { return index_; }
  const LaunchShape& shape() const { return shape_; }

  void barrier() {
    if (++waiting_ == count_) return release_block();
    wait(Fiber::State::at_barrier);
  }

  const unsigned char* exchange(EmulatedCollective kind, unsigned mask, const void* mine, unsigned bytes) {
    Warp& warp = this->warp();
    if (warp.waiting == 0) warp.kind = kind;
    require(mask == ~0U && warp.lanes == kWarp, "emulator: {}: a collective of lanes {:08x} of {}",
            kernel_->name, mask, warp.lanes);
    require(warp.kind == kind, "emulator: {}: the lanes of a warp meet in different collectives",
            kernel_->name);
    auto& parts = warp.parts[warp.turn % 2];
    if (bytes > 0) std::memcpy(parts.data() + size_t{16} * (current_ % kWarp), mine, bytes);
    if (++warp.waiting == warp.lanes)
      release_warp(warp);
    else
      wait(Fiber::State::at_exchange);
    return parts.data();
  }

  void arrive(Phases* barrier) {
    judge_.give(current_, barrier);
    barrier->arrive();
  }

  void wait_phase(const Phases* barrier, uint32_t parity) {
    current().barrier = barrier;
    current().parity = parity;
    wait(Fiber::State::at_phase);
    judge_.take(current_, barrier);
  }

  void part_barrier(int number, uint32_t threads) {
    if (!count_at_part_barrier(number, threads, true)) wait(Fiber::State::at_part_barrier);
  }
  // Counts the thread; true when it is the last of `threads`.
  bool count_at_part_barrier(int number, uint32_t threads, bool waits) {
    PartBarrier& barrier = part_barriers_.at(static_cast<size_t>(number));
    require(number > 0 && threads % kWarp == 0, "emulator: a barrier {} of {} threads", number, threads);
    require(barrier.arrived == 0 || barrier.threads == threads,
            "emulator: a barrier of {} threads that others count as {}", threads, barrier.threads);
    barrier.threads = threads;
    judge_.give(current_, &barrier);
    if (waits) barrier.waiting.push_back(current_);
    if (++barrier.arrived < threads) return false;
    for (uint32_t thread : barrier.waiting) {
      judge_.take(thread, &barrier);
      fibers_[thread]->state = Fiber::State::ready;
    }
    judge_.forget(&barrier);
    barrier = {};
    return true;
  }

  // An access that is about to happen.
  void touch(const void* address, uint32_t bytes, Access kind) {
    if (is_in(stacks_, static_cast<const unsigned char*>(address))) return;
    judge(address, bytes, kind);
    if (order_ == Order::torn && random_->below(kMeanTurn) == 0) wait(Fiber::State::ready);
  }

  void judge(const void* address, uint32_t bytes, Access kind) {
    const auto* at = static_cast<const unsigned char*>(address);
    const bool is_shared = is_in(memory_bytes_, at) || is_in(kernel_->static_shared, at);
    if (const char* wrong = judge_.access(current_, address, bytes, kind, is_shared))
      refuse(fmt::format("{} {} bytes of {} memory {}", kind == Access::read ? "reads" : "writes", bytes,
                         is_shared ? "shared" : "global", wrong));
  }

  // Ends the block: from where the thread is, no exception can leave.
  void refuse(const std::string& what) {
    failure_ = std::make_exception_ptr(
        Error(fmt::format("emulator: {}: thread {} of block {}, {}, {} {}", kernel_->name, current_, index_.x,
                          index_.y, index_.z, what)));
    wait(Fiber::State::done);
  }

  void arrive_after_copies(Phases* barrier) {
    judge_.give(current_, barrier);
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
  static constexpr uint32_t kMeanTurn = 8;  // accesses

  static void enter();
  void run_thread();

  template <typename Bytes>
  static bool is_in(const Bytes& bytes, const unsigned char* at) {
    return at >= bytes.data() && at < bytes.data() + bytes.size();
  }

  void begin_memory() {
    std::memset(memory_bytes_.data(), kGarbage & 0xFF, memory_bytes_.size());
    const auto address = (reinterpret_cast<uintptr_t>(memory_bytes_.data()) + 1023) / 1024 * 1024;
    memory_ = {reinterpret_cast<unsigned char*>(address),
               std::vector<uint64_t>((shape_.shared_bytes + 15) / 16),
               [this](const void* at, uint32_t bytes) { judge(at, bytes, Access::read); }};
    clock_ = 0;
  }

  void begin_thread(uint32_t i) {
    Fiber& fiber = *fibers_[i];
    fiber.state = Fiber::State::ready;
    fiber.open_copies.clear();
    fiber.groups.clear();
    fiber.known = 0;
    ++warps_[i / kWarp].lanes;
    fiber.context.begin({stacks_.data() + i * kStackBytes, kStackBytes}, &Block::enter);
  }

  void wait(Fiber::State state) {
    Fiber& fiber = current();
    fiber.state = state;
    Context::go(fiber.context, scheduler_);
  }

  void release_block() {
    waiting_ = 0;
    judge_.barrier();
    for (uint32_t i = 0; i < count_; ++i)
      if (fibers_[i]->state == Fiber::State::at_barrier) fibers_[i]->state = Fiber::State::ready;
  }

  void release_warp(Warp& warp) {
    warp.waiting = 0;
    ++warp.turn;
    const uint32_t first = static_cast<uint32_t>(&warp - warps_.data()) * kWarp;
    if (warp.kind == kSyncWarp) judge_.sync_warp(first, kWarp);
    for (uint32_t i = first; i < std::min(first + kWarp, count_); ++i)
      if (fibers_[i]->state == Fiber::State::at_exchange) fibers_[i]->state = Fiber::State::ready;
  }

  void finish() {
    if (!failure_ && has_copies())
      failure_ = std::make_exception_ptr(Error("emulator: a thread ends amid its copies"));
    current().state = Fiber::State::done;
    --alive_;
  }

  bool has_copies() {
    return !current().open_copies.empty() ||
           std::any_of(current().groups.begin(), current().groups.end(),
                       [](const auto& group) { return !group.empty(); }) ||
           std::any_of(copies_.begin(), copies_.end(),
                       [&](const CopiesToArrive& c) { return c.thread == current_; });
  }

  void schedule() {
    bool progress = true;
    while (alive_ > 0) {
      if (!progress) land_some();
      progress = false;
      for (uint32_t i : turns_) {
        current_ = i;
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
  void land_some() {
    require(!copies_.empty(), "emulator: {}: the threads of a block wait for each other forever",
            kernel_->name);
    const auto at = order_ == Order::ascending ? copies_.begin() : copies_.end() - 1;
    land(at->copies);
    at->barrier->arrive();
    copies_.erase(at);
  }

  const EmulatedKernel* kernel_ = nullptr;
  LaunchShape shape_;
  const void* params_ = nullptr;
  Order order_ = Order::ascending;
  Random* random_ = nullptr;
  Dim index_{};
  Judge judge_;
  Context scheduler_;
  std::exception_ptr failure_;  // what a thread threw
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> turns_;
  std::vector<unsigned char> stacks_, memory_bytes_;
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
    kernel_->entry(params_);
  } catch (...) {
    failure_ = std::current_exception();
  }
  finish();
  Context::leave(current().context, scheduler_);
}

}  // namespace

void emulate(const EmulatedKernel& kernel, const LaunchShape& shape, const void* params, const GpuKind& kind,
             Order order) {
  require(shape.threads >= 1 && shape.threads <= 1024 && shape.grid_x >= 1 && shape.grid_y >= 1 &&
              shape.grid_z >= 1 && shape.grid_x < 1U << 31 && shape.grid_y <= 65535 && shape.grid_z <= 65535,
          "emulator: a launch of {} x {} x {} blocks of {} threads", shape.grid_x, shape.grid_y, shape.grid_z,
          shape.threads);
  require(shape.shared_bytes <= most_shared_bytes(kind), "emulator: a block with {} bytes of shared memory",
          shape.shared_bytes);
  thread_local Block block;
  thread_local uint64_t launches = 0;
  Random random(++launches);
  running = &block;
  block.begin(kernel, shape, params, order);
  std::vector<uint32_t> blocks;
  put_in_order(blocks, shape.grid_x * shape.grid_y * shape.grid_z, order, random);
  for (uint32_t i : blocks)
    block.run({i % shape.grid_x, i / shape.grid_x % shape.grid_y, i / shape.grid_x / shape.grid_y}, random);
}

}  // namespace nf::cuda

extern "C" {

Dim nf_emulated_thread() { return {nf::cuda::running->thread(), 0, 0}; }
Dim nf_emulated_block() { return nf::cuda::running->index(); }
Dim nf_emulated_block_size() { return {nf::cuda::running->shape().threads, 1, 1}; }
Dim nf_emulated_grid_size() {
  const nf::cuda::LaunchShape& shape = nf::cuda::running->shape();
  return {shape.grid_x, shape.grid_y, shape.grid_z};
}
unsigned char* nf_emulated_dynamic_shared() { return nf::cuda::running->memory().data; }

void nf_emulated_barrier() { nf::cuda::running->barrier(); }

const unsigned char* nf_emulated_exchange(EmulatedCollective kind, unsigned mask, const void* mine,
                                          unsigned bytes) {
  return nf::cuda::running->exchange(kind, mask, mine, bytes);
}

void nf_emulated_read(const void* address, unsigned bytes) {
  nf::cuda::running->touch(address, bytes, nf::cuda::Access::read);
}
void nf_emulated_write(const void* address, unsigned bytes) {
  nf::cuda::running->touch(address, bytes, nf::cuda::Access::write);
}
void nf_emulated_atomic(const void* address, unsigned bytes) {
  nf::cuda::running->touch(address, bytes, nf::cuda::Access::atomic);
}
void nf_emulated_misaligned(const void* address, unsigned bytes) {
  nf::cuda::running->refuse(fmt::format("touches {}, which is no multiple of {}", address, bytes));
}

void nf_emulated_copy(void* to, const void* from, unsigned bytes, bool valid) {
  nf::cuda::Copy copy{to, bytes, {}};
  for (const void* address : {static_cast<const void*>(to), from})
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) nf_emulated_misaligned(address, bytes);
  if (valid) nf_emulated_read(from, bytes);
  nf_emulated_write(to, bytes);
  if (valid) std::memcpy(copy.bytes.data(), from, bytes);
  nf::cuda::running->current().open_copies.push_back(copy);
}

void nf_emulated_commit() {
  nf::cuda::Fiber& fiber = nf::cuda::running->current();
  fiber.groups.push_back(std::move(fiber.open_copies));
  fiber.open_copies.clear();
}

void nf_emulated_wait(int pending) {
  auto& groups = nf::cuda::running->current().groups;
  for (; groups.size() > static_cast<size_t>(pending); groups.pop_front()) {
    for (const nf::cuda::Copy& copy : groups.front()) nf_emulated_write(copy.to, copy.count);
    nf::cuda::running->land(groups.front());
  }
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
  nf_emulated_exchange(kProduct, ~0U, nullptr, 0);  // all lanes' products have been begun
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
    nf::cuda::running->arrive(phases);
}

void nf_emulated_wait_phase(const uint64_t* barrier, uint32_t parity) {
  nf::cuda::running->wait_phase(reinterpret_cast<const nf::cuda::Phases*>(barrier), parity);
}

void nf_emulated_sync_threads(int barrier, int threads) {
  nf::cuda::running->part_barrier(barrier, static_cast<uint32_t>(threads));
}

void nf_emulated_arrive_threads(int barrier, int threads) {
  nf::cuda::running->count_at_part_barrier(barrier, static_cast<uint32_t>(threads), false);
}

uint16_t nf_emulated_to_f16(float x) { return nf::to_f16(x).bits; }
float nf_emulated_from_f16(uint16_t bits) { return nf::to_float(nf::f16{bits}); }
}
