// The attention kernels against attention as written on paper, in double precision.
#include "cpu/attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/philox.h"
#include "nf/error.h"

namespace {

using namespace nf;
using namespace nf::cpu;

// A strided [B, R, H, D] tensor with its values in double: axes may be swapped in memory, rows then padded.
struct Tensor {
  std::vector<double> value;  // dense
  std::vector<char> memory;
  TensorView view;

  Tensor(const Shape& shape, DType dtype, bool heads_first, int64_t padding = 3) {
    value.assign(static_cast<size_t>(shape.elements()), 0.0);
    const int64_t row = shape[3] + (heads_first ? padding : 0), head_rows = heads_first ? shape[1] + 1 : 1;
    const int64_t head = row * head_rows,
                  batch = row * (heads_first ? shape[2] * head_rows : shape[1] * shape[2]);
    view.dtype = dtype;
    view.shape = shape;
    view.strides = heads_first ? Strides{batch, row, head, 1} : Strides{batch, shape[2] * row, row, 1};
    memory.assign(static_cast<size_t>(batch * shape[0] + 1) * static_cast<size_t>(size_of(dtype)),
                  '\xff');  // NaN
    view.data = memory.data();
  }

  int64_t offset(int64_t b, int64_t r, int64_t h, int64_t d) const {
    return b * view.strides[0] + r * view.strides[1] + h * view.strides[2] + d;
  }

  template <typename Visit>
  void each(Visit visit) {
    size_t i = 0;
    for (int64_t b = 0; b < view.shape[0]; ++b)
      for (int64_t r = 0; r < view.shape[1]; ++r)
        for (int64_t h = 0; h < view.shape[2]; ++h)
          for (int64_t d = 0; d < view.shape[3]; ++d) visit(value[i++], offset(b, r, h, d));
  }

  void fill(uint64_t stream, double spread) {
    uint64_t index = 0;
    each([&](double& x, int64_t at) {
      const float uniform = philox_uniform(philox_word(index++, stream, {7, 11}));
      const auto drawn = static_cast<float>(spread * (2.0 * static_cast<double>(uniform) - 1.0));
      if (view.dtype == DType::f32) {
        view.as<float>()[at] = drawn;
        x = static_cast<double>(drawn);
      } else {
        view.as<bf16>()[at] = to_bf16(drawn);
        x = static_cast<double>(to_float(to_bf16(drawn)));
      }
    });
  }

  void read() {
    each([&](double& x, int64_t at) {
      x = static_cast<double>(view.dtype == DType::f32 ? view.as<float>()[at]
                                                       : to_float(view.as<bf16>()[at]));
    });
  }

  double& at(int64_t b, int64_t r, int64_t h, int64_t d) {
    return value[static_cast<size_t>(((b * view.shape[1] + r) * view.shape[2] + h) * view.shape[3] + d)];
  }
};

struct Case {
  AttentionConfig config;
  DType dtype = DType::f32;
  DType out_dtype = DType::f32;
  bool heads_first = false;
  int64_t padding = 3;  // of rows of k or v; odd: not whole cells of bf16
  int documents = 0;    // 0: none; else about how many, the first query having none
  int64_t gap = 0;      // with documents, so many queries from 16 on have none either
  int64_t length = -1;  // -1: none
  double spread = 1.5;
};

struct Run {
  Tensor q, k, v, out, grad_out, grad_q, grad_k, grad_v;
  std::vector<float> lse;
  std::vector<int32_t> q_documents, k_documents;
  int32_t length;
  uint32_t rng[4] = {123, 456, 7, 2};
  AttentionInputs inputs;

