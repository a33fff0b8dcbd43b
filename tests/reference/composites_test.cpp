// The composites' decompositions, which the interpreter runs and every kernel is measured against, compared
// with the definitions written out as plain loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "graph/op_table.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/support/graphs.h"

using namespace nf;
using nf::test::Bindings;
using nf::test::Tensor;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kBatch = 2, kT = 4, kS = 6, kHeads = 4, kKvHeads = 2, kWidthK = 3, kWidthV = 5;

size_t at(const Tensor& x, std::initializer_list<int64_t> index) {
  const Strides strides = dense_strides(x.shape);
  int64_t offset = 0;
  int axis = 0;
  for (int64_t i : index) offset += i * strides[axis++];
  return static_cast<size_t>(offset);
}

Value leaf(Graph& graph, const Tensor& x, DType dtype = DType::f32) {
  return tensor(graph, x.data, x.shape, dtype);
}

// ---- attention

struct AttentionCase {
  AttentionOptions options;  // without its Values
  bool documents = false;
  int64_t length = -1;
};

const Tensor kQ = test::random_tensor({kBatch, kT, kHeads, kWidthK}, 1);
const Tensor kK = test::random_tensor({kBatch, kS, kKvHeads, kWidthK}, 2);
const Tensor kV = test::random_tensor({kBatch, kS, kKvHeads, kWidthV}, 3);
const Tensor kQDocuments = {{kBatch, kT}, {0, 1, 1, -1, 2, 2, 5, 3}};
const Tensor kKDocuments = {{kBatch, kS}, {0, 0, 1, 1, 1, -1, 2, 2, 2, 3, 3, 3}};
const std::vector<double> kRng = {3, 4, 5, 6};

bool visible(const AttentionCase& c, int64_t b, int64_t i, int64_t j) {
  const int64_t length = c.length >= 0 ? c.length : kS;
  const int64_t position = length - kT + i;
  const bool bounded = c.options.causal || c.options.window > 0;
  if (j >= length || (bounded && j > position)) return false;
  if (c.options.window > 0 && j <= position - c.options.window) return false;
  if (!c.documents) return true;
  const double q_id = kQDocuments.data[at(kQDocuments, {b, i})],
               k_id = kKDocuments.data[at(kKDocuments, {b, j})];
  return q_id >= 0 && q_id == k_id;
}

double score(const AttentionCase& c, int64_t b, int64_t i, int64_t h, int64_t j) {
  double dot = 0;
  for (int64_t x = 0; x < kWidthK; ++x)
    dot += kQ.data[at(kQ, {b, i, h, x})] * kK.data[at(kK, {b, j, h / (kHeads / kKvHeads), x})];
  dot *= c.options.scale;
  if (c.options.cap_type == CapType::soft) return c.options.cap * std::tanh(dot / c.options.cap);
  if (c.options.cap_type == CapType::hard) return std::clamp(dot, -c.options.cap, c.options.cap);
  return dot;
}

// What a weight is multiplied with: element [b, h, i, j] of the random stream decides.
double kept(const AttentionCase& c, int64_t b, int64_t h, int64_t i, int64_t j) {
  const double p = c.options.dropout;
  if (p == 0) return 1;
  const PhiloxKey key{3U ^ (5U * 0x9E3779B9U), 4U ^ (6U * 0x85EBCA6BU)};
  const auto element = static_cast<uint64_t>(((b * kHeads + h) * kT + i) * kS + j);
  const float uniform = philox_uniform(philox_word(element, c.options.dropout_stream, key));
  return static_cast<double>(uniform) < p ? 0 : 1 / (1 - p);
}

struct AttentionResult {
  Tensor out, logsumexp;
};

AttentionResult plain_attention(const AttentionCase& c) {
  AttentionResult result{{{kBatch, kT, kHeads, kWidthV}, {}}, {{kBatch, kHeads, kT}, {}}};
  result.out.data.resize(static_cast<size_t>(result.out.shape.elements()));
  result.logsumexp.data.assign(static_cast<size_t>(result.logsumexp.shape.elements()), -kInfinity);
  for (int64_t b = 0; b < kBatch; ++b)
    for (int64_t i = 0; i < kT; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        double total = 0;
        for (int64_t j = 0; j < kS; ++j)
          if (visible(c, b, i, j)) total += std::exp(score(c, b, i, h, j));
        if (total == 0) continue;
        result.logsumexp.data[at(result.logsumexp, {b, h, i})] = std::log(total);
        for (int64_t j = 0; j < kS; ++j) {
          if (!visible(c, b, i, j)) continue;
          const double weight = std::exp(score(c, b, i, h, j)) / total * kept(c, b, h, i, j);
          for (int64_t x = 0; x < kWidthV; ++x)
            result.out.data[at(result.out, {b, i, h, x})] +=
                weight * kV.data[at(kV, {b, j, h / (kHeads / kKvHeads), x})];
        }
      }
  return result;
}

