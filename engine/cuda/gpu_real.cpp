// The GPU itself, by the CUDA runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>

#include "cuda/compiler.h"
#include "cuda/cublas.h"
#include "cuda/gpu.h"
#include "nf/error.h"

namespace nf::cuda {
namespace {

constexpr int kOldestToolkit = 12080;  // as third_party/CMakeLists.txt asks for
constexpr int kOldestMajor = 8;        // sm_80: asynchronous copies and bf16 tensor cores

void check(cudaError_t result, std::string_view what) {
  if (result != cudaSuccess) fail("cuda: cannot {}: {}", what, cudaGetErrorString(result));
}

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

cudaDeviceProp open_gpu(int ordinal) {
  int count = 0, driver = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaErrorInsufficientDriver) {
    check(cudaDriverGetVersion(&driver), "ask for the driver's version");
    require(driver != 0, "cuda: there is no NVIDIA driver on this machine: use --device cpu");
    fail("cuda: the driver knows CUDA {}, this program needs {}: update the driver{}, or use --device cpu",
         version_text(driver), version_text(CUDART_VERSION),
         driver >= kOldestToolkit ? ", build this with a toolkit of that version" : "");
  }
  require(result != cudaErrorNoDevice && (result != cudaSuccess || count > 0),
          "cuda: there is no GPU on this machine: use --device cpu");
  check(result, "look for a GPU");
  require(ordinal >= 0 && ordinal < count, "cuda: there is no GPU {}: they are counted from 0 to {}", ordinal,
          count - 1);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "ask what the GPU is");
  require(properties.major >= kOldestMajor, "cuda: {} is of compute capability {}.{}, and 8.0 is needed",
          properties.name, properties.major, properties.minor);
  check(cudaSetDevice(ordinal), "take the GPU");
  return properties;
}

// "sm_90a": with what only that architecture has.
std::string architecture_of(const cudaDeviceProp& properties) {
  return fmt::format("sm_{}{}{}", properties.major, properties.minor, properties.major >= 9 ? "a" : "");
}

// Page-locked, at the same address for both.
Buffer host_memory(int64_t bytes) {
  void* address = nullptr;
  check(cudaHostAlloc(&address, static_cast<size_t>(std::max<int64_t>(bytes, 1)), cudaHostAllocDefault),
        "allocate page-locked memory");
  std::memset(address, 0, static_cast<size_t>(bytes));
  return {static_cast<std::byte*>(address), [](std::byte* p) { cudaFreeHost(p); }};
}

using Stream = std::shared_ptr<CUstream_st>;
using Event = std::shared_ptr<CUevent_st>;

Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  return {stream, [](cudaStream_t s) { cudaStreamDestroy(s); }};
}

Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
  return {event, [](cudaEvent_t e) { cudaEventDestroy(e); }};
}

class PinnedReadback : public Readback {
 public:
  PinnedReadback(Stream stream, int64_t bytes)
      : stream_(std::move(stream)), size_(static_cast<size_t>(bytes)), memory_(host_memory(bytes)) {}
  ~PinnedReadback() override { cudaEventSynchronize(read_.get()); }  // its copies may be on their way
  PinnedReadback(const PinnedReadback&) = delete;
  PinnedReadback& operator=(const PinnedReadback&) = delete;

  void read(int64_t at, int64_t bytes, const std::byte* from) override {
    check(cudaMemcpyAsync(memory_.get() + at, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                          stream_.get()),
          "read from the GPU");
    check(cudaEventRecord(read_.get(), stream_.get()), "mark a read");
  }
  std::span<const std::byte> wait() override {
    check(cudaEventSynchronize(read_.get()), "finish what was launched");
    return {memory_.get(), size_};
  }

 private:
  Stream stream_;
  size_t size_;
  Buffer memory_;
  Event read_ = make_event();  // marks the last copy
};