  explicit Run(const Case& t)
      : q({t.config.batch, t.config.queries, t.config.heads, t.config.key_width}, t.dtype, t.heads_first),
        k({t.config.batch, t.config.keys, t.config.kv_heads, t.config.key_width}, t.dtype, t.heads_first,
          t.padding),
        v({t.config.batch, t.config.keys, t.config.kv_heads, t.config.value_width}, t.dtype, !t.heads_first,
          t.padding),
        out({t.config.batch, t.config.queries, t.config.heads, t.config.value_width}, t.out_dtype,
            t.heads_first),
        grad_out(out.view.shape, t.out_dtype, !t.heads_first),
        grad_q(q.view.shape, t.out_dtype, t.heads_first),
        grad_k(k.view.shape, t.out_dtype, t.heads_first),
        grad_v(v.view.shape, t.out_dtype, t.heads_first),
        lse(static_cast<size_t>(t.config.batch * t.config.heads * t.config.queries)),
        length(static_cast<int32_t>(t.length)) {
    q.fill(1, t.spread);
    k.fill(2, t.spread);
    v.fill(3, t.spread);
    grad_out.fill(4, t.spread);
    inputs = {q.view, k.view, v.view, nullptr, nullptr, nullptr, nullptr};
    if (t.length >= 0) inputs.length = &length;
    if (t.config.dropout > 0.0F) inputs.rng = rng;
    if (t.documents == 0) return;
    const AttentionConfig& c = t.config;
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t j = 0; j < c.keys; ++j)
        k_documents.push_back(static_cast<int32_t>((j + 3 * b) * t.documents / c.keys));
      for (int64_t i = 0; i < c.queries; ++i)
        q_documents.push_back(
            i == 0 || (i >= 16 && i < 16 + t.gap)
                ? -1
                : static_cast<int32_t>((i + c.keys - c.queries + 3 * b) * t.documents / c.keys));
    }
    inputs.q_documents = q_documents.data();
    inputs.k_documents = k_documents.data();
  }

  void forward(const AttentionConfig& c, int threads) {
    std::vector<char> memory(attention_forward_workspace(c, q.view.dtype, threads) + 64);
    attention_forward(c, inputs, out.view, lse.data(), aligned(memory), threads);
    out.read();
  }

  void backward(const AttentionConfig& c, int threads) {
    std::vector<char> memory(attention_backward_workspace(c, q.view.dtype, threads) + 64);
    attention_backward(c, inputs, out.view, lse.data(), grad_out.view, grad_q.view, grad_k.view, grad_v.view,
                       aligned(memory), threads);
    for (Tensor* t : {&grad_q, &grad_k, &grad_v}) t->read();
  }

  static void* aligned(std::vector<char>& memory) {
    std::fill(memory.begin(), memory.end(), '\xff');  // nothing may depend on what the workspace held
    return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  }
};

double dropout_factor(const AttentionConfig& c, const uint32_t* rng, int64_t b, int64_t h, int64_t i,
                      int64_t j) {
  if (c.dropout == 0.0F) return 1.0;
  const PhiloxKey key{rng[0] ^ (rng[2] * 0x9E3779B9U), rng[1] ^ (rng[3] * 0x85EBCA6BU)};
  const auto index = static_cast<uint64_t>(((b * c.heads + h) * c.queries + i) * c.keys + j);
  return philox_uniform(philox_word(index, c.dropout_stream, key)) < c.dropout
             ? 0.0
             : 1.0 / (1.0 - static_cast<double>(c.dropout));
}

bool sees(const Case& t, const Run& r, int64_t b, int64_t i, int64_t j) {
  const AttentionConfig& c = t.config;
  const int64_t valid = t.length >= 0 ? t.length : c.keys, position = valid - c.queries + i;
  if (j >= valid) return false;
  if ((c.causal || c.window > 0) && j > position) return false;
  if (c.window > 0 && j <= position - c.window) return false;
  if (t.documents == 0) return true;
  const int32_t document = r.q_documents[static_cast<size_t>(b * c.queries + i)];
  return document >= 0 && document == r.k_documents[static_cast<size_t>(b * c.keys + j)];
}

double cap_score(const AttentionConfig& c, double s, double* slope) {
  const auto cap = static_cast<double>(c.cap);
  *slope = 1.0;
  if (c.cap_type == CapType::none) return s;
  if (c.cap_type == CapType::hard) {
    if (std::abs(s) > cap) *slope = 0.0;
    return std::clamp(s, -cap, cap);
  }
  const double tanh = std::tanh(s / cap);
  *slope = 1.0 - tanh * tanh;
  return cap * tanh;
}

// The result on paper: out and lse and, of sum(out * grad_out), the gradients. `r` gives the inputs.
struct Paper {
  std::vector<double> lse;
  Tensor out, grad_q, grad_k, grad_v;

