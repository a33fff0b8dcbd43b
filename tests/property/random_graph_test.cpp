// A thousand random graphs, compiled for the CPU with passes on and off, against the interpreter on the graph
// as written.
//
// Three comparisons per graph:
//  1. The compiled graph, run by the interpreter in double precision, against the graph as written: nothing
//  is rounded,
//     so passes that keep the meaning agree to 1e-8 and any other does not.
//  2. The CPU against the interpreter with every value rounded to its dtype, as far as rounding matters
//     (judge.h).
//  3. One thread against three: the same bits.
// A failure prints its seed and the smallest graph that still fails: outputs are dropped and values become
// inputs as long as it does. NF_FIRST_SEED and NF_SEEDS choose other seeds than the first thousand.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>

#include "graph/op_table.h"
#include "nf/compile.h"
#include "nf/ops.h"
#include "tests/property/judge.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Bindings;
using test::Expectation;
using test::kCareful;
using test::kQuick;
using test::Problem;
using test::RandomGraph;
using test::Results;
using test::Tally;
using test::Tensor;

namespace {

constexpr double kExactTolerance = 1e-8;
// ---- one comparison

// What is wrong with the compiled graph; empty if nothing is.
std::string mistake(const Problem& problem, const Expectation& expected, const CompileOptions& options,
                    Tally& tally) {
  try {
    const Plan compiled = plan(*problem.graph, *cpu_device(1), options);
    const Problem optimized{compiled.graph, problem.inputs, problem.state};
    for (const auto& [name, tensor] : test::interpret(optimized, {}))
      if (const double error = test::distance(tensor, expected.exact.at(name));
          error > kExactTolerance && expected.shake.at(name) < test::kTooShaky)
        return fmt::format("the compiled graph means something else: {} is off by {:.2e}", name, error);

    std::optional<Results> one_thread;
    for (const int threads : {1, 3}) {
      Bindings state = problem.state;
      std::vector<Tensor> outputs =
          test::run_on(cpu_device(threads), *problem.graph, problem.inputs, state, options);
      const Results results = test::named(*problem.graph, std::move(outputs), std::move(state));
      if (one_thread) {
        for (const auto& [name, tensor] : results)
          if (test::largest_error(tensor, one_thread->at(name)) != 0)
            return fmt::format("{} has other bits on three threads than on one", name);
        break;
      }
      one_thread = results;
      if (const std::string wrong = test::judge(results, expected, tally); !wrong.empty())
        return "the CPU is off: " + wrong;
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// ---- making a failure small

// The values of all nodes, rounded, to put in their place.
std::vector<std::vector<Tensor>> all_values(const Problem& problem) {
  test::Random random(0);
  const reference::Observer round = test::rounding(*problem.graph, 0, random);
  std::vector<std::vector<Tensor>> values(static_cast<size_t>(problem.graph->size()));
  test::interpret(problem, [&](int32_t node, std::span<Tensor> outputs) {
    round(node, outputs);
    values[static_cast<size_t>(node)].assign(outputs.begin(), outputs.end());
  });
  return values;
}

class Shrinker {
 public:
  using Fails = std::function<bool(const Problem&)>;
  Shrinker(const Problem& problem, Fails fails)
      : problem_(problem), fails_(std::move(fails)), values_(all_values(problem)) {
    for (const Graph::Output& output : problem.graph->outputs()) outputs_.insert(output.name);
    effects_.insert(problem.graph->effects().begin(), problem.graph->effects().end());
  }

  Problem run() {
    drop_each(outputs_);
    drop_each(effects_);
    for (int32_t i = problem_.graph->size() - 1; i >= 0; --i) {
      if (kind(problem_.graph->node(i).op) == OpKind::leaf || effects_.contains(i)) continue;
      if (values_[static_cast<size_t>(i)].empty()) continue;
      cut_.insert(i);
      if (!fails_(build())) cut_.erase(i);
    }
    return build();
  }

 private:
  template <typename Set>
  void drop_each(Set& kept) {
    const Set all = kept;
    for (const auto& item : all) {
      kept.erase(item);
      if (!fails_(build())) kept.insert(item);
    }
  }

  Problem build() const {
    const Graph& from = *problem_.graph;
    auto to = std::make_shared<Graph>();
    Problem result{nullptr, problem_.inputs, {}};
    std::vector<std::vector<ValueId>> map(static_cast<size_t>(from.size()));
    const std::vector<bool> needed = needed_nodes();
    for (int32_t i = 0; i < from.size(); ++i) {
      if (!needed[static_cast<size_t>(i)]) continue;
      auto& outputs = map[static_cast<size_t>(i)];
      if (cut_.contains(i)) {
        for (size_t o = 0; o < from.node(i).outputs.size(); ++o) {
          const std::string name = fmt::format("value{}.{}", i, o);
          outputs.push_back(
              input(*to, name, from.node(i).outputs[o].dtype, from.node(i).outputs[o].shape).id);
          result.inputs[name] = values_[static_cast<size_t>(i)][o];
        }
        continue;
      }
      Node node = from.node(i);
      for (ValueId& id : node.inputs) id = map[static_cast<size_t>(id.node)][static_cast<size_t>(id.output)];
      if (node.op == Op::state)
        result.state[node.attributes.text("name")] = problem_.state.at(node.attributes.text("name"));
      const size_t count = node.outputs.size();
      const ValueId first = to->add_node(std::move(node));
      for (size_t o = 0; o < count; ++o) outputs.push_back({first.node, static_cast<int32_t>(o)});
    }
    for (const Graph::Output& output : from.outputs())
      if (outputs_.contains(output.name)) {
        const auto& made = map[static_cast<size_t>(output.value.node)];
        to->output(output.name, to->value(made[static_cast<size_t>(output.value.output)]));
      }
    result.graph = std::move(to);
    return result;
  }

  std::vector<bool> needed_nodes() const {
    const Graph& from = *problem_.graph;
    std::vector<bool> needed(static_cast<size_t>(from.size()), false);
    for (const Graph::Output& output : from.outputs())
      if (outputs_.contains(output.name)) needed[static_cast<size_t>(output.value.node)] = true;
    for (int32_t effect : effects_) needed[static_cast<size_t>(effect)] = true;
    for (int32_t i = from.size() - 1; i >= 0; --i)
      if (needed[static_cast<size_t>(i)] && !cut_.contains(i))
        for (ValueId id : from.node(i).inputs) needed[static_cast<size_t>(id.node)] = true;
    return needed;
  }

  const Problem& problem_;
  Fails fails_;
  std::vector<std::vector<Tensor>> values_;
  std::set<std::string> outputs_;
  std::set<int32_t> effects_, cut_;
};

std::string smallest(const Problem& problem, const CompileOptions& options) {
  std::string last;
  const Problem small = Shrinker(problem, [&](const Problem& candidate) {
                          Tally tally;
                          const std::string found =
                              mistake(candidate, test::expectation(candidate, kCareful), options, tally);
                          if (!found.empty()) last = found;
                          return !found.empty();
                        }).run();
  std::string outputs;
  for (const Graph::Output& output : small.graph->outputs())
    outputs += fmt::format("{} = %{}\n", output.name, output.value.node);
  return fmt::format("{}\n{}{}", last, to_text(*small.graph), outputs);
}

// ---- the thousand

// All passes on, all off, and others by the dice.
std::vector<CompileOptions> variants(uint64_t seed) {
  const auto with = [](uint32_t bits, Recompute::Kind kind) {
    CompileOptions options;
    options.simplify = (bits & 1U) != 0;
    options.fuse = (bits & 2U) != 0;
    options.schedule = (bits & 4U) != 0;
    options.reuse_memory = (bits & 8U) != 0;
    options.recompute.kind = kind;
    return options;
  };
  test::Random random(seed);
  const auto kind = random.chance(0.3) ? Recompute::Kind::layer : Recompute::Kind::none;
  return {with(15, Recompute::Kind::none), with(0, Recompute::Kind::none), with(random.bits() & 15U, kind)};
}

std::string describe(const CompileOptions& options) {
  return fmt::format("simplify {}, fuse {}, schedule {}, reuse_memory {}, recompute {}", options.simplify,
                     options.fuse, options.schedule, options.reuse_memory,
                     static_cast<int>(options.recompute.kind));
}

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("random graphs mean the same compiled as written") {
  const uint64_t first = number_from("NF_FIRST_SEED", 0), count = number_from("NF_SEEDS", 1000);
  Tally tally;
  int failures = 0;
  for (uint64_t seed = first; seed < first + count && failures < 3; ++seed) {
    const Problem problem = test::random_problem(seed);
    const Expectation expected = test::expectation(problem, kQuick);
    for (const CompileOptions& options : variants(seed)) {
      if (mistake(problem, expected, options, tally).empty()) continue;
      const std::string found = mistake(problem, test::expectation(problem, kCareful), options, tally);
      if (found.empty()) continue;
      ++failures;
      FAIL_CHECK("seed ", seed, ", ", describe(options), ": ", found,
                 "\nsmallest: ", smallest(problem, options));
      break;
    }
  }
  MESSAGE(tally.compared, " values compared, ", tally.skipped, " too sensitive to rounding");
  CHECK(tally.skipped * 20 <= tally.compared);
}

TEST_CASE("random graphs hold every op that a graph can be written with") {
  std::set<Op> seen;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    RandomGraph random_graph;
    test::fill_randomly(random_graph, seed);
    for (int32_t i = 0; i < random_graph.graph.size(); ++i) seen.insert(random_graph.graph.node(i).op);
  }
  for (int op = 0; op < static_cast<int>(Op::count_); ++op) {
    if (static_cast<Op>(op) == Op::loop || static_cast<Op>(op) == Op::tensor) continue;
    CAPTURE(name(static_cast<Op>(op)));
    CHECK(seen.contains(static_cast<Op>(op)));
  }
}
