// The loss kernels against the op's decomposition in double precision.
#include "cpu/cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>

#include <cmath>
#include <cstring>

#include "nf/gradients.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Tensor;

namespace {

struct Case {
  const char* name;
  int64_t tokens = 37, width = 24, vocab = 50;
  CrossEntropyOptions options = {};
  bool scaled = false;
  DType dtype = DType::f32;
};

// Everything the kernels read and write.
struct Data {
  Tensor hidden, weight, targets, scale, grad_loss;
};

Data data_of(const Case& c) {
  Data d{test::random_tensor({c.tokens, c.width}, 1), test::random_tensor({c.vocab, c.width}, 2),
         test::random_integers({c.tokens}, 3, 0,
                               (c.options.vocab_size > 0 ? c.options.vocab_size : c.vocab) - 1),
         test::random_uniform({c.vocab}, 4, 0.5, 1.5), test::random_tensor({c.tokens}, 5)};
  for (Tensor* tensor : {&d.hidden, &d.weight})
    for (double& x : tensor->data) x = test::rounded(x, c.dtype);
  for (Tensor* tensor : {&d.scale, &d.grad_loss})
    for (double& x : tensor->data) x = test::rounded(x, DType::f32);
  for (size_t i = 0; i < d.targets.data.size(); i += 5) d.targets.data[i] = kIgnoreIndex;
  return d;
}

struct Results {
  std::vector<float> loss, logsumexp, backward_loss, weight, scale;
  std::vector<std::byte> hidden;

  bool operator==(const Results&) const = default;
};

cpu::CrossEntropyConfig config_of(const Case& c) {
  return {.tokens = c.tokens,
          .width = c.width,
          .vocab = c.vocab,
          .dtype = c.dtype,
          .scaled = c.scaled,
          .options = c.options};
}

Results run_kernels(const Case& c, const Data& d, int threads, bool accumulate = false) {
  const cpu::CrossEntropyConfig config = config_of(c);
  const auto hidden = test::encode(d.hidden, c.dtype), weight = test::encode(d.weight, c.dtype),
             targets = test::encode(d.targets, DType::i32), scale = test::encode(d.scale, DType::f32),
             grad = test::encode(d.grad_loss, DType::f32);
  const cpu::CrossEntropyInputs inputs = {
      .hidden = hidden.data(),
      .weight = weight.data(),
      .targets = reinterpret_cast<const int32_t*>(targets.data()),
      .scale = c.scaled ? reinterpret_cast<const float*>(scale.data()) : nullptr};
  const auto n = static_cast<size_t>(c.tokens), v = static_cast<size_t>(c.vocab),
             w = static_cast<size_t>(c.width);
  Results r{std::vector<float>(n),        std::vector<float>(n),    std::vector<float>(n),
            std::vector<float>(v * w, 1), std::vector<float>(v, 1), std::vector<std::byte>(hidden.size())};
  const Buffer forward =
      allocate_host_memory(static_cast<int64_t>(cpu::cross_entropy_workspace(config, false, threads)));
  cpu::cross_entropy_forward(config, inputs, r.loss.data(), r.logsumexp.data(), forward.get(), threads);
  const Buffer backward =
      allocate_host_memory(static_cast<int64_t>(cpu::cross_entropy_workspace(config, true, threads)));
  cpu::cross_entropy_backward(config, inputs, reinterpret_cast<const float*>(grad.data()),
                              {.loss = r.backward_loss.data(),
                               .hidden = r.hidden.data(),
                               .weight = r.weight.data(),
                               .scale = c.scaled ? r.scale.data() : nullptr,
                               .accumulate = accumulate},
                              backward.get(), threads);
  return r;
}

// The decomposition's losses and its gradients of sum(loss * grad_loss).
std::vector<Tensor> exact(const Case& c, const Data& d) {
  Graph graph;
  const Value hidden = input(graph, "hidden", c.dtype, d.hidden.shape),
              weight = input(graph, "weight", c.dtype, d.weight.shape),
              scale = input(graph, "scale", DType::f32, d.scale.shape);
  CrossEntropyOptions options = c.options;
  if (c.scaled) options.scale = scale;
  const Value losses =
      linear_cross_entropy(hidden, weight, input(graph, "targets", DType::i32, d.targets.shape), options);
  graph.output("loss", losses);
  const Values wrt = c.scaled ? Values{hidden, weight, scale} : Values{hidden, weight};
  int i = 0;
  for (const Value& grad :
       gradients(sum(losses * input(graph, "grad_loss", DType::f32, d.grad_loss.shape)), wrt))
    graph.output(std::to_string(i++), grad);
  return test::run_reference(graph, {{"hidden", d.hidden},
                                     {"weight", d.weight},
                                     {"scale", d.scale},
                                     {"targets", d.targets},
                                     {"grad_loss", d.grad_loss}});
}

Tensor as_tensor(const std::vector<float>& values, const Shape& shape) {
  return {shape, std::vector<double>(values.begin(), values.end())};
}

std::vector<Case> cases() {
  std::vector<Case> all = {
      {.name = "plain"},
      {.name = "one token", .tokens = 1},
      {.name = "logit scale", .options = {.logit_scale = 0.3}},
      {.name = "soft cap", .options = {.cap = 3, .cap_type = CapType::soft}},
      {.name = "hard cap", .options = {.cap = 3, .cap_type = CapType::hard}},
      {.name = "z-loss", .options = {.z_loss = 0.01}},
      {.name = "padding", .options = {.vocab_size = 43}},
      {.name = "scale", .scaled = true},
      {.name = "everything",
       .options = {.logit_scale = 0.7, .cap = 4, .cap_type = CapType::soft, .z_loss = 0.01, .vocab_size = 41},
       .scaled = true},
      {.name = "blocks of the vocabulary", .tokens = 70, .vocab = 2100},
      {.name = "blocks, the last of padding alone",
       .tokens = 20,
       .vocab = 2100,
       .options = {.vocab_size = 1400}},
      {.name = "parts of several blocks", .tokens = 20, .width = 8, .vocab = 9000},
      {.name = "blocks, scaled", .vocab = 1500, .options = {.z_loss = 0.01}, .scaled = true},
      // 50 MiB hold 64 rows of exponentials of this vocabulary: three chunks, the last a rest.
      {.name = "chunks", .tokens = 150, .width = 8, .vocab = 131072},
  };
  const size_t wide = all.size() - 1;
  for (size_t i = 0; i < wide; ++i) {
    all.push_back(all[i]);
    all.back().dtype = DType::bf16;
  }
  return all;
}

}  // namespace

