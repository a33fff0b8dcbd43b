#include "tests/cuda/emulated_gpu.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <exception>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "cuda/kernel_files.h"
#include "nf/error.h"
#include "nf/file.h"
#include "tests/cuda/emulator.h"
#include "tests/support/folder.h"

namespace nf::cuda {
namespace {

namespace fs = std::filesystem;

#if defined(__clang__) || __GNUC__ >= 12
constexpr const char* kGarbageInArrays = "-ftrivial-auto-var-init=pattern";
#else
constexpr const char* kGarbageInArrays = "";
#endif

struct HostKernel : CompiledKernel {
  EmulatedKernel kernel;
};

// Compiles every source once in the process: when the first of those that wait is launched, all at once.
class HostCompiler {
 public:
  std::shared_ptr<const CompiledKernel> add(const KernelSource& source) {
    const auto [at, is_new] = kernels_.try_emplace(source.name);
    if (is_new) {
      at->second = std::make_shared<HostKernel>();
      waiting_.push_back(source);
    }
    return at->second;
  }

  const EmulatedKernel& ready(const HostKernel& host) {
    if (host.kernel.entry == nullptr) compile(std::exchange(waiting_, {}));
    require(host.kernel.entry != nullptr, "emulator: a kernel that could not be compiled");
    return host.kernel;
  }

 private:
  void compile(const std::vector<KernelSource>& sources) {
    const fs::path path = folder_.path / fmt::format("kernels{}", ++libraries_);
    write_sources(path.string() + ".cpp", sources);
    run_compiler(path.string());
    void* library = ::dlopen((path.string() + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    require(library != nullptr, "emulator: {}", library == nullptr ? ::dlerror() : "");
    const auto find = [&]<typename Function>(const std::string& name, Function*& function) {
      function = reinterpret_cast<Function*>(::dlsym(library, name.c_str()));
      require(function != nullptr, "emulator: {} was not compiled", name);
    };
    unsigned char* (*static_shared)(unsigned long* bytes) = nullptr;
    find("nf_emulated_static_shared", static_shared);
    unsigned long bytes = 0;
    const unsigned char* begin = static_shared(&bytes);
    for (const KernelSource& source : sources) {
      EmulatedKernel& kernel = kernels_.at(source.name)->kernel;
      kernel.name = source.name;
      kernel.static_shared = {begin, bytes};
      find("run_" + source.name, kernel.entry);
    }
  }

  // All in one: each text keeps to a namespace of its own. An entry point takes its parameter by value, so
  // each gets a companion of one type.
  void write_sources(const fs::path& path, const std::vector<KernelSource>& sources) {
    std::string text;
    for (const KernelSource& source : sources)
      text += fmt::format(
          "{0}\nextern \"C\" NF_VISIBLE void run_{1}(const void* params) {{\n"
          "  {1}(*static_cast<const {2}*>(params));\n}}\n",
          source.text, source.name, source.params);
    write_file(path, text);
    for (const KernelFile& file : kernel_files()) write_file(folder_.path / file.name, file.text);
  }

  void run_compiler(const std::string& path) const {
    // Linked without the sanitizers' libraries: the emulator answers their calls. Hidden: each library has
    // static shared memory of its own.
    const std::string command = fmt::format(
        "({0} -std=c++17 -Og -w -fPIC -fvisibility=hidden -DNF_EMULATED -DNF_WATCHED "
        "-fsanitize=thread,alignment {4} -I{1} "
        "-I{2}/cuda -o {3}.o -c {3}.cpp && {0} -shared -o {3}.so {3}.o) 2>{3}.log",
        NF_CXX, folder_.path.string(), NF_TESTS_DIR, path, kGarbageInArrays);
    if (std::system(command.c_str()) != 0) fail("emulator: {}\n{}", command, read_file(path + ".log"));
  }

  Folder folder_;
  int libraries_ = 0;
  std::map<std::string, std::shared_ptr<HostKernel>> kernels_;
  std::vector<KernelSource> waiting_;
};

HostCompiler& host_compiler() {
  static HostCompiler compiler;
  return compiler;
}

float element(const void* data, DType dtype, int64_t at) {
  return dtype == DType::f32 ? static_cast<const float*>(data)[at]
                             : to_float(static_cast<const bf16*>(data)[at]);
}

void multiply(const Product& p, const void* a, const void* b, void* c) {
  for (int64_t batch = 0; batch < p.batch; ++batch)
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < p.k; ++k)
          sum += element(a, p.a.dtype, batch * p.a.batch_stride + i * p.a.row_stride + k * p.a.col_stride) *
                 element(b, p.b.dtype, batch * p.b.batch_stride + k * p.b.row_stride + j * p.b.col_stride);
        const int64_t at = batch * p.c.batch_stride + i * p.c.row_stride + j * p.c.col_stride;
        if (p.c.dtype == DType::bf16) {
          bf16& to = static_cast<bf16*>(c)[at];
          to = to_bf16(p.accumulate ? to_float(to) + sum : sum);
        } else {
          float& to = static_cast<float*>(c)[at];
          to = p.accumulate ? to + sum : sum;
        }
      }
}

// What has been asked for: done at once, or when it is waited for. A failure stays, as a GPU's does, until
// somebody has been told.
class EmulatedStream {
 public:
  explicit EmulatedStream(bool is_late) : is_late_(is_late) {}

