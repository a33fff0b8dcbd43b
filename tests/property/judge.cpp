#include "tests/property/judge.h"

#include <cmath>
#include <set>

#include "graph/op_table.h"
#include "tests/support/graphs.h"

namespace nf::test {
namespace {

constexpr double kFloor = 2e-6;  // a result may always be this far off, and
constexpr double kShakes = 12;   // this many times what shaking does
constexpr double kSmall = 1e-3;  // elements below this count as this large

// Whether computing the node in floats rounds anew; comparisons, choices and copies do not.
bool rounds(const Graph& graph, const Node& node) {
  static const std::set<Op> kExact = {Op::neg,        Op::abs,   Op::max,  Op::min,       Op::where,
                                      Op::reduce_max, Op::equal, Op::less, Op::less_equal};
  if (node.op == Op::cast && size_of(node.outputs[0].dtype) >= size_of(graph.type(node.inputs[0]).dtype))
    return false;
  const OpKind kind = nf::kind(node.op);
  return kind != OpKind::leaf && kind != OpKind::movement && kind != OpKind::state &&
         !kExact.contains(node.op);
}

// One unit in the last place of what the node computes. Composites of narrow operands round inside, too.
double last_place(const Graph& graph, const Node& node, DType dtype) {
  bool narrow = dtype != DType::f32;
  if (kind(node.op) == OpKind::composite)
    for (ValueId id : node.inputs) narrow = narrow || graph.type(id).dtype == DType::bf16;
  return narrow ? 0x1p-8 : 0x1p-23;
}

}  // namespace

Results named(const Graph& graph, std::vector<Tensor> outputs, Bindings state) {
  Results results = std::move(state);
  for (size_t i = 0; i < outputs.size(); ++i) results[graph.outputs()[i].name] = std::move(outputs[i]);
  return results;
}

Problem random_problem(uint64_t seed) {
  const auto random_graph = std::make_shared<RandomGraph>();
  fill_randomly(*random_graph, seed);
  for (int32_t i = 0; i < random_graph->graph.size(); ++i) {
    const Node& node = random_graph->graph.node(i);
    if (node.op != Op::input && node.op != Op::state) continue;
    Bindings& bindings = node.op == Op::input ? random_graph->inputs : random_graph->state;
    for (double& x : bindings.at(node.attributes.text("name")).data) x = rounded(x, node.outputs[0].dtype);
  }
  verify(random_graph->graph);
  return {std::shared_ptr<const Graph>(random_graph, &random_graph->graph), random_graph->inputs,
          random_graph->state};
}

double distance(const Tensor& a, const Tensor& b) {
  double squares = 0;
  for (double x : b.data)
    if (std::isfinite(x)) squares += x * x;
  const double norm = std::sqrt(squares);
  const double error = relative_error(a, b) * (norm > 0 ? norm : 1);
  return error / std::max(norm, kSmall * std::sqrt(static_cast<double>(b.data.size())));
}

reference::Observer rounding(const Graph& graph, double ulps, Random& random) {
  return [&graph, ulps, &random](int32_t index, std::span<Tensor> outputs) {
    const Node& node = graph.node(index);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const DType dtype = node.outputs[i].dtype;
      if (!is_float(dtype)) continue;
      const bool is_read = node.op == Op::input || node.op == Op::state;
      const double size = is_read ? ulps * 0x1p-23  // as a sum of it in another order might see it
                          : rounds(graph, node) ? ulps * last_place(graph, node, dtype)
                                                : 0;
      for (double& x : outputs[i].data) {
        if (size > 0) x *= 1 + size * random.uniform(-1, 1);
        if (!is_read) x = rounded(x, dtype);
      }
    }
  };
}

Results interpret(const Problem& problem, const reference::Observer& observer) {
  Bindings state = problem.state;
  std::vector<Tensor> outputs = reference::evaluate(*problem.graph, problem.inputs, state, observer);
  return named(*problem.graph, std::move(outputs), std::move(state));
}

Expectation expectation(const Problem& problem, int runs) {
  Random random(7);
  Expectation result{.exact = interpret(problem, {}),
                     .rounded = interpret(problem, rounding(*problem.graph, 0, random)),
                     .shake = {}};
  for (int run = 0; run < runs; ++run)
    for (const auto& [name, tensor] : interpret(problem, rounding(*problem.graph, 2, random)))
      result.shake[name] = std::max(result.shake[name], distance(tensor, result.rounded.at(name)));
  return result;
}

std::string judge(const Results& results, const Expectation& expected, Tally& tally) {
  for (const auto& [name, tensor] : results) {
    const double shake = expected.shake.at(name);
    ++(shake < kTooShaky ? tally.compared : tally.skipped);
    const double error = distance(tensor, expected.rounded.at(name));
    if (shake < kTooShaky && !(error <= kFloor + kShakes * shake))
      return fmt::format("{} is off by {:.2e}, where shaking the last bits moves it by {:.2e}", name, error,
                         shake);
  }
  return "";
}

}  // namespace nf::test
