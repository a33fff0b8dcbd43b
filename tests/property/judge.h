// Judges what a backend made of a random graph. How much rounding may matter is measured, not guessed: the
// interpreter runs with every value rounded to its dtype, and again with the last bits of every value shaken;
// a backend may differ from the unshaken result by a multiple of what that did.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "tests/property/random_graph.h"

namespace nf::test {

// A graph and everything it reads.
struct Problem {
  std::shared_ptr<const Graph> graph;
  Bindings inputs, state;
};

// Everything that a run leaves behind, by name: outputs and states.
using Results = Bindings;
Results named(const Graph& graph, std::vector<Tensor> outputs, Bindings state);

// The graph of that seed (random_graph.h) with leaves that hold what their dtypes can.
Problem random_problem(uint64_t seed);

// How far a is from b, relative to b, whose small elements count as larger ones: what cancels leaves noise.
double distance(const Tensor& a, const Tensor& b);

// Rounds every value to its dtype, after moving it by up to `ulps` units in the last place.
reference::Observer rounding(const Graph& graph, double ulps, Random& random);
Results interpret(const Problem& problem, const reference::Observer& observer);

// What the interpreter says, and how far each result moves when rounding does.
struct Expectation {
  Results exact, rounded;
  std::unordered_map<std::string, double> shake;
};
// The number of runs that measure shaking: at first, and before anything is called wrong.
inline constexpr int kQuick = 3, kCareful = 60;
Expectation expectation(const Problem& problem, int runs);

inline constexpr double kTooShaky = 0.05;  // a value that shaking moves further says nothing

struct Tally {
  int compared = 0, skipped = 0;
};
// What is wrong with the results; empty if nothing is.
std::string judge(const Results& results, const Expectation& expected, Tally& tally);

}  // namespace nf::test
