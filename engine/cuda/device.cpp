// A GPU as a Device.
#include <algorithm>
#include <chrono>
#include <mutex>
#include <random>

#include "cuda/gpu.h"
#include "cuda/kernels.h"

namespace nf::cuda {
namespace {

// Numbers near one in size: a GPU multiplies zeros faster than anything else.
void fill_randomly(Gpu& gpu, std::byte* to, int64_t bytes, DType dtype) {
  std::vector<float> wide(1 << 18);
  std::minstd_rand random;
  for (float& x : wide)
    x = 2.0F * static_cast<float>(random()) / static_cast<float>(std::minstd_rand::max()) - 1.0F;
  std::vector<bf16> narrow;
  for (float x : wide) narrow.push_back(to_bf16(x));
  const std::span<const std::byte> part =
      dtype == DType::bf16 ? std::as_bytes(std::span(narrow)) : std::as_bytes(std::span(wide));
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(part.size())) gpu.write(to + at, part);
}

// Of a large product.
double measure_peak_flops(Gpu& gpu, DType dtype) {
  const int64_t n = dtype == DType::bf16 ? 8192 : 4096;
  constexpr int kRuns = 5;
  const MatrixLayout layout{dtype, n, 1};
  const Buffer a = gpu.allocate(n * n * size_of(dtype)), b = gpu.allocate(n * n * size_of(dtype)),
               c = gpu.allocate(n * n * size_of(dtype)), workspace = gpu.allocate(Gpu::kProductWorkspace);
  fill_randomly(gpu, a.get(), n * n * size_of(dtype), dtype);
  fill_randomly(gpu, b.get(), n * n * size_of(dtype), dtype);
  const Launch multiply = gpu.product({.m = n, .n = n, .k = n, .a = layout, .b = layout, .c = layout},
                                      a.get(), b.get(), c.get(), workspace.get());
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    gpu.synchronize();
    const auto start = std::chrono::steady_clock::now();
    multiply();
    gpu.synchronize();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / time.count());
  }
  return best;
}

// Launches of which the first run is as they are, and all later ones are a recording. Libraries load what a
// product needs when they first do it, which a recording is no place for; and while the GPU is busy with that
// run, recording costs nothing. An Error of the recording comes when that run has been done.
class Recorded {
 public:
  Recorded(std::shared_ptr<Gpu> gpu, std::vector<Launch> launches)
      : gpu_(std::move(gpu)), launches_(std::move(launches)) {}

  void run() {
    if (recording_) return recording_();
    for (const Launch& launch : launches_) launch();
    recording_ = gpu_->record(launches_);
    launches_.clear();
  }

 private:
  std::shared_ptr<Gpu> gpu_;
  std::vector<Launch> launches_;
  Launch recording_;
};

// Looks for faults of the kernels when it has waited for them.
class CheckedReadback : public Readback {
 public:
  CheckedReadback(std::unique_ptr<Readback> readback, std::function<void()> check)
      : readback_(std::move(readback)), check_(std::move(check)) {}

  void read(int64_t at, int64_t bytes, const std::byte* from) override { readback_->read(at, bytes, from); }
  std::span<const std::byte> wait() override {
    const std::span<const std::byte> bytes = readback_->wait();
    check_();
    return bytes;
  }

 private:
  std::unique_ptr<Readback> readback_;
  std::function<void()> check_;
};

class GpuDevice : public Device {
 public:
  explicit GpuDevice(std::function<std::shared_ptr<Gpu>()> open) : open_(std::move(open)) {}

  std::string_view name() const override { return "cuda"; }

  bool supports(const Graph& graph, const Node& node) const override {
    const Kernel* kernel = find_kernel(node.op);
    return kernel != nullptr && (kernel->supports == nullptr || kernel->supports(graph, node));
  }

