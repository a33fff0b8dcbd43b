// The order of what a GPU is asked for: writes, launches, recordings, and what goes while they are under way.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "nf/executable.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"

using namespace nf;

namespace {

// What a GPU that does everything asked of it has been asked for.
struct Counts {
  int recordings = 0, launches = 0;
};

class CountingGpu : public cuda::Gpu {
 public:
  explicit CountingGpu(Counts& counts) : counts_(counts) {}

  cuda::GpuKind kind() const override { return gpu_->kind(); }
  Buffer allocate(int64_t bytes) override {
    if (bytes > most_) fail("cuda: {} bytes do not fit", bytes);
    return gpu_->allocate(bytes);
  }
  Buffer allocate_shared(int64_t bytes) override { return gpu_->allocate_shared(bytes); }
  DeviceMemory memory() override { return gpu_->memory(); }
  void write(std::byte* to, std::span<const std::byte> from) override { gpu_->write(to, from); }
  void read(std::span<std::byte> to, const std::byte* from) override { gpu_->read(to, from); }
  std::unique_ptr<Readback> readback(int64_t bytes) override { return gpu_->readback(bytes); }
  std::vector<std::shared_ptr<const cuda::CompiledKernel>> compile(
      std::span<const cuda::KernelSource> sources) override {
    return gpu_->compile(sources);
  }
  void launch(const cuda::CompiledKernel& kernel, const cuda::LaunchShape& shape,
              std::span<const std::byte> params) override {
    ++counts_.launches;
    gpu_->launch(kernel, shape, params);
  }
  Launch product(const Product& product, const void* a, const void* b, void* c, void* workspace) override {
    return gpu_->product(product, a, b, c, workspace);
  }
  Launch record(std::vector<Launch> launches) override {
    ++counts_.recordings;
    return gpu_->record(std::move(launches));
  }
  void synchronize() override { gpu_->synchronize(); }

  void allow(int64_t most) { most_ = most; }

 private:
  Counts& counts_;
  std::shared_ptr<cuda::Gpu> gpu_ = cuda::late_gpu();
  int64_t most_ = int64_t{1} << 40;
};

// y = tanh(x w)
std::unique_ptr<Executable> small_executable(std::shared_ptr<const Device> device) {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2, 3}), w = input(graph, "w", DType::f32, {3, 4});
  graph.output("y", tanh(matmul(x, w)));
  return compile(graph, std::make_shared<State>(std::move(device)));
}

}  // namespace

TEST_CASE("cuda: writes of any size arrive, and leave what they were made of free") {
  const auto device = cuda::emulated_cuda_device();
  for (const size_t size : {size_t{1}, size_t{1} << 20, (size_t{1} << 20) + 3, size_t{9} << 20}) {
    const Buffer memory = device->allocate(static_cast<int64_t>(size));
    std::vector<std::byte> bytes(size), expected(size), got(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = expected[i] = static_cast<std::byte>(i * 2654435761 >> 13);
    device->write(memory.get(), bytes);
    std::fill(bytes.begin(), bytes.end(), std::byte{});
    device->read(got, memory.get());
    CHECK(got == expected);
  }
}

TEST_CASE("cuda: executables may go while their steps are under way") {
  const auto device = cuda::emulated_cuda_device();
  const auto results = device->readback(3 * 8 * static_cast<int64_t>(sizeof(float)));
  const std::vector<float> ones(12, 1);
  for (int64_t i = 0; i < 3; ++i) {
    const auto executable = small_executable(device);
    const std::vector<float> x(6, 0.1F * static_cast<float>(i));
    executable->set<float>("w", ones);
    executable->set<float>("x", x);
    for (int run = 0; run < 3; ++run) executable->run();
    executable->read_later("y", *results, i * 8 * static_cast<int64_t>(sizeof(float)));
  }
  const std::span<const std::byte> bytes = results->wait();
  for (size_t i = 0; i < 24; ++i) {
    float y = 0;
    std::memcpy(&y, bytes.data() + i * sizeof y, sizeof y);
    CHECK(y == doctest::Approx(std::tanh(0.3 * static_cast<double>(i / 8))));
  }
}

TEST_CASE("emulator: the first run is as launched, all later ones are one launch") {
  Counts counts;
  const auto gpu = std::make_shared<CountingGpu>(counts);
  const auto device = cuda::gpu_device([&] { return gpu; });
  const auto executable = small_executable(device);
  const std::vector<float> ones(12, 1);
  executable->set<float>("w", ones);
  int launches = 0;
  for (int run = 1; run <= 3; ++run) {
    const std::vector<float> x(6, 0.1F * static_cast<float>(run));
    executable->set<float>("x", x);
    executable->run();
    CHECK(counts.recordings == 1);
    if (run == 1) launches = counts.launches;  // that of the run, and that of the recording
    CHECK(counts.launches == launches);
    std::vector<float> y(8);
    executable->get_bytes("y", std::as_writable_bytes(std::span(y)));
    for (const float value : y) CHECK(value == doctest::Approx(std::tanh(0.3 * run)));
  }
}

TEST_CASE("emulator: a recording refuses what CUDA refuses") {
  const auto gpu = cuda::late_gpu();
  const Buffer memory = gpu->allocate(64);
  std::vector<std::byte> bytes(64);
  const auto refused = [&](Launch launch, const char* why) {
    CHECK_THROWS_WITH_AS(gpu->record({std::move(launch)}), doctest::Contains(why), Error);
  };
  refused([&] { gpu->allocate(64); }, "an allocation amid a recording");
  refused([&] { gpu->write(memory.get(), bytes); }, "a write amid a recording");
  refused([&] { gpu->read(bytes, memory.get()); }, "to wait amid a recording");
  refused([&] { gpu->synchronize(); }, "to wait amid a recording");
  const MatrixLayout layout{DType::f32, 2, 1};
  const Launch product = gpu->product({.m = 2, .n = 2, .k = 2, .a = layout, .b = layout, .c = layout},
                                      memory.get(), memory.get(), memory.get(), nullptr);
  refused(product, "a product's first launch amid a recording");
  product();
  gpu->record({product})();
  gpu->synchronize();
}

TEST_CASE("emulator: a peak that cannot be measured for want of memory is not known") {
  Counts counts;
  const auto gpu = std::make_shared<CountingGpu>(counts);
  gpu->allow(1 << 20);
  CHECK(cuda::gpu_device([&] { return gpu; })->peak_flops(DType::bf16) == 0);
}

TEST_CASE("emulator: products of what the GPU's library does not know go elsewhere") {
  const auto taken = [](DType operand, DType result) {
    const MatrixLayout in{operand, 8, 1}, out{result, 8, 1};
    return cuda::Gpu::multiplies({.m = 8, .n = 8, .k = 8, .a = in, .b = in, .c = out});
  };
  CHECK(taken(DType::f32, DType::f32));
  CHECK(taken(DType::bf16, DType::bf16));
  CHECK(taken(DType::bf16, DType::f32));
  CHECK_FALSE(taken(DType::f32, DType::bf16));
  CHECK_FALSE(taken(DType::f16, DType::f16));
  CHECK_FALSE(taken(DType::f64, DType::f64));
}
