// The instructions of fused loops, one by one and on every instruction set that this processor has.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/philox.h"
#include "cpu/isa.h"
#include "cpu/loop_kernels.h"
#include "nf/dtype.h"

using namespace nf;
using namespace nf::cpu;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Isa {
  const char* name;
  LoopTable table;
};

const std::vector<Isa>& isas() {
  static const std::vector<Isa> all = [] {
    std::vector<Isa> result;
    const auto add = [&](const char* name, LoopIsa isa) {
      result.push_back({name, {}});
      fill_map_kernels(result.back().table, isa);
      fill_move_kernels(result.back().table, isa);
    };
    add("portable", LoopIsa::portable);
    if (cpu_features().avx2) add("avx2", LoopIsa::avx2);
    if (cpu_features().avx512) add("avx512", LoopIsa::avx512);
    return result;
  }();
  return all;
}

LoopFunction function(const Isa& isa, Code code, unsigned pattern = 0) {
  return isa.table[static_cast<size_t>(code)][pattern];
}

using Lanes = std::vector<float>;

Lanes apply(const Isa& isa, Code code, const std::vector<const Lanes*>& operands, int64_t n) {
  Lanes out(static_cast<size_t>(n));
  LoopArgs args;
  for (size_t i = 0; i < operands.size(); ++i) args.in[i] = operands[i]->data();
  args.out = out.data();
  args.rows = 1;
  args.cols = n;
  function(isa, code)(args);
  return out;
}

bool same_bits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }
float as_lane(int32_t value) { return std::bit_cast<float>(value); }
int32_t as_int(float lane) { return std::bit_cast<int32_t>(lane); }

// Special values, then floats of all magnitudes, evenly spaced in their bits.
Lanes samples() {
  Lanes values = {0.0F,     -0.0F,   1.0F,        -1.0F,      kInf,     -kInf,       kNaN,        0.5F,
                  -0.5F,    2.0F,    88.7F,       88.73F,     89.5F,    -87.3F,      -87.34F,     -103.0F,
                  -103.97F, -104.5F, 0.625F,      -0.625F,    0.9249F,  0.9251F,     4.0F,        -4.0F,
                  1e-45F,   -1e-45F, 1.1e-38F,    3.4e38F,    -3.4e38F, 0.70710677F, 1.41421354F, 1000.0F,
                  -1000.0F, 1e-20F,  16777216.0F, 0.34657359F};
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 40503)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (float x = -20; x < 20; x += 0.00071F) values.push_back(x);
  return values;
}

// How far `got` is from the exact result, in units of the last place of the exact one.
double ulps(float got, double exact) {
  const auto rounded = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(rounded)) {
    // Within reach of overflow the largest float is an honest answer.
    if (got == rounded) return 0;
    return std::fabs(exact) < 3.5e38 && std::fabs(got) > 3.4e38F ? 1 : 1e9;
  }
  if (!std::isfinite(got)) return std::isinf(got) && std::fabs(exact) > 3.4028e38 ? 1 : 1e9;
  const double magnitude = std::max(std::fabs(exact), 0x1p-126);
  const double unit = std::exp2(std::floor(std::log2(magnitude)) - 23);
  return std::fabs(static_cast<double>(got) - exact) / unit;
}

struct FunctionCase {
  const char* name;
  Code code;
  double (*exact)(double);
  double limit;  // ulp
};

double neg(double x) { return -x; }
double rsqrt(double x) { return 1 / std::sqrt(x); }
double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

const FunctionCase kFunctions[] = {
    {"neg", Code::neg_f, neg, 0},           {"abs", Code::abs_f, std::fabs, 0},
    {"exp", Code::exp_f, std::exp, 1.5},    {"log", Code::log_f, std::log, 1.5},
    {"sqrt", Code::sqrt_f, std::sqrt, 0.5}, {"rsqrt", Code::rsqrt_f, rsqrt, 1.5},
    {"tanh", Code::tanh_f, std::tanh, 2.5}, {"sigmoid", Code::sigmoid_f, sigmoid, 2.5},
    {"erf", Code::erf_f, std::erf, 2.5},    {"sin", Code::sin_f, std::sin, 1.0},
    {"cos", Code::cos_f, std::cos, 1.0},
};

}  // namespace

