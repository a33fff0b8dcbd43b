// Where graphs run.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "nf/compile.h"
#include "nf/graph.h"

namespace nf {

// Memory of a device, zeroed, aligned to at least 64 bytes; freed with its last owner.
using Buffer = std::shared_ptr<std::byte>;

// Zeroed host memory; throws Error when there is not enough. Pages appear when they are first written.
Buffer allocate_host_memory(int64_t bytes);

class Device;

// Cuts small buffers from large ones: fewer allocations, and huge pages. A slab lives as long as any buffer
// in it. For one thread; the device must outlive it.
class Slabs {
 public:
  explicit Slabs(const Device& device) : device_(device) {}

  // Zeroed, 64-byte aligned memory of the device.
  Buffer allocate(int64_t bytes);

 private:
  const Device& device_;
  Buffer slab_;
  int64_t used_ = 0;
};

// What a kernel sees of a tensor: memory it does not own, with any strides.
struct TensorView;

// A plan whose regions have addresses.
struct BoundPlan {
  const Plan& plan;
  std::byte* arena;
  std::byte* constants;
  std::vector<std::byte*> states;  // in the order of plan.states

  TensorView view(ValueId id) const;
  // Whether the value is (part of) a state that keeps its values: see CompileOptions::frozen.
  bool is_frozen(ValueId id) const;
  std::byte* workspace() const { return arena + plan.activation_bytes; }
};

// One step, ready to go: no arguments, no allocation.
using Launch = std::function<void()>;

// What a device has of its own, in bytes; 0: nothing, or not known.
struct DeviceMemory {
  int64_t total = 0, available = 0;
};

// Host memory that a device copies results into while the host goes on. Its copies happen in order with
// everything that the device does. The device must outlive it.
class Readback {
 public:
  virtual ~Readback() = default;

  // Begins to copy from the device's memory to `at`, an offset in bytes.
  virtual void read(int64_t at, int64_t bytes, const std::byte* from) = 0;
  // Waits for the copies begun so far, not for what was launched after them; throws Error if anything that
  // they waited for failed.
  virtual std::span<const std::byte> wait() = 0;
};

// A backend. Stateless apart from its settings, so that one device serves any number of executables and
// threads.
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string_view name() const = 0;
  // Whether a composite has a kernel here; otherwise the compiler replaces it by its decomposition.
  virtual bool supports(const Graph& graph, const Node& node) const = 0;
  // Scratch bytes of a node of a lowered graph. Depends on types and attributes alone.
  virtual int64_t workspace(const Graph& graph, const Node& node) const = 0;
  // Whether the device wants the graph as the user wrote it, pass by pass switched off.
  virtual bool unoptimized() const { return false; }
  virtual Buffer allocate(int64_t bytes) const = 0;

  // Of a device with memory of its own; the others live in the host's.
  virtual DeviceMemory memory() const { return {}; }
  // Whether the device's memory is the host's, to be read and written in place.
  virtual bool shares_host_memory() const { return true; }
  // Copies to and from the device's memory, in order with everything launched before and after.
  virtual void write(std::byte* to, std::span<const std::byte> from) const;
  virtual void read(std::span<std::byte> to, const std::byte* from) const;
  virtual std::unique_ptr<Readback> readback(int64_t bytes) const;
  // Waits until everything launched is done; throws Error if any of it failed.
  virtual void synchronize() const {}

  // FLOP/s of matrix products with operands of that dtype at the device's measured peak; 0: not known. Takes
  // about 20 ms.
  virtual double peak_flops(DType) const { return 0; }
  // The kernels of the plan's steps, bound to their addresses: one Launch per step, or one for everything.
  // Launches may return before they are done.
  virtual std::vector<Launch> load(const BoundPlan& bound) const = 0;
  // One launch that does what these do one after another.
  virtual Launch record(std::vector<Launch> launches) const;
};

// The CPU with that many threads; 0: as many as there are cores. Kernels are those that the processor knows
// and NF_ISA allows (portable, avx2, avx512, avx512_bf16), with machine code made as needed unless NF_JIT=0.
std::shared_ptr<const Device> cpu_device(int threads = 0);

// The GPU with that number, as the CUDA runtime counts. Planning needs none: it is opened when memory is
// first asked for, and Error says then that there is none or what its driver lacks; now, that this build has
// no CUDA.
std::shared_ptr<const Device> cuda_device(int ordinal = 0);

// Double precision, naive, obviously right: the truth that the others are measured against. Tensors that
// outlive a run are stored in their own dtypes.
std::shared_ptr<const Device> reference_device();

}  // namespace nf
