// A GPU as a Device.
#include <mutex>

#include "cuda/gpu.h"
#include "cuda/kernels.h"

namespace nf::cuda {
namespace {

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

  bool shares_host_memory() const override { return false; }
  Buffer allocate(int64_t bytes) const override { return gpu().allocate(bytes); }
  void write(std::byte* to, std::span<const std::byte> from) const override { gpu().write(to, from); }
  void read(std::span<std::byte> to, const std::byte* from) const override { gpu().read(to, from); }
  void synchronize() const override { gpu().synchronize(); }

  std::vector<Launch> load(const BoundPlan& bound) const override {
    const Graph& graph = *bound.plan.graph;
    KernelLibrary library(shared_gpu());
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
    return launches;
  }

  Launch record(std::vector<Launch> launches) const override { return gpu().record(std::move(launches)); }

 private:
  const std::shared_ptr<Gpu>& shared_gpu() const {
    std::call_once(opened_, [this] { gpu_ = open_(); });
    return gpu_;
  }
  Gpu& gpu() const { return *shared_gpu(); }

  std::function<std::shared_ptr<Gpu>()> open_;
  mutable std::once_flag opened_;
  mutable std::shared_ptr<Gpu> gpu_;
};

}  // namespace

std::shared_ptr<const Device> gpu_device(std::function<std::shared_ptr<Gpu>()> open) {
  return std::make_shared<GpuDevice>(std::move(open));
}

}  // namespace nf::cuda
