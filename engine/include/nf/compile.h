// The compiler: from a graph to a plan of kernel launches over one arena, and from there to an Executable on
// a device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nf/graph.h"

namespace nf {

// Gradient checkpointing. `layer`: within each scope "layers.N" only what enters the layer is kept, the rest
// is computed again in the backward pass. `budget`: values are dropped, most bytes saved per FLOP first,
// until what the backward pass keeps of the forward pass fits in `bytes`. The bits of the results are the
// same whatever is chosen.
struct Recompute {
  enum class Kind : uint8_t { none, layer, budget } kind = Kind::none;
  int64_t bytes = 0;
};

struct CompileOptions {
  Recompute recompute = {};
  // Passes can be switched off one by one to test and to measure what they bring.
  bool simplify = true;
  bool fuse = true;
  bool schedule = true;
  bool reuse_memory = true;
  // A promise: states that the graph only reads keep the values they have when it is compiled. The device may
  // then read copies of them, laid out for its kernels, which take memory beside what the plan says (the CPU
  // does for unbatched products of at most four rows, as in writing a text token by token).
  bool frozen = false;
  std::string name = "graph";  // in dumps and profiles
};

// Where a value lives: an address that is known before any memory exists.
struct Place {
  enum class Region : uint8_t { none, arena, state, constant } region = Region::none;
  int32_t index = -1;  // of the state or the constant
  int64_t offset = 0;  // bytes from the region's start
  Strides strides;     // elements
};

struct Plan {
  std::shared_ptr<const Graph> graph;  // after all passes; movement that is only a view has no step
  struct Step {
    int32_t node;
    int64_t workspace_bytes;
  };
  std::vector<Step> steps;                 // in order
  std::vector<std::vector<Place>> places;  // per node, per output
  struct StateUse {
    std::string name;
    TensorType type;
  };
  std::vector<StateUse> states;    // that the graph reads or assigns
  std::vector<int32_t> constants;  // Op::tensor nodes, in order of Place::index
  int64_t activation_bytes = 0;    // inputs, values and outputs: the part of the arena that steps exchange
  int64_t workspace_bytes = 0;     // scratch of the hungriest step, at the arena's end
  int64_t constant_bytes = 0;
  bool frozen = false;  // as in CompileOptions
  int64_t arena_bytes() const { return activation_bytes + workspace_bytes; }
};

std::string to_text(const Plan& plan);

class Device;

// Runs all passes for that device and plans memory, without touching the device: exact figures before
// anything is allocated. When the environment variable NF_DUMP names a folder, the graph after each pass is
// written there.
Plan plan(const Graph& graph, const Device& device, const CompileOptions& options = {});

}  // namespace nf
