// Whole models on the CUDA backend: loss, logits and every gradient of the golden ones.
#include <doctest/doctest.h>

#include "tests/cuda/emulated_gpu.h"
#include "tests/support/golden.h"

using namespace nf;

namespace {

// Every variant, with grouped heads, windows, documents, caps and tied weights among them.
std::vector<Golden> goldens() {
  std::vector<Golden> result;
  for (const char* name : {"mha", "gqa_window", "gqa_caps", "diff_documents", "ngpt_gqa", "mla_window"})
    result.push_back(read_golden(golden_folder() / name));
  return result;
}

}  // namespace

TEST_CASE("cuda: models in f32") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.folder.filename().string());
    check_against(golden, cuda::emulated_cuda_device(), DType::f32, 1e-5, 1e-4);
  }
}

TEST_CASE("cuda: models with bf16 products") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.folder.filename().string());
    check_against(golden, cuda::emulated_cuda_device(), DType::bf16, 5e-3, 2e-2);
  }
}