  Paper(const Case& t, Run& r)
      : lse(r.lse.size()),
        out(r.out.view.shape, DType::f32, false),
        grad_q(r.q.view.shape, DType::f32, false),
        grad_k(r.k.view.shape, DType::f32, false),
        grad_v(r.v.view.shape, DType::f32, false) {
    const AttentionConfig& c = t.config;
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t i = 0; i < c.queries; ++i) row(t, r, b, h, i);
  }

  void row(const Case& t, Run& r, int64_t b, int64_t h, int64_t i) {
    const AttentionConfig& c = t.config;
    const int64_t kv = h / (c.heads / c.kv_heads);
    const double *q = &r.q.at(b, i, h, 0), *go = &r.grad_out.at(b, i, h, 0);
    double *o = &out.at(b, i, h, 0), *gq = &grad_q.at(b, i, h, 0);
    std::vector<int64_t> seen;
    for (int64_t j = 0; j < c.keys; ++j)
      if (sees(t, r, b, i, j)) seen.push_back(j);
    std::vector<double> p, slope, dp(seen.size(), 0.0);
    double total = 0.0, maximum = -std::numeric_limits<double>::infinity(), delta = 0.0;
    for (int64_t j : seen) {
      const double* k = &r.k.at(b, j, kv, 0);
      double s = 0.0, factor = 1.0;
      for (int64_t d = 0; d < c.key_width; ++d) s += q[d] * k[d];
      p.push_back(cap_score(c, s * static_cast<double>(c.scale), &factor));
      slope.push_back(factor);
      maximum = std::max(maximum, p.back());
    }
    for (double& x : p) total += x = std::exp(x - maximum);
    lse[static_cast<size_t>((b * c.heads + h) * c.queries + i)] = maximum + std::log(total);
    for (size_t n = 0; n < seen.size(); ++n) {
      const double *v = &r.v.at(b, seen[n], kv, 0), keep = dropout_factor(c, r.rng, b, h, i, seen[n]);
      double* gv = &grad_v.at(b, seen[n], kv, 0);
      p[n] /= total;
      for (int64_t d = 0; d < c.value_width; ++d) {
        o[d] += keep * p[n] * v[d];
        gv[d] += keep * p[n] * go[d];
        dp[n] += keep * go[d] * v[d];
      }
      delta += p[n] * dp[n];
    }
    for (size_t n = 0; n < seen.size(); ++n) {
      const double ds = p[n] * (dp[n] - delta) * slope[n] * static_cast<double>(c.scale);
      const double* k = &r.k.at(b, seen[n], kv, 0);
      double* gk = &grad_k.at(b, seen[n], kv, 0);
      for (int64_t d = 0; d < c.key_width; ++d) {
        gq[d] += ds * k[d];
        gk[d] += ds * q[d];
      }
    }
  }
};

double norm(const Tensor& t) {
  double sum = 0.0;
  for (double x : t.value) sum += x * x;
  return std::sqrt(sum);
}

// |result - expected| / |expected|; / |scale| where the expected value is zero but for rounding (the gradient
// of the scores of a query that sees one key).
double relative_error(const Tensor& result, const Tensor& expected, const Tensor& scale) {
  double error = 0.0;
  for (size_t i = 0; i < expected.value.size(); ++i) {
    const double difference = result.value[i] - expected.value[i];
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    error += difference * difference;
  }
  const double size = norm(expected);
  return std::sqrt(error) / (size < 1e-9 * norm(scale) ? norm(scale) : size);
}

std::string describe(const Case& t) {
  const AttentionConfig& c = t.config;
  return fmt::format(
      "{} -> {} B {} T {} S {} H {} K {} dk {} dv {} causal {} window {} cap {} {} dropout {} documents {} "
      "length {} heads first {} padding {} gap {}",
      name(t.dtype), name(t.out_dtype), c.batch, c.queries, c.keys, c.heads, c.kv_heads, c.key_width,
      c.value_width, c.causal, c.window, static_cast<int>(c.cap_type), c.cap, c.dropout, t.documents,
      t.length, t.heads_first, t.padding, t.gap);
}

void check(const Case& t) {
  CAPTURE(describe(t));
  Run r(t);
  r.forward(t.config, 2);
  r.backward(t.config, 2);
  const Paper paper(t, r);
  const double tolerance = t.dtype == DType::bf16 || t.out_dtype == DType::bf16 ? 2e-2 : 1e-5;
  CHECK(relative_error(r.out, paper.out, r.grad_out) < tolerance);
  CHECK(relative_error(r.grad_q, paper.grad_q, r.grad_out) < tolerance);
  CHECK(relative_error(r.grad_k, paper.grad_k, r.grad_out) < tolerance);
  CHECK(relative_error(r.grad_v, paper.grad_v, r.grad_out) < tolerance);
  double worst = 0.0;
  for (size_t i = 0; i < r.lse.size(); ++i) {
    if (std::isinf(paper.lse[i]))
      CHECK(r.lse[i] == -std::numeric_limits<float>::infinity());
    else
      worst = std::max(worst, std::abs(static_cast<double>(r.lse[i]) - paper.lse[i]) /
                                  std::max(1.0, std::abs(paper.lse[i])));
  }
  CHECK(worst < 2e-6);
}

