// Every gradient rule against central differences in double precision.
//
// A case's function is reduced to a scalar by a fixed random weighting, so that all its outputs count; the
// gradient of that scalar is compared element by element with (f(x + h) - f(x - h)) / 2h. The interpreter
// rounds nothing, so the two agree to about h^2 = 1e-10 and a wrong factor anywhere shows.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "graph/op_table.h"
#include "nf/gradients.h"
#include "tests/graph/gradient_cases.h"
#include "tests/support/graphs.h"

using namespace nf;
using nf::test::GradientCase;
using nf::test::Tensor;

namespace {

constexpr double kStep = 1e-5;
constexpr double kTolerance = 1e-6;

std::vector<GradientCase> all_cases() {
  std::vector<GradientCase> cases;
  for (const auto& some : {test::primitive_cases(), test::function_cases(), test::composite_cases()})
    cases.insert(cases.end(), some.begin(), some.end());
  return cases;
}

std::string argument_name(size_t i) { return "x" + std::to_string(i); }

Values add_arguments(Graph& graph, const GradientCase& c) {
  Values arguments;
  for (size_t i = 0; i < c.arguments.size(); ++i)
    arguments.push_back(input(graph, argument_name(i), DType::f32, c.arguments[i].shape));
  return arguments;
}

Value weighted_sum(Value y, uint64_t seed) {
  const Tensor weights = test::random_tensor(y.shape(), seed);
  return sum(cast(y, DType::f32) * tensor(*y.graph, weights.data, y.shape()));
}

// The scalar that is differentiated; of second order: a weighting of all the first-order gradients.
Value build_loss(Graph& graph, const GradientCase& c, const Values& arguments, int order) {
  const Value loss = weighted_sum(c.build(graph, arguments), 1001);
  if (order == 1) return loss;
  Value result;
  for (const Value& grad : gradients(loss, arguments)) {
    const Value part = weighted_sum(grad, 2002 + static_cast<uint64_t>(grad.id.node));
    result = result ? result + part : part;
  }
  return result;
}

std::vector<Tensor> analytic_gradients(const GradientCase& c, int order) {
  Graph graph;
  const Values arguments = add_arguments(graph, c);
  const Value loss = build_loss(graph, c, arguments, order);
  test::Bindings bindings;
  for (size_t i = 0; i < arguments.size(); ++i) bindings[argument_name(i)] = c.arguments[i];
  const Values grads = gradients(loss, arguments);
  for (size_t i = 0; i < grads.size(); ++i) {
    CHECK(grads[i].shape() == arguments[i].shape());
    graph.output(argument_name(i), grads[i]);
  }
  return test::run_reference(graph, bindings);
}

std::vector<Tensor> numeric_gradients(const GradientCase& c, int order) {
  Graph graph;
  const Values arguments = add_arguments(graph, c);
  graph.output("loss", build_loss(graph, c, arguments, order));
  test::Bindings bindings, no_state;
  for (size_t i = 0; i < arguments.size(); ++i) bindings[argument_name(i)] = c.arguments[i];
  std::vector<Tensor> grads = c.arguments;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::vector<double>& x = bindings[argument_name(i)].data;
    for (size_t j = 0; j < x.size(); ++j) {
      const double at = x[j];
      x[j] = at + kStep;
      const double above = reference::evaluate(graph, bindings, no_state)[0].data[0];
      x[j] = at - kStep;
      const double below = reference::evaluate(graph, bindings, no_state)[0].data[0];
      x[j] = at;
      grads[i].data[j] = (above - below) / (2 * kStep);
    }
  }
  return grads;
}

double norm(const Tensor& tensor) {
  double squares = 0;
  for (double x : tensor.data) squares += x * x;
  return std::sqrt(squares);
}

void check_case(const GradientCase& c, int order) {
  CAPTURE(c.name);
  CAPTURE(order);
  const std::vector<Tensor> analytic = analytic_gradients(c, order);
  const std::vector<Tensor> numeric = numeric_gradients(c, order);
  REQUIRE(analytic.size() == numeric.size());
  for (size_t i = 0; i < analytic.size(); ++i) {
    CAPTURE(i);
    CHECK(norm(numeric[i]) > 1e-3);  // a case whose gradient vanishes would prove nothing
    CHECK(test::relative_error(analytic[i], numeric[i]) < kTolerance);
  }
}

}  // namespace