// Page-locked memory that writes pass through, so that the host need not wait until the stream comes to them.
// Its parts are filled one after another; one is filled anew when its last copy is done.
class Staging {
 public:
  explicit Staging(Stream stream)
      : stream_(std::move(stream)), memory_(host_memory(static_cast<int64_t>(kParts * kPartBytes))) {
    for (Event& event : sent_) event = make_event();
  }
  ~Staging() { cudaStreamSynchronize(stream_.get()); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void write(std::byte* to, std::span<const std::byte> from) {
    const std::lock_guard lock(mutex_);
    for (; from.size() > kPartBytes; from = from.subspan(kPartBytes), to += kPartBytes)
      write_piece(to, from.first(kPartBytes));
    write_piece(to, from);
  }

 private:
  static constexpr size_t kParts = 4, kPartBytes = 1 << 20;

  void write_piece(std::byte* to, std::span<const std::byte> from) {
    if (used_ + from.size() > kPartBytes) take_next_part();
    std::byte* const place = memory_.get() + part_ * kPartBytes + used_;
    std::copy(from.begin(), from.end(), place);
    check(cudaMemcpyAsync(to, place, from.size(), cudaMemcpyHostToDevice, stream_.get()), "write to the GPU");
    used_ += from.size();
  }

  void take_next_part() {
    check(cudaEventRecord(sent_[part_].get(), stream_.get()), "mark a write");
    part_ = (part_ + 1) % kParts;
    used_ = 0;
    check(cudaEventSynchronize(sent_[part_].get()), "finish what was launched");
  }

  Stream stream_;
  Buffer memory_;
  std::array<Event, kParts> sent_;  // the last copy out of each part
  size_t part_ = 0, used_ = 0;
  std::mutex mutex_;
};

class LoadedKernel : public CompiledKernel {
 public:
  LoadedKernel(const KernelSource& source, const std::string& code, Stream stream)
      : name_(source.name), stream_(std::move(stream)) {
    check(cudaLibraryLoadData(&library_, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
          "load the kernel " + name_);
    check(cudaLibraryGetKernel(&kernel_, library_, name_.c_str()), "find the kernel " + name_);
    cudaFuncAttributes attributes{};  // asking makes the driver load it now, not amid a recording
    check(cudaFuncGetAttributes(&attributes, function()), "prepare the kernel " + name_);
  }
  LoadedKernel(const LoadedKernel&) = delete;
  LoadedKernel& operator=(const LoadedKernel&) = delete;
  ~LoadedKernel() override {
    cudaStreamSynchronize(stream_.get());  // it may be running
    cudaLibraryUnload(library_);
  }

  const void* function() const { return reinterpret_cast<const void*>(kernel_); }
  const std::string& name() const { return name_; }

  // Beyond 48 KiB a kernel must be told.
  void allow_shared(uint32_t bytes) const {
    if (bytes <= shared_allowed_) return;
    check(cudaFuncSetAttribute(function(), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "give enough shared memory to the kernel " + name_);
    shared_allowed_ = bytes;
  }

 private:
  std::string name_;
  Stream stream_;
  cudaLibrary_t library_ = nullptr;
  cudaKernel_t kernel_ = nullptr;
  mutable std::atomic<uint32_t> shared_allowed_ = 48 << 10;
};

class RealGpu : public Gpu {
 public:
  explicit RealGpu(int ordinal) : RealGpu(ordinal, open_gpu(ordinal)) {}

  GpuKind kind() const override { return kind_; }

  Buffer allocate(int64_t bytes) override {
    use();
    void* address = nullptr;
    const cudaError_t result = cudaMalloc(&address, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      constexpr double kGiB = 1 << 30;
      fail("cuda: {:.2f} GiB do not fit beside what is in use: {:.2f} GiB of the GPU's memory are free",
           static_cast<double>(bytes) / kGiB, static_cast<double>(memory().available) / kGiB);
    }
    check(result, "allocate memory");
    Buffer buffer(static_cast<std::byte*>(address), [stream = stream_](std::byte* p) { cudaFree(p); });
    check(cudaMemsetAsync(address, 0, static_cast<size_t>(bytes), stream_.get()), "clear memory");
    return buffer;
  }

  Buffer allocate_shared(int64_t bytes) override {
    use();
    return host_memory(bytes);
  }

  DeviceMemory memory() override {
    use();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "ask for the free memory");
    return {.total = static_cast<int64_t>(total), .available = static_cast<int64_t>(free)};
  }

  void write(std::byte* to, std::span<const std::byte> from) override {
    use();
    staging_.write(to, from);
  }

  void read(std::span<std::byte> to, const std::byte* from) override {
    use();
    check(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream_.get()),
          "read from the GPU");
    synchronize();
  }