  void put(std::function<void()> work) {
    if (recording_) return recording_->push_back(std::move(work));
    queue_.push_back(std::move(work));
    ++asked_;
    if (!is_late_) wait(asked_);
  }
  int64_t asked() const { return asked_; }

  // Does the first so many.
  void run(int64_t count) {
    for (; done_ < count; ++done_) {
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      try {
        if (!failure_) work();
      } catch (...) {
        failure_ = std::current_exception();
      }
    }
  }
  void wait(int64_t count) {
    run(count);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  bool is_recording() const { return recording_.has_value(); }
  void refuse_amid_recording(std::string_view what) const {
    require(!is_recording(), "emulator: {} amid a recording", what);
  }
  std::vector<std::function<void()>> record(const std::vector<Launch>& launches) {
    refuse_amid_recording("another recording");
    recording_.emplace();
    try {
      for (const Launch& launch : launches) launch();
    } catch (...) {
      recording_.reset();
      throw;
    }
    std::vector<std::function<void()>> works = std::move(*recording_);
    recording_.reset();
    return works;
  }

 private:
  bool is_late_;
  std::deque<std::function<void()>> queue_;
  std::optional<std::vector<std::function<void()>>> recording_;
  std::exception_ptr failure_;
  int64_t asked_ = 0, done_ = 0;
};

class EmulatedReadback : public Readback {
 public:
  EmulatedReadback(std::shared_ptr<EmulatedStream> stream, int64_t bytes)
      : stream_(std::move(stream)), memory_(static_cast<size_t>(bytes)) {}
  ~EmulatedReadback() override { stream_->run(last_); }
  EmulatedReadback(const EmulatedReadback&) = delete;
  EmulatedReadback& operator=(const EmulatedReadback&) = delete;

  void read(int64_t at, int64_t bytes, const std::byte* from) override {
    stream_->refuse_amid_recording("a read");
    stream_->put([to = memory_.data() + at, bytes, from] { std::copy_n(from, bytes, to); });
    last_ = stream_->asked();
  }
  std::span<const std::byte> wait() override {
    stream_->wait(last_);
    return memory_;
  }

 private:
  std::shared_ptr<EmulatedStream> stream_;
  std::vector<std::byte> memory_;
  int64_t last_ = 0;
};

class EmulatedGpu : public Gpu {
 public:
  EmulatedGpu(GpuKind kind, std::optional<Order> order, std::shared_ptr<EmulatedStream> stream)
      : kind_(kind), order_(order), stream_(std::move(stream)) {}
  ~EmulatedGpu() override { stream_->run(stream_->asked()); }
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;

  GpuKind kind() const override { return kind_; }
  // Memory is freed when all is done that has been asked for.
  Buffer allocate(int64_t bytes) override {
    stream_->refuse_amid_recording("an allocation");
    const Buffer memory = allocate_host_memory(bytes + kAlignment);
    const auto address = reinterpret_cast<uintptr_t>(memory.get());
    std::byte* const aligned = memory.get() + (kAlignment - address % kAlignment) % kAlignment;
    return {aligned, [memory, stream = stream_](std::byte*) { stream->run(stream->asked()); }};
  }
  Buffer allocate_shared(int64_t bytes) override { return allocate(bytes); }
  DeviceMemory memory() override { return {}; }
  void write(std::byte* to, std::span<const std::byte> from) override {
    stream_->refuse_amid_recording("a write");
    stream_->put(
        [to, bytes = std::vector(from.begin(), from.end())] { std::copy(bytes.begin(), bytes.end(), to); });
  }
  void read(std::span<std::byte> to, const std::byte* from) override {
    synchronize();
    std::copy_n(from, to.size(), to.data());
  }
  std::unique_ptr<Readback> readback(int64_t bytes) override {
    return std::make_unique<EmulatedReadback>(stream_, bytes);
  }

  std::vector<std::shared_ptr<const CompiledKernel>> compile(std::span<const KernelSource> sources) override {
    stream_->refuse_amid_recording("a kernel loaded");
    std::vector<std::shared_ptr<const CompiledKernel>> result;
    for (const KernelSource& source : sources) result.push_back(host_compiler().add(source));
    return result;
  }

