// The golden models of tests/golden, whose losses, logits and gradients PyTorch computed
// (tests/bench/torch/oracle.py).
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "nf/safetensors.h"
#include "tools/evaluate.h"

namespace nf {

struct Golden {
  std::filesystem::path folder;
  EvaluationInput input;
  nlohmann::json expected;
  SafetensorsFile tensors;
};

// Where they are: in the folder of the tests, which the environment's NF_TESTS_DIR may move.
std::filesystem::path golden_folder();

Golden read_golden(const std::filesystem::path& folder);
std::vector<std::filesystem::path> golden_folders();  // of all of them, sorted

// Loss, logits and every gradient on that device, relative to the golden ones. With bf16 operands a gradient
// whose terms cancel may be off by more: by twice what the oracle's own bf16 arithmetic loses of it on this
// model and its neighbours. (Twice: attention's backward pass starts from the rounded output, the oracle's
// from the probabilities.)
void check_against(const Golden& golden, std::shared_ptr<const Device> device, DType compute,
                   double loss_tolerance, double tolerance);

}  // namespace nf
