// The CPU as a Device.
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/parallel.h"
#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/loop_jit.h"
#include "nf/device.h"

namespace nf {
namespace {

class CpuDevice : public Device {
 public:
  explicit CpuDevice(int threads) : threads_(threads > 0 ? threads : processor_count()) {
    cpu::cpu_features();
  }

  std::string_view name() const override { return "cpu"; }

  bool supports(const Graph& graph, const Node& node) const override {
    const cpu::Kernel* kernel = cpu::find_kernel(node.op);
    return kernel != nullptr && (kernel->supports == nullptr || kernel->supports(graph, node));
  }

  int64_t workspace(const Graph& graph, const Node& node) const override {
    const cpu::Kernel* kernel = cpu::find_kernel(node.op);
    return kernel == nullptr || kernel->workspace == nullptr
               ? 0
               : static_cast<int64_t>(kernel->workspace(graph, node, threads_));
  }

  Buffer allocate(int64_t bytes) const override { return allocate_host_memory(bytes); }

  double peak_flops(DType dtype) const override { return cpu::measure_peak_gflops(dtype, threads_) * 1e9; }

  std::vector<Launch> load(const BoundPlan& bound) const override {
    std::vector<Launch> launches;
    const Graph& graph = *bound.plan.graph;
    cpu::LoopCodes codes;
    Slabs slabs(*this);
    for (const Plan::Step& step : bound.plan.steps) {
      const Node& node = graph.node(step.node);
      const cpu::Kernel* kernel = cpu::find_kernel(node.op);
      require(kernel != nullptr, "cpu: {} in {} has no kernel", nf::name(node.op), graph.scope_name(node));
      cpu::BoundNode bound_node{graph, node, {}, {}, bound.workspace(), threads_, &codes, &slabs, {}};
      for (ValueId id : node.inputs) {
        bound_node.inputs.push_back(bound.view(id));
        bound_node.frozen.push_back(bound.is_frozen(id));
      }
      for (int32_t output = 0; output < static_cast<int32_t>(node.outputs.size()); ++output)
        bound_node.outputs.push_back(bound.view({step.node, output}));
      launches.push_back(kernel->bind(bound_node));
    }
    return launches;
  }

 private:
  int threads_;
};

}  // namespace

std::shared_ptr<const Device> cpu_device(int threads) { return std::make_shared<CpuDevice>(threads); }

}  // namespace nf
