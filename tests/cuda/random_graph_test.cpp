// Random graphs on the CUDA backend, as tests/property/random_graph_test.cpp runs them on the CPU's:
// everything that its kernels can be asked for, in shapes that nobody would choose.
#include <doctest/doctest.h>

#include <cstdlib>

#include "nf/executable.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/property/judge.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Problem;

namespace {

// A problem whose executable is ready, so that the kernels of all can be compiled at once.
struct Ready {
  uint64_t seed;
  Problem problem;
  std::shared_ptr<State> state;
  std::unique_ptr<Executable> executable;
};

Ready prepare(uint64_t seed, const std::shared_ptr<const Device>& device) {
  Ready ready{seed, test::random_problem(seed), std::make_shared<State>(device), nullptr};
  // Every third as it is written, one kernel per op.
  CompileOptions options;
  options.simplify = options.fuse = seed % 3 != 0;
  ready.executable = compile(*ready.problem.graph, ready.state, options);
  return ready;
}

test::Results run(Ready& ready) {
  State& state = *ready.state;
  for (const std::string& name : state.names())
    state.write(name, test::encode(ready.problem.state.at(name), state.type(name).dtype));
  for (const auto& [name, tensor] : ready.problem.inputs)
    if (ready.executable->has_input(name))
      ready.executable->set_bytes(name, test::encode(tensor, ready.executable->input_type(name).dtype));
  ready.executable->run();
  test::Results results;
  for (const Graph::Output& output : ready.problem.graph->outputs()) {
    const TensorType& type = ready.executable->output_type(output.name);
    std::vector<std::byte> bytes(static_cast<size_t>(type.bytes()));
    ready.executable->get_bytes(output.name, bytes);
    results[output.name] = test::decode(bytes, type);
  }
  for (const std::string& name : state.names()) {
    std::vector<std::byte> bytes(static_cast<size_t>(state.type(name).bytes()));
    state.read(name, bytes);
    results[name] = test::decode(bytes, state.type(name));
  }
  return results;
}

}  // namespace

TEST_CASE("cuda: random graphs") {
  const char* first = std::getenv("NF_FIRST_SEED");
  const uint64_t begin = first != nullptr ? std::strtoull(first, nullptr, 10) : 0;
  const auto device = cuda::emulated_cuda_device();
  std::vector<Ready> graphs;
  for (uint64_t seed = begin; seed < begin + 60; ++seed) graphs.push_back(prepare(seed, device));
  test::Tally tally;
  for (Ready& ready : graphs) {
    const test::Results results = run(ready);
    std::string wrong = test::judge(results, test::expectation(ready.problem, test::kQuick), tally);
    if (!wrong.empty()) wrong = test::judge(results, test::expectation(ready.problem, test::kCareful), tally);
    CAPTURE(ready.seed);
    CHECK(wrong == "");
  }
  MESSAGE(tally.compared, " values compared, ", tally.skipped, " too sensitive to rounding");
  CHECK(tally.skipped * 10 <= tally.compared);
}