TEST_CASE("cross entropy: losses and gradients are those of the decomposition") {
  for (const Case& c : cases()) {
    if (c.vocab > 10000) continue;  // by a smaller relative below
    CAPTURE(std::string(c.name));
    CAPTURE(name(c.dtype));
    const Data d = data_of(c);
    const Results got = run_kernels(c, d, 1);
    const std::vector<Tensor> expected = exact(c, d);
    // Products of bf16 are exact in f32; the gradients that go into the second products are rounded to bf16.
    const double tolerance = c.dtype == DType::f32 ? 2e-6 : 6e-3;
    CHECK(test::relative_error(as_tensor(got.loss, {c.tokens}), expected[0]) < 2e-6);
    CHECK(test::relative_error(as_tensor(got.backward_loss, {c.tokens}), expected[0]) < 2e-6);
    CHECK(test::relative_error(test::decode(got.hidden, {c.dtype, d.hidden.shape}), expected[1]) < tolerance);
    CHECK(test::relative_error(as_tensor(got.weight, d.weight.shape), expected[2]) < tolerance);
    if (c.scaled)
      CHECK(test::relative_error(as_tensor(got.scale, {c.vocab}), expected[3]) <
            (c.dtype == DType::f32 ? 5e-6 : tolerance));
  }
}

TEST_CASE("cross entropy: logits that tower above all of the first block's") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Case c{.name = "tower", .tokens = 12, .vocab = 2100, .dtype = dtype};
    Data d = data_of(c);
    // Some of the tokens' logits for word 2000 are near 500, others near -500.
    for (int64_t i = 0; i < c.width; ++i) d.weight.data[static_cast<size_t>(2000 * c.width + i)] = 30;
    d.targets.data[1] = 2000;
    const Results got = run_kernels(c, d, 2);
    const std::vector<Tensor> expected = exact(c, d);
    const double tolerance = dtype == DType::f32 ? 2e-6 : 6e-3;
    CHECK(*std::max_element(got.logsumexp.begin(), got.logsumexp.end()) > 100);
    CHECK(test::relative_error(as_tensor(got.loss, {c.tokens}), expected[0]) < 2e-6);
    CHECK(test::relative_error(test::decode(got.hidden, {c.dtype, d.hidden.shape}), expected[1]) < tolerance);
    CHECK(test::relative_error(as_tensor(got.weight, d.weight.shape), expected[2]) < tolerance);
  }
}

TEST_CASE("cross entropy: words of padding alone beside logits far below zero") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Case c{.name = "low", .tokens = 12, .vocab = 2100, .options = {.vocab_size = 1400}, .dtype = dtype};
    Data d = data_of(c);
    for (int64_t i = 0; i < c.tokens * c.width;
         ++i)  // all logits are near -100: known to 1e-5 in f32, and so are their exponentials
      d.hidden.data[static_cast<size_t>(i)] = i % c.width == 0 ? 10 : 0.25;
    for (int64_t v = 0; v < c.vocab; ++v) d.weight.data[static_cast<size_t>(v * c.width)] = -10;
    const Results got = run_kernels(c, d, 2);
    const std::vector<Tensor> expected = exact(c, d);
    const double tolerance = dtype == DType::f32 ? 5e-5 : 6e-3;
    CHECK(*std::max_element(got.logsumexp.begin(), got.logsumexp.end()) < -88);
    CHECK(test::relative_error(test::decode(got.hidden, {c.dtype, d.hidden.shape}), expected[1]) < tolerance);
    CHECK(test::relative_error(as_tensor(got.weight, d.weight.shape), expected[2]) < tolerance);
  }
}

