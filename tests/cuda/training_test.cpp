// Training and generation on the CUDA backend, step for step beside the CPU's.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tests/cuda/emulated_gpu.h"
#include "tests/support/golden.h"
#include "tests/trainer/training_support.h"
#include "tools/generate.h"
#include "tools/trainer/memory.h"

using namespace nf;

namespace {

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> weights;
};

Trained train_on(std::shared_ptr<const Device> device, AttentionType type, const std::string& file,
                 ComputeType dtype = ComputeType::f32) {
  TrainSettings settings = small_settings(file);
  settings.dtype = dtype;
  const TrainingData data = load_training_data(settings);
  TrainingSession session(with_vocabulary(small_model(type), *data.tokenizer), settings, false,
                          std::move(device));
  session.initialize();
  const auto batches = training_batches(data, settings);
  Trained trained;
  constexpr int64_t kSteps = 4;
  const int64_t ahead = session.may_overlap() ? 1 : 0;
  int64_t launched = 0;
  for (int64_t step = 1; step <= kSteps; ++step) {
    while (launched < std::min(step + ahead, kSteps)) session.launch(*batches, ++launched, 3e-3);
    const StepResult result = session.finish();
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.gradient_norm);
  }
  for (const Parameter& p : session.parameters()) {
    std::vector<float> values(static_cast<size_t>(p.shape.elements()));
    session.state().read(p.name, std::as_writable_bytes(std::span(values)));
    trained.weights.insert(trained.weights.end(), values.begin(), values.end());
  }
  return trained;
}

// The greatest relative distance of two curves.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double greatest = 0;
  for (size_t i = 0; i < a.size(); ++i) greatest = std::max(greatest, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return greatest;
}

}  // namespace

TEST_CASE("cuda: training follows the CPU's, and leaves the same bits again") {
  const Folder folder;
  const std::string file = folder.write("a.txt", small_text(200));
  for (const AttentionType type : {AttentionType::gqa, AttentionType::ngpt}) {
    CAPTURE(name(type));
    const Trained theirs = train_on(cpu_device(1), type, file),
                  ours = train_on(cuda::emulated_cuda_device({}, cuda::Order::ascending), type, file),
                  again = train_on(cuda::emulated_cuda_device({}, cuda::Order::torn), type, file);
    for (size_t step = 0; step < ours.losses.size(); ++step) {
      CHECK(ours.losses[step] == doctest::Approx(theirs.losses[step]).epsilon(1e-5));
      CHECK(ours.norms[step] == doctest::Approx(theirs.norms[step]).epsilon(1e-4));
    }
    CHECK(ours.losses == again.losses);
    CHECK(ours.weights == again.weights);
  }
}

// Kernels round to bf16 at other places than the CPU's do, but no more coarsely: the two curves of the loss
// lie nearer to each other than bf16's lies to that of f32, and the norms within a step of bf16.
TEST_CASE("cuda: training in bf16 follows the CPU's, and leaves the same bits again") {
  const Folder folder;
  const std::string file = folder.write("a.txt", small_text(200));
  for (const AttentionType type : {AttentionType::gqa, AttentionType::ngpt}) {
    CAPTURE(name(type));
    const Trained exact = train_on(cpu_device(1), type, file),
                  theirs = train_on(cpu_device(1), type, file, ComputeType::bf16),
                  ours = train_on(cuda::emulated_cuda_device(), type, file, ComputeType::bf16),
                  again = train_on(cuda::emulated_cuda_device({}, cuda::Order::descending), type, file,
                                   ComputeType::bf16);
    CHECK(distance(ours.losses, exact.losses) > 0);  // it is bf16
    CHECK(distance(ours.losses, theirs.losses) < distance(theirs.losses, exact.losses));
    CHECK(distance(ours.norms, theirs.norms) < 0x1p-8);
    CHECK(ours.losses == again.losses);
    CHECK(ours.weights == again.weights);
  }
}

TEST_CASE("cuda: generation with caches gives the CPU's logits") {
  for (const char* name : {"gqa_window", "mla"}) {
    CAPTURE(name);
    LoadedModel theirs = load_model(golden_folder() / name, cpu_device(1)),
                ours = load_model(golden_folder() / name, cuda::emulated_cuda_device());
    Generator expected(theirs, DType::f32, 12), generator(ours, DType::f32, 12);
    const std::vector<int32_t> prompt{3, 1, 4, 1, 5};
    for (const std::vector<int32_t>& tokens : {prompt, {9}, {2}, {6}}) {
      const std::span<const float> wanted = expected.append(tokens), got = generator.append(tokens);
      REQUIRE(got.size() == wanted.size());
      for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - wanted[i]) < 1e-5F);
    }
  }
}

TEST_CASE("cuda: a run takes as much of the GPU's memory as was planned") {
  if (std::getenv("NF_TEST_GPU") == nullptr) {
    MESSAGE("skipped: without a GPU nothing is taken");
    return;
  }
  const Folder folder;
  const std::string file = folder.write("a.txt", small_text(200));
  const std::shared_ptr<const Device> device = cuda::emulated_cuda_device();
  train_on(device, AttentionType::gqa, file, ComputeType::bf16);  // libraries and kernels' code are no plan's
  TrainSettings settings = small_settings(file);
  settings.dtype = ComputeType::bf16;
  const TrainingData data = load_training_data(settings);
  ModelConfig model;
  model.hidden_size = 1024;
  model.intermediate_size = 4096;
  model.num_hidden_layers = 12;
  model.num_attention_heads = 16;
  model.max_position_embeddings = 64;
  model = with_vocabulary(resolve(model), *data.tokenizer);

  const int64_t before = device->memory().available;
  TrainingSession session(model, settings, false, device);
  session.initialize();
  session.launch(*training_batches(data, settings), 1, 3e-3);
  session.finish();
  const auto taken = static_cast<double>(before - device->memory().available);
  const int64_t planned = estimate_memory(model, plan_options(model, settings, false), *device).least();
  CHECK(taken == doctest::Approx(static_cast<double>(planned)).epsilon(0.02));
}