AttentionResult interpreted_attention(const AttentionCase& c) {
  Graph graph;
  AttentionOptions options = c.options;
  if (c.documents) {
    options.q_documents = leaf(graph, kQDocuments, DType::i32);
    options.k_documents = leaf(graph, kKDocuments, DType::i32);
  }
  if (c.length >= 0) options.length = constant(graph, static_cast<double>(c.length), DType::i32);
  if (options.dropout > 0) options.rng = tensor(graph, kRng, {4}, DType::i32);
  const Value out = attention(leaf(graph, kQ), leaf(graph, kK), leaf(graph, kV), options);
  graph.output("out", out);
  graph.output("logsumexp", graph.value({out.id.node, 1}));
  const auto results = test::run_reference(graph);
  return {results[0], results[1]};
}

}  // namespace

TEST_CASE("reference: attention is what its definition says, in every option") {
  const std::vector<AttentionCase> cases = {
      {.options = {.scale = 0.7}},
      {.options = {.scale = 0.7, .causal = false}},
      {.options = {.scale = 1.3, .window = 2}},
      {.options = {.causal = false, .window = 3}},
      {.options = {.scale = 2, .cap = 1.5, .cap_type = CapType::soft}},
      {.options = {.scale = 2, .cap = 0.8, .cap_type = CapType::hard}},
      {.options = {.dropout = 0.4, .dropout_stream = 77}},
      {.options = {}, .documents = true},
      {.options = {.causal = false}, .documents = true},
      {.options = {}, .length = 5},
      {.options = {.causal = false}, .length = 4},
      {.options = {.scale = 1.1,
                   .cap = 2,
                   .cap_type = CapType::soft,
                   .window = 3,
                   .dropout = 0.2,
                   .dropout_stream = 1},
       .documents = true,
       .length = 5},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    const AttentionResult expected = plain_attention(cases[i]), actual = interpreted_attention(cases[i]);
    CHECK(test::relative_error(actual.out, expected.out) < 1e-13);
    CHECK(test::relative_error(actual.logsumexp, expected.logsumexp) < 1e-13);
  }
}

TEST_CASE("reference: attention rows that see nothing are zero and have no gradient") {
  Graph graph;
  const Value q = leaf(graph, kQ), k = leaf(graph, kK), v = leaf(graph, kV);
  const Value nothing = tensor(graph, std::vector<double>(kBatch * kT, -1), {kBatch, kT}, DType::i32);
  const Value out =
      attention(q, k, v, {.q_documents = nothing, .k_documents = leaf(graph, kKDocuments, DType::i32)});
  const Values wrt{q, k, v};
  graph.output("out", out);
  for (const Value& grad : gradients(sum(out), wrt)) graph.output("grad", grad);
  for (const Tensor& y : test::run_reference(graph)) {
    CHECK(y.data == std::vector<double>(y.data.size(), 0));
  }
}

// ---- linear_cross_entropy

namespace {

constexpr int64_t kN = 5, kD = 3, kVocabulary = 9;
const Tensor kHidden = test::random_tensor({kN, kD}, 1);
const Tensor kWeight = test::random_tensor({kVocabulary, kD}, 2);
const Tensor kScale = test::random_uniform({kVocabulary}, 3, 0.5, 2);
const Tensor kTargets = {{kN}, {1, 6, kIgnoreIndex, 0, 3}};

std::pair<Tensor, Tensor> plain_cross_entropy(const CrossEntropyOptions& options, bool scaled) {
  Tensor loss{{kN}, {}}, logsumexp{{kN}, {}};
  for (int64_t n = 0; n < kN; ++n) {
    std::vector<double> logits;
    for (int64_t v = 0; v < (options.vocab_size > 0 ? options.vocab_size : kVocabulary); ++v) {
      double logit = 0;
      for (int64_t d = 0; d < kD; ++d)
        logit += kHidden.data[at(kHidden, {n, d})] * kWeight.data[at(kWeight, {v, d})];
      logit *= options.logit_scale * (scaled ? kScale.data[static_cast<size_t>(v)] : 1);
      if (options.cap_type == CapType::soft) logit = options.cap * std::tanh(logit / options.cap);
      if (options.cap_type == CapType::hard) logit = std::clamp(logit, -options.cap, options.cap);
      logits.push_back(logit);
    }
    double total = 0;
    for (double logit : logits) total += std::exp(logit);
    const double lse = std::log(total), target = kTargets.data[static_cast<size_t>(n)];
    logsumexp.data.push_back(lse);
    loss.data.push_back(target < 0 ? 0
                                   : lse - logits[static_cast<size_t>(target)] + options.z_loss * lse * lse);
  }
  return {loss, logsumexp};
}

}  // namespace