TEST_CASE("loop kernels: functions of one float agree with libm to a few units in the last place") {
  const Lanes x = samples();
  for (const Isa& isa : isas())
    for (const FunctionCase& f : kFunctions) {
      const Lanes y = apply(isa, f.code, {&x}, static_cast<int64_t>(x.size()));
      double worst = 0;
      float where = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double error = ulps(y[i], f.exact(static_cast<double>(x[i])));
        if (error > worst) {
          worst = error;
          where = x[i];
        }
      }
      CAPTURE(isa.name);
      CAPTURE(f.name);
      CAPTURE(where);
      CHECK(worst <= f.limit);
    }
}

TEST_CASE("loop kernels: limits of functions") {
  const Lanes x = {0.0F, -0.0F, kInf, -kInf};
  for (const Isa& isa : isas()) {
    CAPTURE(isa.name);
    const auto check = [&](Code code, float zero, float minus_zero, float inf, float minus_inf) {
      CAPTURE(name(code));
      const Lanes y = apply(isa, code, {&x}, 4);
      const Lanes wanted = {zero, minus_zero, inf, minus_inf};
      for (size_t i = 0; i < 4; ++i)
        CHECK((same_bits(y[i], wanted[i]) || (std::isnan(y[i]) && std::isnan(wanted[i]))));
    };
    check(Code::exp_f, 1, 1, kInf, 0);
    check(Code::log_f, -kInf, -kInf, kInf, kNaN);
    check(Code::sqrt_f, 0.0F, -0.0F, kInf, kNaN);
    check(Code::rsqrt_f, kInf, -kInf, 0, kNaN);
    check(Code::tanh_f, 0.0F, -0.0F, 1, -1);
    check(Code::sigmoid_f, 0.5F, 0.5F, 1, 0);
    check(Code::erf_f, 0.0F, -0.0F, 1, -1);
    check(Code::abs_f, 0.0F, 0.0F, kInf, kInf);
    check(Code::neg_f, -0.0F, 0.0F, -kInf, kInf);
    check(Code::sin_f, 0.0F, -0.0F, kNaN, kNaN);
    check(Code::cos_f, 1, 1, kNaN, kNaN);
  }
}

TEST_CASE("loop kernels: two floats, over all pairs of special values") {
  const Lanes specials = {0.0F, -0.0F, 1.0F, -1.5F, kInf, -kInf, kNaN, 1e-45F, 3e38F, 7.25F, 1e-38F};
  Lanes a, b;
  for (const float x : specials)
    for (const float y : specials) {
      a.push_back(x);
      b.push_back(y);
    }
  const auto n = static_cast<int64_t>(a.size());
  const auto larger = [](float x, float y) { return std::isnan(x) || std::isnan(y) ? kNaN : std::max(x, y); };
  const auto smaller = [](float x, float y) {
    return std::isnan(x) || std::isnan(y) ? kNaN : std::min(x, y);
  };
  for (const Isa& isa : isas()) {
    CAPTURE(isa.name);
    const auto check = [&](Code code, auto exact) {
      CAPTURE(name(code));
      const Lanes y = apply(isa, code, {&a, &b}, n);
      for (size_t i = 0; i < a.size(); ++i) {
        CAPTURE(a[i]);
        CAPTURE(b[i]);
        const float wanted = exact(a[i], b[i]);
        CHECK((y[i] == wanted || (std::isnan(y[i]) && std::isnan(wanted))));
      }
    };
    check(Code::add_f, [](float x, float y) { return x + y; });
    check(Code::sub_f, [](float x, float y) { return x - y; });
    check(Code::mul_f, [](float x, float y) { return x * y; });
    check(Code::div_f, [](float x, float y) { return x / y; });
    check(Code::max_f, larger);
    check(Code::min_f, smaller);
    check(Code::equal_f, [](float x, float y) { return as_lane(x == y ? 1 : 0); });
    check(Code::less_f, [](float x, float y) { return as_lane(x < y ? 1 : 0); });
    check(Code::less_equal_f, [](float x, float y) { return as_lane(x <= y ? 1 : 0); });
    // a chosen where b, seen as an integer, is not 0
    const Lanes chosen = apply(isa, Code::where, {&b, &a, &b}, n);
    for (size_t i = 0; i < a.size(); ++i) CHECK(same_bits(chosen[i], as_int(b[i]) != 0 ? a[i] : b[i]));
  }
}

