// What a training run holds in memory, known to the byte before anything is allocated, and what the machine
// has.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "tools/trainer/plans.h"

namespace nf {

// Bytes that the run holds at its peak, from the plans that the trainer executes. Not counted: the program
// itself and the tokens of the text, which are mapped from a file (tools/data/cache.h).
struct MemoryEstimate {
  // Tensors that outlive steps: together State::bytes().
  int64_t weights = 0;        // f32
  int64_t narrow_copies = 0;  // of the weights, bf16
  int64_t gradients = 0;      // f32
  int64_t optimizer = 0;      // moments and averaged weights, f32
  // The arena that all steps share, as the hungriest of them (`arena_step`) divides it.
  int64_t activations = 0;
  int64_t workspace = 0;  // scratch of its hungriest kernel
  std::string arena_step;
  int64_t constants = 0;  // tables inside the graphs, such as rotary angles
  // The copy that is written to disk while the run goes on; see checkpoint_writer.h. A run does without it
  // where there is no room for it.
  int64_t checkpoint = 0;

  int64_t state() const { return weights + narrow_copies + gradients + optimizer; }
  int64_t arena() const { return activations + workspace; }
  int64_t least() const { return state() + arena() + constants; }
  int64_t total() const { return least() + checkpoint; }
};

// Of plans of these kinds.
MemoryEstimate sum_memory(std::span<const Plan> plans, std::span<const StepKind> kinds);

// Of the whole run, for batches of the longest length. `model` has its vocabulary.
MemoryEstimate estimate_memory(const ModelConfig& model, const PlanOptions& options, const Device& device);

// Bytes of the machine, or of the control group that this process may not leave; 0: not known.
struct MachineMemory {
  int64_t total = 0;
  int64_t available = 0;  // without pushing anything out to disk
};

// `root`: the folder that holds proc and sys.
MachineMemory machine_memory(const std::filesystem::path& root = "/");

// Of what the device's tensors live in: the GPU's memory, or the machine's.
MachineMemory memory_around(const Device& device);

// Bytes of this process that are in memory now; 0: not known.
int64_t process_memory(const std::filesystem::path& root = "/");

// Why a run that needs this does not fit, in one line that says which batch size would; none when it does, or
// when nobody knows. Plans smaller batches, half the size each time.
std::optional<std::string> memory_shortage(const MemoryEstimate& needed, const ModelConfig& model,
                                           const PlanOptions& options, const Device& device,
                                           const MachineMemory& machine);

}  // namespace nf