TEST_CASE("reference: linear_cross_entropy is what its definition says, in every option") {
  const std::vector<CrossEntropyOptions> cases = {
      {},
      {.logit_scale = 0.3},
      {.cap = 1.5, .cap_type = CapType::soft},
      {.cap = 0.7, .cap_type = CapType::hard},
      {.z_loss = 0.2},
      {.vocab_size = 7},
      {.logit_scale = 1.7, .cap = 2, .cap_type = CapType::soft, .z_loss = 0.1, .vocab_size = 7},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    for (const bool scaled : {false, true}) {
      CAPTURE(i);
      CAPTURE(scaled);
      Graph graph;
      CrossEntropyOptions options = cases[i];
      if (scaled) options.scale = leaf(graph, kScale);
      const Value loss = linear_cross_entropy(leaf(graph, kHidden), leaf(graph, kWeight),
                                              leaf(graph, kTargets, DType::i32), options);
      graph.output("loss", loss);
      graph.output("logsumexp", graph.value({loss.id.node, 1}));
      const auto results = test::run_reference(graph);
      const auto [expected_loss, expected_logsumexp] = plain_cross_entropy(cases[i], scaled);
      CHECK(test::relative_error(results[0], expected_loss) < 1e-13);
      CHECK(test::relative_error(results[1], expected_logsumexp) < 1e-13);
    }
  }
}

TEST_CASE("reference: the backward op of linear_cross_entropy returns the loss and adds to an accumulator") {
  for (const bool accumulate : {false, true}) {
    CAPTURE(accumulate);
    Graph graph;
    Values inputs{leaf(graph, kHidden), leaf(graph, kWeight), leaf(graph, kTargets, DType::i32)};
    const Value loss = linear_cross_entropy(inputs[0], inputs[1], inputs[2], {.z_loss = 0.1});
    const Values wrt{inputs[0], inputs[1]};
    const Values expected = gradients(sum(loss), wrt);
    Attributes attributes = graph.node(loss.id).attributes;
    inputs.push_back(constant_like(loss, 1));
    if (accumulate) {
      inputs.push_back(leaf(graph, kWeight) * 10.0);
      attributes.set("accumulate", int64_t{1});
    }
    const Value backward = graph.add(Op::linear_cross_entropy_backward, inputs, attributes);
    graph.output("expected loss", loss);
    graph.output("expected hidden", expected[0]);
    graph.output("expected weight", accumulate ? expected[1] + inputs[1] * 10.0 : expected[1]);
    for (int32_t i = 0; i < 3; ++i) graph.output("", graph.value({backward.id.node, i}));
    const auto y = test::run_reference(graph);
    for (size_t i = 0; i < 3; ++i) CHECK(test::relative_error(y[3 + i], y[i]) < 1e-14);
  }
}

// ---- embedding

TEST_CASE(
    "reference: embedding picks rows, its backward op adds them up, onto an accumulator if there is one") {
  Graph graph;
  const Value table = tensor(graph, {1, 2, 3, 4, 5, 6}, {3, 2});
  const Value ids = tensor(graph, {2, 0, 2}, {3}, DType::i32);
  Values inputs{ids, tensor(graph, {1, 10, 2, 20, 3, 30}, {3, 2})};
  graph.output("rows", embedding(table, ids));
  graph.output("sums", graph.add(Op::embedding_backward, inputs, {{"size", int64_t{3}}}));
  inputs.push_back(table);
  graph.output("onto", graph.add(Op::embedding_backward, inputs, {{"size", int64_t{3}}}));
  const auto y = test::run_reference(graph);
  CHECK(y[0].data == std::vector<double>{5, 6, 1, 2, 5, 6});
  CHECK(y[1].data == std::vector<double>{2, 20, 0, 0, 4, 40});
  CHECK(y[2].data == std::vector<double>{3, 22, 3, 4, 9, 46});
}