TEST_CASE("loop kernels: integers") {
  const std::vector<int32_t> specials = {0,       1,        -1,        7,         -7,  3,
                                         1000000, -1000000, INT32_MAX, INT32_MIN, 256, 511};
  Lanes a, b;
  for (const int32_t x : specials)
    for (const int32_t y : specials) {
      a.push_back(as_lane(x));
      b.push_back(as_lane(y));
    }
  const auto n = static_cast<int64_t>(a.size());
  const auto wrap = [](int64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); };
  for (const Isa& isa : isas()) {
    CAPTURE(isa.name);
    const auto check = [&](Code code, auto exact) {
      CAPTURE(name(code));
      const Lanes y = apply(isa, code, {&a, &b}, n);
      for (size_t i = 0; i < a.size(); ++i)
        CHECK(as_int(y[i]) == wrap(exact(int64_t{as_int(a[i])}, int64_t{as_int(b[i])})));
    };
    check(Code::add_i, [](int64_t x, int64_t y) { return x + y; });
    check(Code::sub_i, [](int64_t x, int64_t y) { return x - y; });
    check(Code::mul_i, [](int64_t x, int64_t y) { return x * y; });
    check(Code::div_i, [](int64_t x, int64_t y) { return y == 0 ? 0 : x / y; });
    check(Code::max_i, [](int64_t x, int64_t y) { return std::max(x, y); });
    check(Code::min_i, [](int64_t x, int64_t y) { return std::min(x, y); });
    check(Code::equal_i, [](int64_t x, int64_t y) { return int64_t{x == y}; });
    check(Code::less_i, [](int64_t x, int64_t y) { return int64_t{x < y}; });
    check(Code::less_equal_i, [](int64_t x, int64_t y) { return int64_t{x <= y}; });
    const auto check_one = [&](Code code, auto exact) {
      CAPTURE(name(code));
      const Lanes y = apply(isa, code, {&a}, n);
      for (size_t i = 0; i < a.size(); ++i) CHECK(as_int(y[i]) == wrap(exact(int64_t{as_int(a[i])})));
    };
    check_one(Code::neg_i, [](int64_t x) { return -x; });
    check_one(Code::abs_i, [](int64_t x) { return std::abs(x); });
    check_one(Code::i_to_bool, [](int64_t x) { return int64_t{x != 0}; });
    check_one(Code::i_to_u8, [](int64_t x) { return x & 255; });
    const Lanes as_floats = apply(isa, Code::i_to_f, {&a}, n);
    for (size_t i = 0; i < a.size(); ++i) CHECK(as_floats[i] == static_cast<float>(as_int(a[i])));
  }
}

