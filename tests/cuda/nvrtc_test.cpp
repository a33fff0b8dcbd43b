// The kernels that the models' steps ask for, compiled by NVRTC as on a GPU: no errors, and nothing that a
// thread keeps falls out of its registers into memory.
#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "cuda/kernels.h"
#include "cuda/kernels/cross_entropy_params.h"
#include "models/training_step.h"
#include "nf/executable.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/cuda/recording_gpu.h"

#if NF_HAVE_NVRTC
#include "cuda/compiler.h"
#endif

using namespace nf;

namespace {

// What the five models ask for as they are shipped, of two layers: training, evaluation, updates.
std::map<std::string, cuda::KernelSource> kernels_of_models(const cuda::GpuKind& kind) {
  const auto gpu = std::make_shared<cuda::RecordingGpu>(kind);
  const auto device = cuda::gpu_device([&] { return gpu; });
  for (const char* variant : {"mha", "gqa", "diff", "ngpt", "mla"})
    for (const DType compute : {DType::bf16, DType::f32}) {
      if (compute == DType::f32 && std::string(variant) != "ngpt") continue;  // one is enough
      ModelConfig config = load_config(variant).model;
      config.num_hidden_layers = 2;
      config.vocab_size = 4096;
      const auto state = std::make_shared<State>(device);
      const ModelOptions options{.batch = 16, .length = 256, .compute = compute};
      MicroStepOptions micro;
      micro.model = options;
      micro.model.training = true;
      compile(*micro_step(config, micro), state);
      micro.accumulate = true;
      compile(*micro_step(config, micro), state);
      compile(*eval_step(config, options), state);
      compile(*update_step(config, {}, compute), state);
    }
  return gpu->kernels();
}

// Attention with what costs most registers: wide heads, and all masks at once.
std::map<std::string, cuda::KernelSource> kernels_of_attention(const cuda::GpuKind& kind) {
  const auto gpu = std::make_shared<cuda::RecordingGpu>(kind);
  const auto device = cuda::gpu_device([&] { return gpu; });
  for (const int64_t width : {64, 128})
    for (const bool is_simple : {true, false}) {
      Graph graph;
      const auto tensor = [&](const char* name) {
        return input(graph, name, DType::bf16, {1, 512, 2, width});
      };
      const Values wrt{tensor("q"), tensor("k"), tensor("v")};
      AttentionOptions options{.scale = 0.1};
      if (!is_simple) {
        options.cap = 30;
        options.cap_type = CapType::soft;
        options.window = 100;
        options.q_documents = options.k_documents = input(graph, "documents", DType::i32, {1, 512});
      }
      const Value out = attention(wrt[0], wrt[1], wrt[2], options);
      int i = 0;
      for (const Value& grad : gradients(sum(cast(out, DType::f32)), wrt))
        graph.output(std::to_string(i++), grad);
      compile(graph, std::make_shared<State>(device));
    }
  return gpu->kernels();
}

// The loss with what costs most registers.
std::map<std::string, cuda::KernelSource> kernels_of_losses(const cuda::GpuKind& kind) {
  const auto gpu = std::make_shared<cuda::RecordingGpu>(kind);
  const auto device = cuda::gpu_device([&] { return gpu; });
  for (const DType dtype : {DType::bf16, DType::f32})
    for (const CapType cap : {CapType::soft, CapType::hard}) {
      Graph graph;
      const Value hidden = input(graph, "hidden", dtype, {64, 64}),
                  weight = input(graph, "weight", dtype, {512, 64}),
                  targets = input(graph, "targets", DType::i32, {64}),
                  scale = input(graph, "scale", DType::f32, {512});
      const Values wrt{hidden, weight, scale};
      const Value loss = linear_cross_entropy(hidden, weight, targets,
                                              {.logit_scale = 0.5,
                                               .cap = 30,
                                               .cap_type = cap,
                                               .z_loss = 1e-4,
                                               .vocab_size = 500,
                                               .scale = scale});
      int i = 0;
      for (const Value& grad : gradients(sum(loss), wrt)) graph.output(std::to_string(i++), grad);
      compile(graph, std::make_shared<State>(device));
    }
  return gpu->kernels();
}

// Of tensors that no test could hold, whose positions have 64 bits. Nothing is launched: each has an address
// of its own where there is no memory.
std::map<std::string, cuda::KernelSource> kernels_of_large_tensors(const cuda::GpuKind& kind) {
  const auto gpu = std::make_shared<cuda::RecordingGpu>(kind);
  const auto device = cuda::gpu_device([&] { return gpu; });
  Graph graph;
  const int64_t count = int64_t{1} << 25, width = 2048;
  const Value table = input(graph, "table", DType::bf16, {1000, width}),
              ids = input(graph, "ids", DType::i32, {count}),
              x = input(graph, "x", DType::bf16, {count, width});
  graph.output("rows", embedding(table, ids));
  graph.output("twice", concat({x, x}, 1));
  const Value y = cast(x, DType::f32);
  graph.output("map", cast(input(graph, "z", DType::f32, {width, count}) * 2.0, DType::bf16));
  graph.output("softmax", softmax(y));
  graph.output("sum", reduce_sum(y, {0}));
  const Plan planned = plan(graph, *device);
  const Graph& lowered = *planned.graph;
  cuda::KernelLibrary library(gpu, planned.steps.size());
  std::map<std::pair<int32_t, int32_t>, uintptr_t> addresses;
  const auto view = [&](ValueId id) {
    const TensorType& type = lowered.type(id);
    const auto place = addresses.emplace(std::pair(id.node, id.output), (addresses.size() + 1) << 44).first;
    return TensorView{reinterpret_cast<std::byte*>(place->second), type.dtype, type.shape,
                      dense_strides(type.shape)};
  };
  for (const Plan::Step& step : planned.steps) {
    const Node& node = lowered.node(step.node);
    cuda::BoundNode bound{lowered, node, {}, {}, nullptr, library};
    for (const ValueId id : node.inputs) bound.inputs.push_back(view(id));
    for (int32_t i = 0; i < static_cast<int32_t>(node.outputs.size()); ++i)
      bound.outputs.push_back(view({step.node, i}));
    cuda::find_kernel(node.op)->bind(bound);
  }
  library.compile();
  return gpu->kernels();
}

#if NF_HAVE_NVRTC

// What the machine code (an ELF file with one kernel) says of itself in its section .nv.info.
struct Needs {
  uint32_t registers = 0, frame_bytes = 0;
};
constexpr uint32_t kProcessorRegisters = 1 << 16;  // threads get theirs by eights
template <typename T>
T at(const std::string& bytes, size_t offset) {
  T value{};
  REQUIRE(offset + sizeof(T) <= bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}
Needs needs_of(const std::string& code) {
  constexpr uint8_t kSized = 4, kFrameSize = 0x11,
                    kRegisters = 0x2f;  // of an attribute: its format, its kind
  Needs needs;
  const auto sections = at<uint64_t>(code, 0x28);
  const auto size = at<uint16_t>(code, 0x3A), count = at<uint16_t>(code, 0x3C),
             names = at<uint16_t>(code, 0x3E);
  const auto name_table = at<uint64_t>(code, sections + size_t{names} * size + 0x18);
  for (size_t i = 0; i < count; ++i) {
    const size_t section = sections + i * size;
    if (std::string(code.c_str() + name_table + at<uint32_t>(code, section)) != ".nv.info") continue;
    const auto begin = at<uint64_t>(code, section + 0x18), bytes = at<uint64_t>(code, section + 0x20);
    for (size_t entry = begin; entry + 4 <= begin + bytes;) {
      const auto format = at<uint8_t>(code, entry), kind = at<uint8_t>(code, entry + 1);
      const auto length = at<uint16_t>(code, entry + 2);
      if (format == kSized && kind == kFrameSize) needs.frame_bytes = at<uint32_t>(code, entry + 8);
      if (format == kSized && kind == kRegisters) needs.registers = at<uint32_t>(code, entry + 8);
      entry += size_t{4} + (format == kSized ? length : 0);
    }
  }
  return needs;
}

#endif

}  // namespace

TEST_CASE("cuda: NVRTC compiles the kernels of the models' steps, and no thread needs memory of its own") {
  for (const auto& [architecture, kind] : {std::pair{"sm_80", cuda::GpuKind{.capability = 80}},
                                           std::pair{"sm_90a", cuda::GpuKind{.capability = 90}}}) {
    CAPTURE(architecture);
    std::map<std::string, cuda::KernelSource> kernels = kernels_of_models(kind);
    CHECK(kernels.size() > 50);
    for (const int processors : {1, 132}) {  // many lots for each, and few
      cuda::GpuKind other = kind;
      other.processors = processors;
      kernels.merge(kernels_of_attention(other));
    }
    std::map<std::string, cuda::KernelSource> large = kernels_of_large_tensors(kind);
    CHECK(large.size() == 5);  // two copies, a map, a loop of rows with the sums of columns, and their end
    for (const auto& [name, source] : large) {
      CAPTURE(source.text);
      CHECK((source.text.find(", uint64_t>(") != std::string::npos ||
             source.text.find("using Index = int64_t;") != std::string::npos));
    }
    kernels.merge(large);
    kernels.merge(kernels_of_losses(kind));
#if NF_HAVE_NVRTC
    std::vector<cuda::KernelSource> sources;
    for (const auto& [name, source] : kernels) sources.push_back(source);
    const std::vector<std::string> codes = cuda::compile_kernels(sources, architecture);
    for (size_t i = 0; i < codes.size(); ++i) {
      const Needs needs = needs_of(codes[i]);
      CAPTURE(sources[i].text);
      CHECK(needs.registers > 0);
      CHECK(needs.frame_bytes == 0);
      if (sources[i].name.starts_with("cross_entropy"))
        CHECK((needs.registers + 7) / 8 * 8 * cuda::kLossThreads * cuda::kLossBlocks <= kProcessorRegisters);
    }
#else
    MESSAGE("there is no CUDA toolkit: the kernels were not compiled");
#endif
  }
}