AttentionConfig config(int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads,
                       int64_t key_width, int64_t value_width) {
  AttentionConfig c;
  c.batch = batch;
  c.queries = queries;
  c.keys = keys;
  c.heads = heads;
  c.kv_heads = kv_heads;
  c.key_width = key_width;
  c.value_width = value_width;
  c.scale = 1.0F / std::sqrt(static_cast<float>(key_width));
  return c;
}

void check_both(Case t) {
  check(t);
  t.dtype = DType::bf16;
  t.heads_first = !t.heads_first;
  check(t);
  t.out_dtype = DType::bf16;
  check(t);
}

}  // namespace

TEST_CASE("attention: rows amid others that see nothing at all") {
  for (const bool causal : {true, false})
    for (const int64_t gap : {16, 20, 48}) {
      Case t{config(2, 150, 150, 4, 2, 32, 32)};
      t.config.causal = causal;
      t.documents = 3;
      t.gap = gap;
      check_both(t);
    }
}

TEST_CASE("attention: plain, of many shapes") {
  for (int64_t queries : {1, 7, 8, 65, 130, 300}) check_both({config(2, queries, queries, 4, 2, 32, 32)});
  for (int64_t width : {1, 5, 8, 24, 40, 63, 64, 128, 200, 256})
    check_both({config(1, 37, 37, 2, 1, width, width)});
  check_both({config(1, 70, 70, 3, 3, 64, 128)});
  check_both({config(1, 70, 70, 6, 1, 128, 16)});
  check_both({config(3, 20, 50, 2, 2, 17, 9)});
  check_both({config(2, 50, 20, 4, 2, 16, 24)});
  check_both({config(17, 40, 40, 4, 2, 16, 16)});  // tasks for whole groups
  check_both({config(1, 600, 600, 4, 1, 16, 16)});
}

TEST_CASE("attention: every combination of masks, caps and dropout") {
  int number = 0;
  for (bool causal : {false, true})
    for (int64_t window : {0, 20})
      for (int documents : {0, 3})
        for (CapType cap : {CapType::none, CapType::soft, CapType::hard})
          for (float dropout : {0.0F, 0.3F})
            for (bool decoding : {false, true}) {
              const bool long_rows = number % 8 == 0;
              Case t{config(2, long_rows ? 150 : 65, long_rows ? 203 : 87, 4, 2, 24, 40)};
              t.config.causal = causal;
              t.config.window = window;
              t.config.cap_type = cap;
              t.config.cap = cap == CapType::none ? 0.0F : 0.8F;
              t.config.dropout = dropout;
              t.config.dropout_stream = 0x123456789ULL;
              t.documents = documents;
              t.heads_first = number++ % 2 == 0;
              if (decoding) t.length = t.config.keys - 11;
              check_both(t);
            }
}

TEST_CASE("attention: decoding") {
  struct Heads {
    int64_t all, of_keys, width;
  };
  for (const Heads& heads : {Heads{8, 2, 64}, Heads{4, 4, 64}, Heads{4, 2, 24}, Heads{3, 3, 40},
                             Heads{8, 1, 64}, Heads{6, 1, 96}, Heads{16, 2, 32}, Heads{9, 1, 32}})
    for (int64_t queries : {1, 3})
      for (int64_t keys : {1, 5, 600, 3000})
        for (int64_t length : {int64_t{1}, (keys + 1) / 2, keys}) {
          Case t{config(1, queries, keys, heads.all, heads.of_keys, heads.width, heads.width)};
          t.config.causal = true;
          t.length = length;
          check_both(t);
          t.padding = 2;
          check_both(t);
          t.config.window = 100;
          t.config.cap_type = CapType::soft;
          t.config.cap = 0.8F;
          check_both(t);
        }
}

TEST_CASE("attention: keys past the length are never read") {
  Case t{config(1, 4, 40, 2, 1, 16, 16)};
  t.config.causal = true;
  t.length = 21;
  Run r(t);
  for (Tensor* x : {&r.k, &r.v})
    x->each([&](double&, int64_t at) {
      if (at >= x->view.strides[1] * 21) x->view.as<float>()[at] = std::numeric_limits<float>::quiet_NaN();
    });
  r.forward(t.config, 1);
  r.backward(t.config, 1);
  const Paper paper(t, r);  // uses the values from before
  CHECK(relative_error(r.out, paper.out, r.grad_out) < 1e-5);
  CHECK(relative_error(r.grad_q, paper.grad_q, r.grad_out) < 1e-5);
  CHECK(relative_error(r.grad_k, paper.grad_k, r.grad_out) < 1e-5);
  CHECK(relative_error(r.grad_v, paper.grad_v, r.grad_out) < 1e-5);
}