  int64_t workspace(const Graph& graph, const Node& node) const override {
    const Kernel* kernel = find_kernel(node.op);
    return kernel == nullptr || kernel->workspace == nullptr ? 0 : kernel->workspace(graph, node);
  }

  DeviceMemory memory() const override { return has_gpu() ? gpu().memory() : DeviceMemory{}; }
  double peak_flops(DType dtype) const override {
    if (!has_gpu()) return 0;
    try {
      return measure_peak_flops(gpu(), dtype);
    } catch (const Error&) {
      return 0;  // a run may have left too little memory for it; what else is wrong shows in its next step
    }
  }
  bool shares_host_memory() const override { return false; }
  Buffer allocate(int64_t bytes) const override { return gpu().allocate(bytes); }
  void write(std::byte* to, std::span<const std::byte> from) const override { gpu().write(to, from); }
  void read(std::span<std::byte> to, const std::byte* from) const override {
    gpu().read(to, from);
    check_faults();
  }
  std::unique_ptr<Readback> readback(int64_t bytes) const override {
    return std::make_unique<CheckedReadback>(gpu().readback(bytes), [this] { check_faults(); });
  }
  void synchronize() const override {
    gpu().synchronize();
    check_faults();
  }

  std::vector<Launch> load(const BoundPlan& bound) const override {
    const Graph& graph = *bound.plan.graph;
    KernelLibrary library(shared_gpu(), bound.plan.steps.size());
    std::vector<Launch> launches;
    for (const Plan::Step& step : bound.plan.steps) {
      const Node& node = graph.node(step.node);
      const Kernel* kernel = find_kernel(node.op);
      require(kernel != nullptr, "cuda: {} in {} has no kernel", nf::name(node.op), graph.scope_name(node));
      BoundNode bound_node{graph, node, {}, {}, bound.workspace(), library};
      for (ValueId id : node.inputs) bound_node.inputs.push_back(bound.view(id));
      for (int32_t output = 0; output < static_cast<int32_t>(node.outputs.size()); ++output)
        bound_node.outputs.push_back(bound.view({step.node, output}));
      launches.push_back(kernel->bind(bound_node));
    }
    library.compile();
    if (!library.faults()->empty()) watch(library.faults(), launches.front());
    return launches;
  }

  Launch record(std::vector<Launch> launches) const override {
    return [recorded = std::make_shared<Recorded>(shared_gpu(), std::move(launches))] { recorded->run(); };
  }

 private:
  // Looks at these whenever the device has been waited for, for as long as the launch lives.
  void watch(std::shared_ptr<Faults> faults, Launch& launch) const {
    const std::lock_guard lock(watched_mutex_);
    watched_.push_back(faults);
    launch = [faults = std::move(faults), launch = std::move(launch)] { launch(); };
  }
  void check_faults() const {
    const std::lock_guard lock(watched_mutex_);
    std::erase_if(watched_, [](const std::weak_ptr<Faults>& faults) { return faults.expired(); });
    for (const std::weak_ptr<Faults>& watched : watched_)
      if (const std::shared_ptr<Faults> faults = watched.lock()) faults->check();
  }

  const std::shared_ptr<Gpu>& shared_gpu() const {
    std::call_once(opened_, [this] { gpu_ = open_(); });
    return gpu_;
  }
  Gpu& gpu() const { return *shared_gpu(); }
  bool has_gpu() const {
    try {
      return shared_gpu() != nullptr;
    } catch (const Error&) {
      return false;
    }
  }

  std::function<std::shared_ptr<Gpu>()> open_;
  mutable std::once_flag opened_;
  mutable std::shared_ptr<Gpu> gpu_;
  mutable std::mutex watched_mutex_;
  mutable std::vector<std::weak_ptr<Faults>> watched_;
};

}  // namespace

std::shared_ptr<const Device> gpu_device(std::function<std::shared_ptr<Gpu>()> open) {
  return std::make_shared<GpuDevice>(std::move(open));
}

}  // namespace nf::cuda