TEST_CASE("cross entropy: no tokens at all leave a gradient of zero") {
  const Case c{.name = "none", .tokens = 0, .scaled = true};
  const Results got = run_kernels(c, data_of({.name = "some", .tokens = 1}), 1);
  CHECK(std::count(got.weight.begin(), got.weight.end(), 0.0F) == c.vocab * c.width);
  CHECK(std::count(got.scale.begin(), got.scale.end(), 0.0F) == c.vocab);
}

TEST_CASE("cross entropy: chunks add up") {
  Case whole = cases()[13];
  REQUIRE(whole.vocab == 131072);
  const Data d = data_of(whole);
  const Results got = run_kernels(whole, d, 2);
  // The first chunk alone gives its rows the same bits; the weight's gradient is the sum over the chunks.
  Tensor sum = as_tensor(std::vector<float>(d.weight.data.size()), d.weight.shape);
  for (int64_t first = 0; first < whole.tokens; first += 64) {
    Case part = whole;
    part.tokens = std::min<int64_t>(64, whole.tokens - first);
    const auto rows = [&](const Tensor& t, int64_t width) {
      const auto begin = t.data.begin() + first * width;
      Tensor piece = t;
      piece.shape[0] = part.tokens;
      piece.data.assign(begin, begin + part.tokens * width);
      return piece;
    };
    const Data piece = {rows(d.hidden, whole.width), d.weight, rows(d.targets, 1), d.scale,
                        rows(d.grad_loss, 1)};
    const Results alone = run_kernels(part, piece, 1);
    CHECK(std::memcmp(alone.loss.data(), got.loss.data() + first, alone.loss.size() * sizeof(float)) == 0);
    CHECK(std::memcmp(alone.hidden.data(), got.hidden.data() + first * whole.width * 4,
                      alone.hidden.size()) == 0);
    for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += static_cast<double>(alone.weight[i]);
  }
  CHECK(test::relative_error(as_tensor(got.weight, d.weight.shape), sum) < 1e-6);
}

TEST_CASE("cross entropy: the same bits on any number of threads") {
  for (const Case& c : cases()) {
    if (c.vocab > 10000) continue;
    CAPTURE(std::string(c.name));
    const Data d = data_of(c);
    const Results one = run_kernels(c, d, 1);
    CHECK(run_kernels(c, d, 2) == one);
    CHECK(run_kernels(c, d, 3) == one);
  }
}

TEST_CASE("cross entropy: the weight's gradient accumulates, the scale's does not") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Case c{.name = "scale", .scaled = true, .dtype = dtype};
    const Data d = data_of(c);
    const Results fresh = run_kernels(c, d, 1), added = run_kernels(c, d, 1, true);
    double largest = 0;  // what was there is 1 everywhere
    for (size_t i = 0; i < fresh.weight.size(); ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(added.weight[i]) - 1 -
                                            static_cast<double>(fresh.weight[i])));
    CHECK(largest < 1e-5);
    CHECK(added.scale == fresh.scale);
    CHECK(added.hidden == fresh.hidden);
  }
}

TEST_CASE("cross entropy: ignored targets cost nothing, impossible ones are NaN") {
  Case c{.name = "targets", .options = {.vocab_size = 43}};
  Data d = data_of(c);
  d.targets.data[1] = kIgnoreIndex;
  const int64_t bad[] = {-1, 43, 50, 1 << 30};
  for (size_t i = 0; i < std::size(bad); ++i) d.targets.data[2 + i] = static_cast<double>(bad[i]);
  const Results got = run_kernels(c, d, 1);
  const auto row_is_zero = [&](size_t row) {
    const auto bytes = std::span(got.hidden).subspan(row * 24 * 4, 24 * 4);
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  };
  CHECK(got.loss[1] == 0);
  CHECK(got.backward_loss[1] == 0);
  CHECK(row_is_zero(1));
  for (size_t i = 0; i < std::size(bad); ++i) {
    CAPTURE(bad[i]);
    CHECK(std::isnan(got.loss[2 + i]));
    CHECK(std::isnan(got.backward_loss[2 + i]));
    CHECK(row_is_zero(2 + i));
  }
  CHECK_FALSE(row_is_zero(6));
}

TEST_CASE("cross entropy: padding has no probability and no gradient") {
  const Case c{.name = "padding", .options = {.vocab_size = 43}};
  const Data d = data_of(c);
  const Results got = run_kernels(c, d, 1);
  for (size_t i = 43 * 24; i < got.weight.size(); ++i) REQUIRE(got.weight[i] == 0);
  Case cut = c;
  cut.vocab = 43;
  cut.options.vocab_size = 0;
  Data small = d;
  small.weight.shape[0] = 43;
  small.weight.data.resize(43 * 24);
  const Results without = run_kernels(cut, small, 1);
  CHECK(test::relative_error(as_tensor(got.loss, {c.tokens}), as_tensor(without.loss, {c.tokens})) < 1e-6);
}
