// What optimizer_update does around every rule, and the check values of AdamW.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "nf/error.h"
#include "nf/executable.h"
#include "nf/ops.h"
#include "tests/optim/update_support.h"

using namespace nf;
using namespace nf::test;

namespace {

constexpr Optimizer kOptimizers[] = {Optimizer::adamw, Optimizer::sgd, Optimizer::lion, Optimizer::muon};

std::vector<std::shared_ptr<const Device>> devices() { return {reference_device(), cpu_device(2)}; }

double norm_of(const Tensor& x) {
  double squares = 0;
  for (double v : x.data) squares += v * v;
  return std::sqrt(squares);
}

template <typename Function>
Tensor mapped(Tensor x, Function function) {
  for (double& v : x.data) v = function(v);
  return x;
}

Tensor zeros(const Shape& shape) {
  return {shape, std::vector<double>(static_cast<size_t>(shape.elements()))};
}

}  // namespace

TEST_CASE("the first AdamW step is eta g / (|g| + eps)") {
  const Tensor gradient = random_tensor({5, 33}, 21);
  const double eta = 0.25, eps = 0.01;
  const OptimizerOptions options{.weight_decay = 0, .eps = eps, .clip = 0};
  const Tensor expected = mapped(gradient, [&](double g) { return -eta * g / (std::fabs(g) + eps); });
  for (const auto& device : devices()) {
    Bindings state{{"w", zeros(gradient.shape)}};
    run_step(device, options, {.gradient = gradient, .learning_rate = eta}, state);
    CHECK(relative_error(state.at("w"), expected) < 1e-6);
  }
}

TEST_CASE("bias correction keeps its digits at every step") {
  const Tensor gradient = random_tensor({40}, 22);
  const double eta = 0.5, eps = 1e-3;
  for (const double beta2 : {0.95, 0.999, 0.99999})
    for (const int64_t step : {1, 2, 30, 5000, 2000000}) {
      CAPTURE(beta2);
      CAPTURE(step);
      const OptimizerOptions options{.weight_decay = 0, .beta2 = beta2, .eps = eps, .clip = 0};
      const auto t = static_cast<double>(step);
      const Tensor expected = mapped(gradient, [&](double g) {
        const double m = 0.1 * g / (1 - std::pow(0.9, t));
        const double v = (1 - beta2) * g * g / -std::expm1(t * std::log(beta2));
        return -eta * m / (std::sqrt(v) + eps);
      });
      Bindings state{{"w", zeros(gradient.shape)}};
      run_step(cpu_device(1), options, {.gradient = gradient, .learning_rate = eta, .step = step}, state);
      CHECK(relative_error(state.at("w"), expected) < 1e-6);
    }
}

TEST_CASE("gradients are scaled, then clipped by their common norm") {
  const std::vector<Shape> shapes{{7, 9}, {30}, {2, 3, 4}};
  const double scale = 0.125, eta = 2;
  Bindings inputs{{"learning_rate", {{}, {eta}}}, {"step", {{}, {1}}}, {"gradient_scale", {{}, {scale}}}};
  Bindings start;
  double squares = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string number = i == 0 ? "" : std::to_string(i);
    inputs["g" + number] = random_tensor(shapes[i], 30 + i);
    start["w" + number] = random_tensor(shapes[i], 40 + i);
    squares += std::pow(scale * norm_of(inputs["g" + number]), 2);
  }
  const double norm = std::sqrt(squares);
  CHECK(norm > 1);
  CHECK(norm < 10);
  for (const auto& device : devices())
    for (const double clip : {0.0, 0.5, 10.0}) {
      CAPTURE(clip);
      Graph graph;
      build_update(graph, shapes,
                   {.optimizer = Optimizer::sgd, .weight_decay = 0, .momentum = 0, .clip = clip});
      Bindings state = start;
      const std::vector<Tensor> outputs = run_on(device, graph, inputs, state);
      CHECK(outputs[0].data[0] == doctest::Approx(norm).epsilon(1e-6));
      const double factor = scale * (clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1);
      for (size_t i = 0; i < shapes.size(); ++i) {
        const std::string number = i == 0 ? "" : std::to_string(i);
        Tensor expected = start.at("w" + number);
        for (size_t j = 0; j < expected.data.size(); ++j)
          expected.data[j] -= eta * factor * inputs.at("g" + number).data[j];
        CHECK(largest_error(state.at("w" + number), expected) < 1e-6);
        CHECK(outputs[i + 1].data == state.at("w" + number).data);
      }
    }
}

