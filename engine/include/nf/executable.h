// A compiled graph, bound to a device and a State.
//
//   auto device = nf::cpu_device();
//   auto state = std::make_shared<nf::State>(device);
//   auto step = nf::compile(graph, state);
//   step->set("x", x);  step->run();  float loss = step->scalar("loss");
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nf/compile.h"
#include "nf/device.h"
#include "nf/state.h"

namespace nf {

// What one step of the plan did, summed over runs while profiling.
struct StepProfile {
  std::string kind;   // "matmul", "loop", …
  std::string scope;  // "layers.3.mlp"
  bool backward = false;
  double seconds = 0;
  double flops = 0;  // per run
  double bytes = 0;  // read and written per run
  int64_t runs = 0;
  std::vector<std::pair<double, double>> spans;  // start and length in seconds of each run, for traces
};

class Executable {
 public:
  // Binds the plan to memory: states are made where they are missing. `arena` may be shared by executables
  // that never run at the same time; it must hold plan.arena_bytes(), and is allocated when empty.
  Executable(Plan plan, std::shared_ptr<State> state, Buffer arena = {}, std::string name = "graph");

  // Copies the input in; throws Error when there is no such input or the sizes differ. Inputs keep their
  // values from run to run, unless another executable uses the same arena in between.
  template <typename T>
  void set(std::string_view name, std::span<const T> values) {
    set_bytes(name, std::as_bytes(values));
  }
  void set_bytes(std::string_view name, std::span<const std::byte> bytes);
  bool has_input(std::string_view name) const;
  const TensorType& input_type(std::string_view name) const;

  // Runs every step. Allocates nothing, but for the first run. On a GPU it returns when the steps are on
  // their way; reading an output waits for them.
  void run();

  // Outputs are valid until something else runs in the same arena. Dense and row-major.
  void get_bytes(std::string_view name, std::span<std::byte> bytes) const;
  const TensorType& output_type(std::string_view name) const;
  float scalar(std::string_view name) const;  // an f32 output of one element
  // Begins to copy the output to an offset of `to`, where it is valid whatever runs next.
  void read_later(std::string_view name, Readback& to, int64_t at) const;

  const Plan& plan() const { return plan_; }
  const std::string& name() const { return name_; }

  // While on, run() measures every step.
  void set_profiling(bool on);
  const std::vector<StepProfile>& profile() const { return profile_; }

  // Runs once more, looking at everything each step reads and writes: says which state, input or node first
  // holds a NaN or an infinity ("attention in layers.2.self_attn"), or "" if none does. For error messages;
  // not fast.
  std::string find_nonfinite();

 private:
  ValueId find_input(std::string_view name) const;
  ValueId find_output(std::string_view name) const;
  void run_profiled();

  Plan plan_;
  std::shared_ptr<State> state_;
  Buffer arena_, constants_;
  std::unique_ptr<BoundPlan> bound_;
  std::vector<std::pair<std::string, ValueId>> inputs_;
  std::vector<Launch> launches_;
  Launch recorded_;  // all of them, made by the first run
  std::string name_;
  bool profiling_ = false;
  std::vector<StepProfile> profile_;
};

// Plans the graph for the State's device and binds it.
std::unique_ptr<Executable> compile(const Graph& graph, std::shared_ptr<State> state,
                                    const CompileOptions& options = {}, Buffer arena = {});

// Profiles as a table (time, share, GFLOP/s and GB/s per kind of step) and as a trace that chrome://tracing
// and Perfetto open.
std::string profile_table(std::span<const Executable* const> executables);
std::string profile_trace(std::span<const Executable* const> executables);

}  // namespace nf
