// Runs a CUDA kernel on the host: the threads of a block are fibers that switch at barriers, shuffles and
// tensor-core instructions; blocks run one after another. Slow, deterministic, and strict where a GPU is
// lenient. An Error is thrown when
//  * two threads touch the same memory, one of them to write, and nothing orders them (judge.h);
//  * shared memory is read that the block has not written, or an address is not aligned as its access needs;
//  * a collective is not reached by all threads of its block or warp, those that have returned among them, or
//    names other lanes than all, or the lanes of a warp meet in different ones;
//  * a launch asks for more threads, blocks or shared memory than the GPU has.
// Arrays and dynamic shared memory begin as garbage. Asynchronous copies land only when they are waited for,
// and those whose end is an arrival at a barrier only when nobody can go on without; results of a warpgroup's
// products are NaNs until then (emulated_products.h).
#pragma once

#include <array>
#include <span>
#include <string>

#include "cuda/gpu.h"

namespace nf::cuda {

// In which blocks, and threads between two points where they come together, have their turns.
enum class Order : uint8_t {
  ascending,
  descending,
  random,
  torn  // as random, and any access to memory may end a thread's turn
};

constexpr std::array<Order, 4> kOrders = {Order::ascending, Order::descending, Order::random, Order::torn};

// An entry point compiled for the host.
struct EmulatedKernel {
  std::string name;
  void (*entry)(const void* params) = nullptr;   // `params` points to its parameter
  std::span<const unsigned char> static_shared;  // of all kernels compiled with it
};

void emulate(const EmulatedKernel& kernel, const LaunchShape& shape, const void* params, const GpuKind& kind,
             Order order);

}  // namespace nf::cuda