TEST_CASE("gradients agree with finite differences") {
  for (const GradientCase& c : all_cases()) check_case(c, 1);
}

TEST_CASE("gradients of gradients agree with finite differences") {
  int checked = 0;
  for (const GradientCase& c : all_cases()) {
    if (!c.second) continue;
    check_case(c, 2);
    ++checked;
  }
  CHECK(checked >= 20);
}

TEST_CASE("every op with a gradient has a case") {
  std::set<Op> covered;
  for (const GradientCase& c : all_cases()) {
    Graph graph;
    c.build(graph, add_arguments(graph, c));
    for (int32_t i = 0; i < graph.size(); ++i) covered.insert(graph.node(i).op);
  }
  for (int op = 0; op < static_cast<int>(Op::count_); ++op) {
    if (info(static_cast<Op>(op)).gradient == nullptr) continue;
    CAPTURE(name(static_cast<Op>(op)));
    CHECK(covered.contains(static_cast<Op>(op)));
  }
}

TEST_CASE("every case has a name of its own") {
  std::set<std::string> names;
  for (const GradientCase& c : all_cases()) {
    CAPTURE(c.name);
    CHECK(names.insert(c.name).second);
  }
}

TEST_CASE("equal maxima share the gradient, |x| has none at 0") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4});
  const Values wrt{x};
  graph.output("max", gradients(sum(reduce_max(x, {0})), wrt)[0]);
  graph.output("maximum", gradients(sum(maximum(x, roll(x, 1))), wrt)[0]);
  graph.output("abs", gradients(sum(abs(x - 3.0)), wrt)[0]);
  const auto y = test::run_reference(graph, {{"x", {{4}, {3, 3, 1, 2}}}});
  CHECK(y[0].data == std::vector<double>{0.5, 0.5, 0, 0});
  CHECK(y[1].data == std::vector<double>{1.5, 1.5, 0, 1});  // pairs (3,2) (3,3) (1,3) (2,1)
  CHECK(y[2].data == std::vector<double>{0, 0, -1, -1});
}

TEST_CASE("what the loss does not depend on gets zeros, what it uses twice gets both") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2}), z = input(graph, "z", DType::f32, {2, 2});
  const Values wrt{x, z};
  const Values grads = gradients(sum(x * x + x), wrt);
  graph.output("x", grads[0]);
  graph.output("z", grads[1]);
  const auto y = test::run_reference(graph, {{"x", {{2}, {3, -1}}}, {"z", {{2, 2}, {1, 1, 1, 1}}}});
  CHECK(y[0].data == std::vector<double>{7, -1});
  CHECK(y[1].shape == Shape{2, 2});
  CHECK(y[1].data == std::vector<double>(4, 0));
}

TEST_CASE("gradients with respect to a value in the middle stop there") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2});
  const Value middle = exp(x);
  const Values wrt{middle};
  graph.output("grad", gradients(sum(square(middle)), wrt)[0]);
  const auto y = test::run_reference(graph, {{"x", {{2}, {0, 0}}}});
  CHECK(y[0].data == std::vector<double>{2, 2});
}

TEST_CASE("the gradient of a narrow tensor passes its casts") {
  Graph graph;
  const Value x = input(graph, "x", DType::bf16, {3});
  const Values wrt{x};
  const Value grad = gradients(sum(cast(x * 3.0, DType::bf16) * x), wrt)[0];
  CHECK(is_float(grad.dtype()));
  graph.output("grad", grad);
  CHECK(test::run_reference(graph, {{"x", {{3}, {1, 2, -1}}}})[0].data == std::vector<double>{6, 12, -6});
}

TEST_CASE("a loss that is no scalar, or a path through integers, is refused or carries nothing") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2});
  const Values wrt{x};
  CHECK_THROWS_AS(gradients(x, wrt), Error);
  CHECK_THROWS_AS(gradients(sum(cast(x, DType::i32)), wrt), Error);
  const Value masked =
      where(less(x, constant_like(x, 0)), x * 2.0, x * 5.0);  // no gradient through the comparison
  graph.output("grad", gradients(sum(masked), wrt)[0]);
  CHECK(test::run_reference(graph, {{"x", {{2}, {-1, 1}}}})[0].data == std::vector<double>{2, 5});
}