  std::unique_ptr<Readback> readback(int64_t bytes) override {
    use();
    return std::make_unique<PinnedReadback>(stream_, bytes);
  }

  std::vector<std::shared_ptr<const CompiledKernel>> compile(std::span<const KernelSource> sources) override {
    use();
    const std::lock_guard lock(loaded_mutex_);
    std::vector<std::shared_ptr<const CompiledKernel>> kernels;
    std::vector<KernelSource> missing;
    for (const KernelSource& source : sources) {
      kernels.push_back(loaded_[source.name].lock());
      if (!kernels.back()) missing.push_back(source);
    }
    const std::vector<std::string> codes = compile_kernels(missing, architecture_);
    size_t next = 0;
    for (std::shared_ptr<const CompiledKernel>& kernel : kernels) {
      if (kernel) continue;
      kernel = std::make_shared<LoadedKernel>(missing[next], codes[next], stream_);
      loaded_[missing[next++].name] = kernel;
    }
    return kernels;
  }

  void launch(const CompiledKernel& compiled, const LaunchShape& shape,
              std::span<const std::byte> params) override {
    use();
    const auto& kernel = static_cast<const LoadedKernel&>(compiled);
    kernel.allow_shared(shape.shared_bytes);
    void* arguments[] = {const_cast<std::byte*>(params.data())};
    check(cudaLaunchKernel(kernel.function(), {shape.grid_x, shape.grid_y, shape.grid_z},
                           {shape.threads, 1, 1}, arguments, shape.shared_bytes, stream_.get()),
          "launch the kernel " + kernel.name());
  }

  Launch product(const Product& product, const void* a, const void* b, void* c, void* workspace) override {
    return cublas_.product(product, a, b, c, workspace);
  }

  Launch record(std::vector<Launch> launches) override {
    use();
    const std::shared_ptr<CUgraph_st> recorded = capture(launches);
    cudaGraphExec_t made = nullptr;
    check(cudaGraphInstantiate(&made, recorded.get(), 0), "make a graph of the steps");
    const std::shared_ptr<CUgraphExec_st> graph(made, [](cudaGraphExec_t g) { cudaGraphExecDestroy(g); });
    // The launches own the kernels that the graph refers to.
    return [graph, launches = std::move(launches), stream = stream_] {
      check(cudaGraphLaunch(graph.get(), stream.get()), "launch the graph");
    };
  }

  void synchronize() override { check(cudaStreamSynchronize(stream_.get()), "finish what was launched"); }

 private:
  RealGpu(int ordinal, const cudaDeviceProp& properties)
      : ordinal_(ordinal),
        kind_{.capability = 10 * properties.major + properties.minor,
              .processors = properties.multiProcessorCount},
        architecture_(architecture_of(properties)),
        stream_(make_stream()),
        staging_(stream_),
        cublas_(stream_.get(), properties.name) {}

  // The runtime keeps a current device per thread.
  void use() const { check(cudaSetDevice(ordinal_), "take the GPU"); }

  // A recording ends whatever the launches throw: until then the stream can do nothing else.
  std::shared_ptr<CUgraph_st> capture(const std::vector<Launch>& launches) const {
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeRelaxed), "begin to record");
    std::exception_ptr failure;
    try {
      for (const Launch& launch : launches) launch();
    } catch (...) {
      failure = std::current_exception();
    }
    cudaGraph_t recorded = nullptr;
    const cudaError_t result = cudaStreamEndCapture(stream_.get(), &recorded);
    std::shared_ptr<CUgraph_st> graph(recorded, [](cudaGraph_t g) {
      if (g != nullptr) cudaGraphDestroy(g);
    });
    if (failure) std::rethrow_exception(failure);
    check(result, "record the steps");
    return graph;
  }

  int ordinal_;
  GpuKind kind_;
  std::string architecture_;
  Stream stream_;
  Staging staging_;
  Cublas cublas_;
  std::mutex loaded_mutex_;
  std::map<std::string, std::weak_ptr<const CompiledKernel>> loaded_;  // by name
};

}  // namespace
}  // namespace nf::cuda

namespace nf {

std::shared_ptr<const Device> cuda_device(int ordinal) {
  return cuda::gpu_device([ordinal] { return std::make_shared<cuda::RealGpu>(ordinal); });
}

}  // namespace nf