  void launch(const CompiledKernel& kernel, const LaunchShape& shape,
              std::span<const std::byte> params) override {
    stream_->put([&host = static_cast<const HostKernel&>(kernel), shape, kind = kind_, order = order_,
                  bytes = std::vector(params.begin(), params.end())] {
      thread_local size_t launches = 0;
      emulate(host_compiler().ready(host), shape, bytes.data(), kind,
              order.value_or(kOrders.at(launches++ % kOrders.size())));
    });
  }

  // The library loads what a product needs when it first does it.
  Launch product(const Product& product, const void* a, const void* b, void* c, void* workspace) override {
    stream_->refuse_amid_recording("the choice of an algorithm");
    require(reinterpret_cast<uintptr_t>(workspace) % kAlignment == 0, "emulator: a product's scratch at {}",
            workspace);
    return [=, stream = stream_, is_loaded = std::make_shared<bool>(false)] {
      require(*is_loaded || !stream->is_recording(), "emulator: a product's first launch amid a recording");
      *is_loaded = true;
      stream->put([=] { multiply(product, a, b, c); });
    };
  }

  Launch record(std::vector<Launch> launches) override {
    return [works = stream_->record(launches), stream = stream_] {
      for (const std::function<void()>& work : works) stream->put(work);
    };
  }
  void synchronize() override {
    stream_->refuse_amid_recording("to wait");
    stream_->wait(stream_->asked());
  }

 private:
  static constexpr int64_t kAlignment = 256;

  GpuKind kind_;
  std::optional<Order> order_;
  std::shared_ptr<EmulatedStream> stream_;
};

// Leaves garbage wherever nothing should be relied on: in an executable's arena when it is loaded, in its
// scratch memory before every step.
class UntidyDevice : public Device {
 public:
  UntidyDevice(std::shared_ptr<const Device> device, std::shared_ptr<EmulatedStream> stream)
      : device_(std::move(device)), stream_(std::move(stream)) {}

  std::string_view name() const override { return device_->name(); }
  bool supports(const Graph& graph, const Node& node) const override {
    return device_->supports(graph, node);
  }
  int64_t workspace(const Graph& graph, const Node& node) const override {
    return device_->workspace(graph, node);
  }
  DeviceMemory memory() const override { return device_->memory(); }
  double peak_flops(DType dtype) const override { return device_->peak_flops(dtype); }
  bool shares_host_memory() const override { return device_->shares_host_memory(); }
  Buffer allocate(int64_t bytes) const override { return device_->allocate(bytes); }
  void write(std::byte* to, std::span<const std::byte> from) const override { device_->write(to, from); }
  void read(std::span<std::byte> to, const std::byte* from) const override { device_->read(to, from); }
  std::unique_ptr<Readback> readback(int64_t bytes) const override { return device_->readback(bytes); }
  void synchronize() const override { device_->synchronize(); }
  Launch record(std::vector<Launch> launches) const override { return device_->record(std::move(launches)); }

  std::vector<Launch> load(const BoundPlan& bound) const override {
    const int64_t scratch = std::min(bound.plan.arena_bytes() - bound.plan.activation_bytes, kMostScratch);
    litter(bound.arena, bound.plan.activation_bytes);
    std::vector<Launch> launches = device_->load(bound);
    for (Launch& launch : launches)
      launch = [this, launch = std::move(launch), at = bound.workspace(), scratch] {
        litter(at, scratch);
        launch();
      };
    return launches;
  }

 private:
  static constexpr std::byte kGarbage{0xFF};          // NaNs
  static constexpr int64_t kMostScratch = 256 << 10;  // products have far more, which nothing here touches

  void litter(std::byte* at, int64_t bytes) const {
    if (bytes > 0) stream_->put([=] { std::fill_n(at, bytes, kGarbage); });
  }

  std::shared_ptr<const Device> device_;
  std::shared_ptr<EmulatedStream> stream_;
};

}  // namespace

std::shared_ptr<Gpu> emulated_gpu(GpuKind kind, std::optional<Order> order) {
  return std::make_shared<EmulatedGpu>(kind, order, std::make_shared<EmulatedStream>(false));
}
std::shared_ptr<Gpu> late_gpu(GpuKind kind, std::optional<Order> order) {
  return std::make_shared<EmulatedGpu>(kind, order, std::make_shared<EmulatedStream>(true));
}

std::shared_ptr<const Device> emulated_cuda_device(GpuKind kind, std::optional<Order> order) {
  if (std::getenv("NF_TEST_GPU") != nullptr) return cuda_device();
  const auto stream = std::make_shared<EmulatedStream>(true);
  return std::make_shared<UntidyDevice>(
      gpu_device([=] { return std::make_shared<EmulatedGpu>(kind, order, stream); }), stream);
}

}  // namespace nf::cuda
