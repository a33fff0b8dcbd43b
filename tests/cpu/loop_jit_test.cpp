// Machine code for fused loops: the interpreter's bits, within the memory it may touch.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/loop.h"
#include "cpu/loop_jit.h"
#include "nf/device.h"
#include "nf/ops.h"
#include "nf/optim.h"
#include "tests/passes/passes_support.h"
#include "tests/support/tensors.h"

using namespace nf;
using test::Random;

namespace {

Value leaf(Graph& graph, int64_t index, DType dtype, const Shape& shape) {
  return graph.add(Op::input, {},
                   {{"index", index}, {"dtype", static_cast<int64_t>(dtype)}, {"shape", shape}});
}

void run(const Graph& body, const Shape& space, const std::vector<TensorView>& inputs,
         const std::vector<TensorView>& outputs, cpu::LoopCodes* codes) {
  const cpu::LoopKernel kernel(body, space, inputs, outputs, codes);
  std::vector<std::byte> workspace(cpu::LoopKernel::workspace(body, space, 1));
  kernel.run(workspace.data(), 1);
}

// All states, constants and activations of a plan, in one piece of memory.
class PlanMemory {
 public:
  explicit PlanMemory(const Plan& plan) {
    const auto place = [&](int64_t bytes) {
      const size_t offset = bytes_.size();
      bytes_.resize(offset + static_cast<size_t>((bytes + 63) / 64 * 64));
      return offset;
    };
    const size_t arena = place(plan.arena_bytes()), constants = place(plan.constant_bytes);
    std::vector<size_t> states;
    for (const Plan::StateUse& use : plan.states)
      states.push_back(place(use.type.shape.elements() * size_of(use.type.dtype)));
    bound_ =
        std::make_unique<BoundPlan>(BoundPlan{plan, bytes_.data() + arena, bytes_.data() + constants, {}});
    for (const size_t state : states) bound_->states.push_back(bytes_.data() + state);
  }

  TensorView view(ValueId id) const { return bound_->view(id); }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::unique_ptr<BoundPlan> bound_;
};

void fill(const TensorView& view, Random& random) {
  for (int64_t i = 0; i < view.shape.elements(); ++i) {
    int64_t offset = 0, rest = i;
    for (int axis = view.shape.rank() - 1; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.strides[axis];
      rest /= view.shape[axis];
    }
    const auto real = static_cast<float>(random.normal());
    switch (view.dtype) {
      case DType::f32: view.as<float>()[offset] = real; break;
      case DType::bf16: view.as<bf16>()[offset] = to_bf16(real); break;
      case DType::f16: view.as<f16>()[offset] = to_f16(real); break;
      case DType::i32: view.as<int32_t>()[offset] = static_cast<int32_t>(random.integer(0, 9)); break;
      default: view.as<uint8_t>()[offset] = static_cast<uint8_t>(random.integer(0, 1));
    }
  }
}

// Runs each loop of the graph's plan both ways on the same contents; returns how many there are.
int check_loops(const Graph& graph, cpu::LoopCodes& codes) {
  const Plan compiled = plan(graph, *cpu_device(1));
  PlanMemory ours(compiled), theirs(compiled);
  Random random(7);
  int loops = 0;
  for (const Plan::Step& step : compiled.steps) {
    const Node& node = compiled.graph->node(step.node);
    if (node.op != Op::loop) continue;
    std::vector<TensorView> inputs[2], outputs[2];
    for (const ValueId id : node.inputs) fill(ours.view(id), random);
    theirs.bytes() = ours.bytes();
    for (int who = 0; who < 2; ++who) {
      PlanMemory& memory = who == 0 ? ours : theirs;
      for (const ValueId id : node.inputs) inputs[who].push_back(memory.view(id));
      for (int32_t o = 0; o < static_cast<int32_t>(node.outputs.size()); ++o)
        outputs[who].push_back(memory.view({step.node, o}));
      run(*node.attributes.body("body"), node.attributes.list("space"), inputs[who], outputs[who],
          who == 0 ? &codes : nullptr);
    }
    CAPTURE(cpu::LoopKernel(*node.attributes.body("body"), node.attributes.list("space"), inputs[0],
                            outputs[0], &codes)
                .describe());
    CHECK(ours.bytes() == theirs.bytes());
    ++loops;
  }
  return loops;
}

// An array that ends where memory does: whoever reads or writes on is stopped.
class Guarded {
 public:
  Guarded(DType dtype, const Shape& shape) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto bytes = static_cast<size_t>(shape.elements() * size_of(dtype));
    size_ = (bytes + page - 1) / page * page + page;
    base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(base_ != MAP_FAILED);
    auto* end = static_cast<std::byte*>(base_) + size_ - page;
    REQUIRE(mprotect(end, page, PROT_NONE) == 0);
    view_ = {end - bytes, dtype, shape, dense_strides(shape)};
  }
  ~Guarded() { munmap(base_, size_); }
  Guarded(const Guarded&) = delete;
  const TensorView& view() const { return view_; }

 private:
  void* base_;
  size_t size_;
  TensorView view_;
};