TEST_CASE("a step whose gradient is not finite changes no bit") {
  const Shape shape{6, 20};
  Bindings start;
  for (const char* name : {"w", "adamw.m/w", "momentum/w", "ema/w"})
    start[name] = mapped(random_tensor(shape, std::hash<std::string>{}(name)),
                         [](double x) { return rounded(x, DType::f32); });
  start["adamw.v/w"] = mapped(start.at("w"), [](double x) { return rounded(x * x, DType::f32); });
  for (const auto& device : devices())
    for (const Optimizer optimizer : kOptimizers)
      for (const int normalize_axis : {-1, 0, 1})
        for (const double poison :
             {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1.0}) {
          CAPTURE(static_cast<int>(optimizer));
          CAPTURE(poison);
          Tensor gradient = random_tensor(shape, 51);
          gradient.data[77] = poison;
          Bindings state = start;
          const double norm =
              run_step(device, {.optimizer = optimizer, .ema = 0.9}, {.gradient = gradient, .step = 3}, state,
                       [&](TrainedParameter& p) { p.normalize_axis = normalize_axis; });
          const bool finite = poison == 1.0;
          CHECK(std::isfinite(norm) == finite);
          const bool moments = optimizer == Optimizer::adamw;
          const std::set<std::string> touched{"w", "ema/w", moments ? "adamw.m/w" : "momentum/w",
                                              moments ? "adamw.v/w" : "w"};
          for (const auto& [name, tensor] : start) {
            CAPTURE(name);
            CHECK((state.at(name).data == tensor.data) == !(finite && touched.contains(name)));
          }
        }
}

TEST_CASE("the average starts at the first weight and follows") {
  const Shape shape{3, 8};
  const double decay = 0.75;
  for (const auto& device : devices())
    for (const Optimizer optimizer : kOptimizers) {
      Bindings state{{"w", random_tensor(shape, 61)}};
      Tensor expected = state.at("w");
      state["ema/w"] = random_tensor(shape, 62);  // left over from something else: not looked at
      for (int64_t step = 1; step <= 3; ++step) {
        const Tensor gradient = random_tensor(shape, 62 + static_cast<uint64_t>(step));
        run_step(device, {.optimizer = optimizer, .ema = decay},
                 {.gradient = gradient, .learning_rate = 0.1, .step = step}, state);
        for (size_t i = 0; i < expected.data.size(); ++i)
          expected.data[i] = decay * expected.data[i] + (1 - decay) * state.at("w").data[i];
        CHECK(largest_error(state.at("ema/w"), expected) < 1e-6);
      }
    }
}

TEST_CASE("when the first step is skipped the average is the weight nevertheless") {
  const Shape shape{4};
  Bindings state{{"w", random_tensor(shape, 71)}};
  const Tensor poison = mapped(zeros(shape), [](double) { return std::nan(""); });
  run_step(cpu_device(1), {.ema = 0.9}, {.gradient = poison}, state);
  CHECK(state.at("ema/w").data == state.at("w").data);
}

TEST_CASE("weights are normalised along their axis after the update") {
  const Shape shape{6, 10};
  const Tensor weight = random_tensor(shape, 81), gradient = random_tensor(shape, 82);
  for (const auto& device : devices())
    for (const Optimizer optimizer : kOptimizers) {
      Bindings plain{{"w", weight}};
      const OptimizerStep step{.gradient = gradient, .learning_rate = 0.3};
      run_step(device, {.optimizer = optimizer}, step, plain);
      for (const int axis : {0, 1}) {
        Tensor expected = plain.at("w");
        for (int64_t line = 0; line < shape[1 - axis]; ++line) {
          const auto at = [&](int64_t k) -> double& {
            return expected.data[static_cast<size_t>(axis == 1 ? line * 10 + k : k * 10 + line)];
          };
          double squares = 0;
          for (int64_t k = 0; k < shape[axis]; ++k) squares += at(k) * at(k);
          for (int64_t k = 0; k < shape[axis]; ++k) at(k) /= std::sqrt(squares);
        }
        Bindings state{{"w", weight}};
        run_step(device, {.optimizer = optimizer, .ema = 0.5}, step, state,
                 [&](TrainedParameter& p) { p.normalize_axis = axis; });
        CHECK(largest_error(state.at("w"), expected) < 1e-6);
        // The average is that of the normalised weights.
        for (size_t i = 0; i < expected.data.size(); ++i)
          expected.data[i] = 0.5 * (weight.data[i] + expected.data[i]);
        CHECK(largest_error(state.at("ema/w"), expected) < 1e-6);
      }
    }
}

TEST_CASE("weight decay applies where it is asked for") {
  const Tensor weight = mapped(zeros({2, 4}), [](double) { return 1.0; });
  for (const Optimizer optimizer : kOptimizers)
    for (const bool decay : {false, true}) {
      Bindings state{{"w", weight}};
      run_step(cpu_device(1), {.optimizer = optimizer, .weight_decay = 0.5, .nesterov = false},
               {.gradient = zeros({2, 4}), .learning_rate = 0.5}, state,
               [&](TrainedParameter& p) { p.decay = decay; });
      for (double w : state.at("w").data) CHECK(w == (decay ? 0.75 : 1.0));
    }
}