TEST_CASE("loop kernels: conversions of floats") {
  const Lanes x = samples();
  const auto n = static_cast<int64_t>(x.size());
  for (const Isa& isa : isas()) {
    CAPTURE(isa.name);
    const Lanes rounded = apply(isa, Code::round_bf16, {&x}, n);
    const Lanes halves = apply(isa, Code::round_f16, {&x}, n);
    const Lanes integers = apply(isa, Code::f_to_i, {&x}, n);
    const Lanes truths = apply(isa, Code::f_to_bool, {&x}, n);
    std::vector<uint16_t> stored(x.size());
    LoopArgs args{.in = {x.data()}, .out = stored.data(), .rows = 1, .cols = n};
    function(isa, Code::store_bf16)(args);
    int64_t wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      wrong += !same_bits(rounded[i], to_float(to_bf16(x[i])));
      wrong += stored[i] != to_bf16(x[i]).bits;
      wrong += !same_bits(halves[i], to_float(to_f16(x[i])));
      wrong += as_int(truths[i]) != (x[i] != 0 ? 1 : 0);
      if (std::fabs(x[i]) < 2e9F) wrong += as_int(integers[i]) != static_cast<int32_t>(x[i]);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("loop kernels: AVX2 and AVX-512 give the same bits") {
  if (isas().size() < 3) return;
  const Lanes x = samples();
  const auto n = static_cast<int64_t>(x.size());
  for (const FunctionCase& f : kFunctions) {
    const Lanes a = apply(isas()[1], f.code, {&x}, n), b = apply(isas()[2], f.code, {&x}, n);
    int64_t different = 0;
    for (size_t i = 0; i < x.size(); ++i) different += !same_bits(a[i], b[i]) && !std::isnan(x[i]);
    CAPTURE(f.name);
    CHECK(different == 0);
  }
}

TEST_CASE("loop kernels: an element's bits do not depend on its place") {
  Lanes x = samples();
  x.resize(5000);
  std::shuffle(x.begin() + 200, x.end(), std::mt19937(1));
  for (const Isa& isa : isas())
    for (const FunctionCase& f : kFunctions) {
      const Lanes whole = apply(isa, f.code, {&x}, 700);
      for (const int64_t offset : {1, 3, 16, 31}) {
        const Lanes part(x.begin() + offset, x.begin() + offset + 37);
        for (const int64_t n : {1, 5, 16, 17, 33, 37}) {
          const Lanes y = apply(isa, f.code, {&part}, n);
          for (int64_t i = 0; i < n; ++i)
            REQUIRE(same_bits(y[static_cast<size_t>(i)], whole[static_cast<size_t>(i + offset)]));
        }
      }
    }
}

TEST_CASE("loop kernels: row reductions add 64 lanes in the documented order, whole or in pieces") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int64_t n : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 200, 1000}) {
    Lanes x(static_cast<size_t>(n)), y(static_cast<size_t>(n));
    for (float& value : x) value = normal(random);
    for (float& value : y) value = normal(random);
    const auto expected = [&](bool product) {
      Lanes lanes(kReduceLanes, 0.0F);
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(i);
        lanes[at % kReduceLanes] += product ? x[at] * y[at] : x[at];
      }
      for (size_t half = kReduceLanes / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
      return lanes[0];
    };
    for (const Isa& isa : isas()) {
      CAPTURE(isa.name);
      CAPTURE(n);
      float sum = 0, product = 0, pieces = 0;
      LoopArgs args{.in = {x.data(), y.data()}, .out = &sum, .rows = 1, .cols = n};
      function(isa, Code::reduce_sum_f)(args);
      CHECK(same_bits(sum, expected(false)));
      args.out = &product;
      function(isa, Code::reduce_sum_product)(args);
      CHECK(same_bits(product, expected(true)));

      Lanes state(kReduceLanes);
      args.out = state.data();
      function(isa, Code::begin_sum_f)(args);
      for (int64_t first = 0; first < n; first += 128) {
        args.in[0] = x.data() + first;
        args.cols = std::min<int64_t>(128, n - first);
        function(isa, Code::part_sum_f)(args);
      }
      args.in[0] = state.data();
      args.out = &pieces;
      function(isa, Code::end_sum_f)(args);
      CHECK(same_bits(pieces, expected(false)));

      float largest = 0;
      args = {.in = {x.data()}, .out = &largest, .rows = 1, .cols = n};
      function(isa, Code::reduce_max_f)(args);
      CHECK(largest == *std::max_element(x.begin(), x.end()));
      Lanes with_nan = x;
      with_nan[static_cast<size_t>(n / 2)] = kNaN;
      args.in[0] = with_nan.data();
      function(isa, Code::reduce_max_f)(args);
      CHECK(std::isnan(largest));
    }
  }
}

TEST_CASE("loop kernels: random words are Philox's, from any first word on") {
  const std::vector<int32_t> rng = {123, -77, 5, 9};
  const PhiloxKey key = {static_cast<uint32_t>(rng[0]) ^ (static_cast<uint32_t>(rng[2]) * 0x9E3779B9U),
                         static_cast<uint32_t>(rng[1]) ^ (static_cast<uint32_t>(rng[3]) * 0x85EBCA6BU)};
  const uint64_t stream = 0x123456789ULL;
  for (const Isa& isa : isas())
    for (const uint64_t first : {uint64_t{0}, uint64_t{3}, uint64_t{1021}, (uint64_t{4} << 32) - 6})
      for (const int64_t n : {1, 7, 300, 1000}) {
        Lanes out(static_cast<size_t>(2 * n));
        LoopArgs args{.in = {reinterpret_cast<const void*>(first), rng.data()},
                      .step = {n},
                      .out = out.data(),
                      .out_step = n * 4,
                      .rows = 2,
                      .cols = n,
                      .stride = 4,
                      .stream = stream};
        function(isa, Code::philox)(args);
        int64_t wrong = 0;
        for (int64_t i = 0; i < 2 * n; ++i)
          wrong += out[static_cast<size_t>(i)] !=
                   philox_uniform(philox_word(first + static_cast<uint64_t>(i), stream, key));
        CAPTURE(isa.name);
        CAPTURE(first);
        CAPTURE(n);
        CHECK(wrong == 0);
      }
}