TEST_CASE("attention: queries that see nothing give zeros") {
  Case t{config(1, 40, 20, 2, 1, 16, 16)};
  t.config.causal = true;  // the first 20 queries stand before every key
  Run r(t);
  r.forward(t.config, 2);
  r.backward(t.config, 2);
  for (int64_t i = 0; i < 40; ++i) {
    const bool blind = i < 20;
    CHECK(std::isinf(r.lse[static_cast<size_t>(i)]) == blind);
    for (int64_t d = 0; d < 16; ++d) {
      CHECK((r.out.at(0, i, 0, d) == 0.0) == blind);
      if (blind) CHECK(r.grad_q.at(0, i, 0, d) == 0.0);
    }
  }
}

TEST_CASE("attention: large scores stay finite and exact") {
  Case t{config(1, 64, 64, 1, 1, 64, 64)};
  t.spread = 30.0;
  Run r(t);
  r.forward(t.config, 1);
  const Paper paper(t, r);
  CHECK(relative_error(r.out, paper.out, r.grad_out) < 1e-4);
}

TEST_CASE("attention: the same bits for any number of threads") {
  for (DType dtype : {DType::f32, DType::bf16})
    for (int64_t queries : {1, 200}) {
      Case t{config(2, queries, 1500, 4, 2, 32, 32)};
      t.dtype = dtype;
      t.config.causal = true;
      t.config.dropout = 0.1F;
      Run one(t);
      one.forward(t.config, 1);
      one.backward(t.config, 1);
      for (int threads : {2, 3}) {
        Run more(t);
        more.forward(t.config, threads);
        more.backward(t.config, threads);
        CHECK(more.lse == one.lse);
        CHECK(more.out.memory == one.out.memory);
        CHECK(more.grad_q.memory == one.grad_q.memory);
        CHECK(more.grad_k.memory == one.grad_k.memory);
        CHECK(more.grad_v.memory == one.grad_v.memory);
      }
    }
}

TEST_CASE("attention: the gradients on paper are those of finite differences") {
  Case t{config(1, 6, 9, 2, 1, 5, 3)};
  t.config.causal = true;
  t.config.cap_type = CapType::soft;
  t.config.cap = 1.5F;
  t.config.dropout = 0.2F;
  t.documents = 2;
  Run r(t);
  Paper paper(t, r);
  const auto loss = [&] {
    Paper at(t, r);
    double sum = 0.0;
    for (size_t i = 0; i < at.out.value.size(); ++i) sum += at.out.value[i] * r.grad_out.value[i];
    return sum;
  };
  const auto compare = [&](Tensor& input, const Tensor& gradient) {
    for (size_t i = 0; i < input.value.size(); ++i) {
      const double before = input.value[i], step = 1e-5;
      input.value[i] = before + step;
      const double above = loss();
      input.value[i] = before - step;
      const double below = loss();
      input.value[i] = before;
      CHECK(gradient.value[i] == doctest::Approx((above - below) / (2.0 * step)).epsilon(1e-6).scale(0.01));
    }
  };
  compare(r.q, paper.grad_q);
  compare(r.k, paper.grad_k);
  compare(r.v, paper.grad_v);
}

TEST_CASE("attention: workspace is linear in the length") {
  const auto bytes = [](int64_t length) {
    return attention_backward_workspace(config(1, length, length, 8, 2, 64, 64), DType::bf16, 2) +
           attention_forward_workspace(config(1, length, length, 8, 2, 64, 64), DType::bf16, 2);
  };
  CHECK(static_cast<double>(bytes(8192)) < 2.1 * static_cast<double>(bytes(4096)));
}

TEST_CASE("attention: misuse throws") {
  Case t{config(1, 8, 8, 4, 2, 16, 16)};
  Run r(t);
  AttentionConfig c = t.config;
  c.kv_heads = 3;
  CHECK_THROWS_AS(attention_forward_workspace(c, DType::f32, 1), Error);
  c = t.config;
  c.dropout = 0.5F;
  CHECK_THROWS_AS(r.forward(c, 1), Error);
  c = t.config;
  c.keys = 9;
  CHECK_THROWS_AS(r.forward(c, 1), Error);
  c = t.config;
  c.cap_type = CapType::soft;
  CHECK_THROWS_AS(r.forward(c, 1), Error);
  r.inputs.q.strides[3] = 2;
  CHECK_THROWS_AS(r.forward(t.config, 1), Error);
}