TEST_CASE("Muon leaves what is no matrix of a layer to AdamW") {
  const Tensor weight = random_tensor({4, 6}, 91), gradient = random_tensor({4, 6}, 92);
  Bindings muon{{"w", weight}}, adamw = muon;
  run_step(cpu_device(1), {.optimizer = Optimizer::muon}, {.gradient = gradient}, muon,
           [](TrainedParameter& p) { p.layer_matrix = false; });
  run_step(cpu_device(1), {}, {.gradient = gradient}, adamw);
  CHECK(muon.at("w").data == adamw.at("w").data);
  CHECK(muon.at("adamw.v/w").data == adamw.at("adamw.v/w").data);
  CHECK(norm_of(muon.at("momentum/w")) == 0);
}

TEST_CASE("AdamW is one loop per parameter that works in place") {
  for (const double ema : {0.0, 0.99})
    for (const int normalize_axis : {-1, 1}) {
      Graph graph;
      build_update(graph, {{48, 64}}, {.ema = ema},
                   [&](TrainedParameter& p) { p.normalize_axis = normalize_axis; });
      const auto state = std::make_shared<State>(cpu_device(1));
      const auto executable = compile(graph, state);
      const Plan& plan = executable->plan();
      CAPTURE(to_text(plan));
      int writers = 0, large = 0;
      for (const Plan::Step& step : plan.steps) {
        const Node& node = plan.graph->node(step.node);
        CHECK(node.op == Op::loop);
        std::set<std::string> written;
        for (const Place& place : plan.places[static_cast<size_t>(step.node)])
          if (place.region == Place::Region::state)
            written.insert(plan.states[static_cast<size_t>(place.index)].name);
        large += node.attributes.list("space").elements() == 48 * 64 ? 1 : 0;
        if (written.empty()) continue;
        ++writers;
        std::set<std::string> expected{"w", "adamw.m/w", "adamw.v/w"};
        if (ema > 0) expected.insert("ema/w");
        CHECK(written == expected);
      }
      CHECK(writers == 1);
      CHECK(large == 2);  // the norm and the update
    }
}

TEST_CASE("the bits of an update do not depend on the number of threads") {
  const std::vector<Shape> shapes{{96, 200}, {5000}, {200, 96}};
  for (const Optimizer optimizer : kOptimizers) {
    std::vector<Bindings> results;
    for (const int threads : {1, 3}) {
      Graph graph;
      build_update(graph, shapes, {.optimizer = optimizer, .ema = 0.9});
      Bindings inputs{{"learning_rate", {{}, {0.01}}}, {"step", {{}, {2}}}, {"gradient_scale", {{}, {0.1}}}};
      Bindings state;
      for (size_t i = 0; i < shapes.size(); ++i) {
        const std::string number = i == 0 ? "" : std::to_string(i);
        inputs["g" + number] = random_tensor(shapes[i], 100 + i);
        state["w" + number] = random_tensor(shapes[i], 110 + i);
        for (const char* kind : {"adamw.m/w", "adamw.v/w", "momentum/w", "ema/w"})
          state[kind + number] = zeros(shapes[i]);
      }
      run_on(cpu_device(threads), graph, inputs, state);
      results.push_back(std::move(state));
    }
    for (const auto& [name, tensor] : results[0]) {
      CAPTURE(name);
      CHECK(tensor.data == results[1].at(name).data);
    }
  }
}

TEST_CASE("options and parameters out of range are refused") {
  const auto refuses = [](const OptimizerOptions& options, const Adjust& adjust = {}) {
    Graph graph;
    CHECK_THROWS_AS(build_update(graph, {{4, 4}, {4}}, options, adjust), Error);
  };
  refuses({.beta1 = 1});
  refuses({.beta2 = -0.1});
  refuses({.eps = -1});
  refuses({.weight_decay = std::nan("")});
  refuses({.momentum = 1});
  refuses({.clip = std::numeric_limits<double>::infinity()});
  refuses({.ema = 1});
  refuses({.optimizer = Optimizer::muon, .muon_products = DType::f64});
  refuses({.optimizer = static_cast<Optimizer>(99)});
  refuses({}, [](TrainedParameter& p) { p.name = std::string("w"); });
  refuses({}, [](TrainedParameter& p) { p.normalize_axis = 1; });  // the vector has no axis 1
  refuses({}, [](TrainedParameter& p) { p.gradient = sum(p.gradient); });
  refuses({}, [](TrainedParameter& p) { p.weight = p.gradient; });
  refuses({.optimizer = Optimizer::muon}, [](TrainedParameter& p) { p.layer_matrix = true; });
  Graph graph;
  CHECK_NOTHROW(build_update(graph, {{4, 4}, {4}}, {.optimizer = Optimizer::muon, .clip = 0}));
  const Value one = constant(graph, 1);
  CHECK_THROWS_AS(optimizer_update({}, {}, {one, one, one}), Error);
}