using Function = Value (*)(Value);
constexpr Function kFunctions[] = {
    [](Value x) { return exp(x); },
    [](Value x) { return log(x); },
    [](Value x) { return sqrt(x); },
    [](Value x) { return rsqrt(x); },
    [](Value x) { return tanh(x); },
    [](Value x) { return sigmoid(x); },
    [](Value x) { return erf(x); },
    [](Value x) { return sin(x); },
    [](Value x) { return cos(x); },
    [](Value x) { return abs(x); },
    [](Value x) { return -x; },
    [](Value x) { return cast(cast(x, DType::bf16), DType::f32); },
    [](Value x) { return cast(cast(x, DType::f16), DType::f32); },
    [](Value x) { return cast(cast(x, DType::i32), DType::f32); },
    [](Value x) { return cast(cast(x, DType::u8), DType::f32); },
    [](Value x) { return cast(cast(x, DType::boolean), DType::f32); },
    [](Value x) { return cast(x, DType::bf16); },
    [](Value x) { return maximum(x, constant_like(x, 0.5)); },
    [](Value x) { return minimum(constant_like(x, -0.0), x); },
    [](Value x) { return where(less(x, constant_like(x, 1)), x, x * 3.0); },
    [](Value x) { return where(less_equal(constant_like(x, 1), x), x + 2.0, constant_like(x, 4)); },
};

// Special values, then floats of all magnitudes.
std::vector<float> samples() {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0.0F,   -0.0F,   kInf,     -kInf,   std::numeric_limits<float>::quiet_NaN(),
                               88.73F, -87.34F, -103.9F,  -104.5F, 0.625F,
                               1e-45F, -1e-45F, 1.1e-38F, 0.9251F, 4.0F};
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 60013)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (float x = -20; x < 20; x += 0.0031F) values.push_back(x);
  return values;
}

}  // namespace

TEST_CASE("loop jit: functions of all floats have the interpreter's bits") {
  if (!cpu::LoopCodes::available()) return;
  std::vector<float> x = samples();
  const Shape space = {static_cast<int64_t>(x.size())};
  for (const Function& function : kFunctions) {
    CAPTURE(&function - kFunctions);
    Graph body;
    body.output("y", function(leaf(body, 0, DType::f32, space)));
    const TensorType type = body.type(body.outputs()[0].value);
    std::vector<std::byte> got(static_cast<size_t>(space.elements() * size_of(type.dtype))), expected = got;
    const TensorView in{x.data(), DType::f32, space, {1}};
    cpu::LoopCodes codes;
    run(body, space, {in}, {{got.data(), type.dtype, space, {1}}}, &codes);
    run(body, space, {in}, {{expected.data(), type.dtype, space, {1}}}, nullptr);
    CHECK(codes.count() == 1);
    CHECK(got == expected);
  }
}

TEST_CASE("loop jit: the loops of the models' training steps have the interpreter's bits") {
  cpu::LoopCodes codes;
  for (const std::string variant : test::kVariants)
    for (const DType compute : {DType::f32, DType::bf16}) {
      CAPTURE(variant);
      CHECK(check_loops(*test::tiny_step(variant, 2, compute, true), codes) > 10);
      CHECK(check_loops(*update_step(test::tiny_config(variant), {.ema = 0.9}, compute), codes) > 0);
    }
  if (cpu::LoopCodes::available()) CHECK(codes.count() > 10);
}

TEST_CASE("loop jit: equal loops share their code") {
  if (!cpu::LoopCodes::available()) return;
  cpu::LoopCodes codes;
  const Shape space = {40, 48};
  std::vector<float> x(static_cast<size_t>(space.elements())), y = x;
  for (const double factor : {2.0, 3.0, 2.0}) {
    Graph body;
    body.output("y", leaf(body, 0, DType::f32, space) * factor);
    run(body, space, {{x.data(), DType::f32, space, {48, 1}}}, {{y.data(), DType::f32, space, {48, 1}}},
        &codes);
  }
  CHECK(codes.count() == 2);
}

TEST_CASE("loop jit: nothing beyond the end of an array is touched") {
  for (const int64_t cols : {1, 5, 16, 31, 64, 100, 129, 5000})
    for (const DType narrow : {DType::bf16, DType::f16, DType::u8}) {
      CAPTURE(cols);
      const Shape space = {3, cols};
      Graph body;
      const Value x = leaf(body, 0, DType::f32, space), gain = leaf(body, 1, DType::f32, {1, cols});
      const Value small = leaf(body, 2, narrow, space), row = leaf(body, 3, DType::f32, {3, 1});
      const Value sum = rms_norm(x + cast(small, DType::f32) * row, 1e-6) * gain;
      body.output("y", sum);
      body.output("narrow", cast(abs(sum), narrow));
      body.output("column", reduce_sum(sum * x, {0}));
      body.output("row", reduce_max(sum, {-1}));
      std::vector<std::unique_ptr<Guarded>> arrays[2];
      std::vector<TensorView> inputs, outputs[2];
      Random random(5);
      std::vector<std::unique_ptr<Guarded>> leaves;
      for (const Value& value : {x, gain, small, row}) {
        leaves.push_back(std::make_unique<Guarded>(value.dtype(), value.shape()));
        fill(leaves.back()->view(), random);
        inputs.push_back(leaves.back()->view());
      }
      cpu::LoopCodes codes;
      for (int who = 0; who < 2; ++who) {
        for (const Graph::Output& output : body.outputs()) {
          const TensorType& type = body.type(output.value);
          arrays[who].push_back(std::make_unique<Guarded>(type.dtype, type.shape));
          outputs[who].push_back(arrays[who].back()->view());
        }
        run(body, space, inputs, outputs[who], who == 0 ? &codes : nullptr);
      }
      if (cpu::LoopCodes::available() && cols > 1) CHECK(codes.count() > 0);
      for (size_t o = 0; o < outputs[0].size(); ++o)
        CHECK(std::memcmp(outputs[0][o].data, outputs[1][o].data,
                          static_cast<size_t>(outputs[0][o].bytes())) == 0);
    }
}
