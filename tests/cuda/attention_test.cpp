// Attention on the CUDA backend against the op's decomposition in double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <list>
#include <set>

#include "cuda/library.h"
#include "nf/executable.h"
#include "nf/gradients.h"
#include "nf/ops.h"
#include "tests/cuda/emulated_gpu.h"
#include "tests/support/graphs.h"

using namespace nf;
using test::Bindings;
using test::Tensor;

namespace {

struct Case {
  int64_t batch = 1, queries = 17, keys = 17, heads = 1, kv_heads = 1, key_width = 16, value_width = 16;
  AttentionOptions options = {};
  int64_t documents = 0;     // about how many; the first query belongs to none
  int64_t length = -1;       // -1: none
  bool heads_first = false;  // tensors are given as [B, H, T, d]
  bool joined = false;       // q, k and v are slices of one tensor, so that their rows have gaps
  bool backward = true;
};

std::string describe(const Case& c, DType dtype) {
  return fmt::format(
      "{} B {} T {} S {} H {} K {} dk {} dv {} causal {} window {} cap {} dropout {} documents {} "
      "length {}",
      name(dtype), c.batch, c.queries, c.keys, c.heads, c.kv_heads, c.key_width, c.value_width,
      c.options.causal, c.options.window, static_cast<int>(c.options.cap_type), c.options.dropout,
      c.documents, c.length);
}

Bindings inputs_of(const Case& c, DType dtype) {
  const auto shape = [&](int64_t rows, int64_t heads, int64_t width) {
    return c.heads_first ? Shape{c.batch, heads, rows, width} : Shape{c.batch, rows, heads, width};
  };
  Bindings inputs{{"q", test::random_tensor(shape(c.queries, c.heads, c.key_width), 1)},
                  {"k", test::random_tensor(shape(c.keys, c.kv_heads, c.key_width), 2)},
                  {"v", test::random_tensor(shape(c.keys, c.kv_heads, c.value_width), 3)},
                  {"grad_out", test::random_tensor({c.batch, c.queries, c.heads, c.value_width}, 4)},
                  {"length", {{}, {static_cast<double>(c.length)}}},
                  {"rng", {{4}, {123, 456, 7, 2}}}};
  if (c.joined) {
    const int64_t width = c.heads * c.key_width + c.kv_heads * (c.key_width + c.value_width);
    inputs["qkv"] = test::random_tensor({c.batch, c.queries, width}, 5);
  }
  for (auto& [name, tensor] : inputs)
    for (double& x : tensor.data) x = test::rounded(x, dtype);
  if (c.documents > 0) {
    Tensor &q = inputs["q_documents"] = test::random_integers({c.batch, c.queries}, 6, 0, 0),
           &k = inputs["k_documents"] = test::random_integers({c.batch, c.keys}, 6, 0, 0);
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t j = 0; j < c.keys; ++j)
        k.data[static_cast<size_t>(b * c.keys + j)] = static_cast<double>((j + 3 * b) * c.documents / c.keys);
      for (int64_t i = 0; i < c.queries; ++i)
        q.data[static_cast<size_t>(b * c.queries + i)] =
            i == 0 ? -1 : static_cast<double>((i + c.keys - c.queries + 3 * b) * c.documents / c.keys);
    }
  }
  return inputs;
}

// Attention, and the gradients of sum(out * grad_out).
void build(Graph& graph, const Case& c, DType dtype, const Bindings& inputs) {
  const auto tensor = [&](const char* name) { return input(graph, name, dtype, inputs.at(name).shape); };
  Value q, k, v;
  Values wrt;
  if (c.joined) {
    const Value all = tensor("qkv");
    int64_t at = 0;
    const auto part = [&](int64_t heads, int64_t width) {
      const Value x = slice(all, 2, at, heads * width);
      at += heads * width;
      return reshape(x, {c.batch, c.queries, heads, width});
    };
    q = part(c.heads, c.key_width);
    k = part(c.kv_heads, c.key_width);
    v = part(c.kv_heads, c.value_width);
    wrt = {all};
  } else {
    wrt = {tensor("q"), tensor("k"), tensor("v")};
    const auto turn = [&](Value x) { return c.heads_first ? transpose(x, 1, 2) : x; };
    q = turn(wrt[0]);
    k = turn(wrt[1]);
    v = turn(wrt[2]);
  }
  AttentionOptions options = c.options;
  if (options.scale == 1) options.scale = 1 / std::sqrt(static_cast<double>(c.key_width));
  if (c.documents > 0) {
    options.q_documents = input(graph, "q_documents", DType::i32, {c.batch, c.queries});
    options.k_documents = input(graph, "k_documents", DType::i32, {c.batch, c.keys});
  }
  if (c.length >= 0) options.length = input(graph, "length", DType::i32, {});
  if (c.options.dropout > 0) options.rng = input(graph, "rng", DType::i32, {4});
  const Value out = attention(q, k, v, options);
  graph.output("out", out);
  graph.output("logsumexp", graph.value({out.id.node, 1}));
  if (!c.backward) return;
  int i = 0;
  const Value loss = sum(cast(out * tensor("grad_out"), DType::f32));
  for (const Value& grad : gradients(loss, wrt)) graph.output(std::to_string(i++), grad);
}

// The families of kernels: those of every GPU, and those of sm_90a, whose blocks have several lots each.
constexpr cuda::GpuKind kAnyGpu{.capability = 80}, kSm90{.capability = 90, .processors = 2};

std::vector<cuda::GpuKind> kinds_for(DType dtype) {
  return dtype == DType::f32 ? std::vector{kAnyGpu} : std::vector{kAnyGpu, kSm90};  // f32 has but one
}

struct Problem {
  Case c;
  DType dtype;
  Bindings inputs;
  Graph graph = {};

  Problem(const Case& of, DType type) : c(of), dtype(type), inputs(inputs_of(c, dtype)) {
    build(graph, c, dtype, inputs);
  }
};

void check(const Problem& problem) {
  CAPTURE(describe(problem.c, problem.dtype));
  const std::vector<Tensor> expected = test::run_reference(problem.graph, problem.inputs);
  for (const cuda::GpuKind kind : kinds_for(problem.dtype)) {
    CAPTURE(kind.capability);
    Bindings state;
    const std::vector<Tensor> results =
        test::run_on(cuda::emulated_cuda_device(kind), problem.graph, problem.inputs, state);
    for (size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(test::relative_error(results[i], expected[i]) < (problem.dtype == DType::f32 ? 1e-5 : 1e-2));
    }
  }
}

// Asks for the kernels of all before it runs any: the emulator compiles them at once.
void check_all(const std::vector<Case>& cases, const std::vector<DType>& dtypes = {DType::f32, DType::bf16}) {
  std::list<Problem> problems;
  for (const Case& c : cases)
    for (const DType dtype : dtypes) problems.emplace_back(c, dtype);
  for (const Problem& problem : problems)
    for (const cuda::GpuKind kind : kinds_for(problem.dtype))
      compile(problem.graph, std::make_shared<State>(cuda::emulated_cuda_device(kind)));
  for (const Problem& problem : problems) check(problem);
}

}  // namespace

TEST_CASE("cuda: attention of many sizes") {
  check_all({{.queries = 1, .keys = 1},
             {.batch = 2, .queries = 17, .keys = 17, .heads = 4, .kv_heads = 2},
             {.queries = 130, .keys = 130, .heads = 2},
             {.queries = 20, .keys = 70, .heads = 3, .kv_heads = 3},
             {.queries = 70, .keys = 20}});  // the first 50 queries see nothing
}

TEST_CASE("cuda: attention of many widths") {
  std::vector<Case> cases;
  struct Widths {
    int64_t key, value;
  };
  for (const auto& [key, value] : {Widths{1, 1}, Widths{5, 9}, Widths{96, 64}})
    cases.push_back({.queries = 33, .keys = 37, .key_width = key, .value_width = value});
  cases.push_back({.queries = 17, .keys = 19, .key_width = 256, .value_width = 250});
  check_all(cases);
  check_all({{.queries = 33, .keys = 37, .key_width = 40, .value_width = 24},
             {.queries = 33, .keys = 37, .key_width = 192, .value_width = 128},
             {.queries = 200, .keys = 300, .heads = 2, .key_width = 128, .value_width = 128}},
            {DType::bf16});
}

TEST_CASE("cuda: attention with masks, caps and dropout") {
  const AttentionOptions none{.causal = false}, window{.window = 20},
      soft{.scale = 0.4, .cap = 0.8, .cap_type = CapType::soft, .causal = false, .window = 20},
      hard{.scale = -0.4, .cap = 0.8, .cap_type = CapType::hard}, negative{.scale = -0.3},
      dropout{.scale = 0.25, .causal = false, .dropout = 0.3, .dropout_stream = 0x123456789},
      all{.scale = 0.3, .cap = 2, .cap_type = CapType::soft, .window = 40, .dropout = 0.2};
  check_all({{.queries = 65, .keys = 87, .options = none},
             {.queries = 65, .keys = 87, .options = none, .documents = 3},
             {.queries = 65, .keys = 150, .heads = 2, .options = window},
             {.queries = 65, .keys = 87, .options = window, .length = 70},
             {.queries = 65, .keys = 87, .options = soft},
             {.queries = 65, .keys = 87, .options = hard, .documents = 3, .length = 76},
             {.queries = 65, .keys = 87, .options = negative},
             {.batch = 2, .queries = 33, .keys = 41, .heads = 4, .kv_heads = 2, .options = dropout},
             {.batch = 2, .queries = 33, .keys = 41, .heads = 2, .options = all, .documents = 2}});
}

// Blocks visit only the tiles that some document of theirs reaches, or some query's window.
TEST_CASE("cuda: attention within many short documents") {
  check_all({{.batch = 2, .queries = 140, .keys = 140, .documents = 3},
             {.batch = 2, .queries = 140, .keys = 140, .documents = 40},
             {.queries = 3, .keys = 700, .documents = 4, .backward = false}});
}

TEST_CASE("cuda: attention over several tiles") {
  check_all(
      {{.queries = 450, .keys = 450},
       {.queries = 300, .keys = 500, .options = {.window = 70}},
       {.batch = 2, .queries = 260, .keys = 390, .heads = 2, .options = {.causal = false}, .length = 345},
       // Several lots per processor, of 192 rows.
       {.queries = 420, .keys = 420, .heads = 4, .kv_heads = 4, .key_width = 64, .value_width = 48},
       {.queries = 200, .keys = 390, .heads = 6, .kv_heads = 3, .options = {.window = 150}},
       // Few lots of keys, which many queries see: a group's heads go to different ones.
       {.queries = 1025, .keys = 70, .heads = 3, .kv_heads = 1, .options = {.causal = false}},
       // More tiles than buffers, which a warpgroup without rows must let pass one by one.
       {.queries = 60, .keys = 500, .key_width = 128, .value_width = 128, .options = {.causal = false}},
       {.queries = 150, .keys = 200, .heads = 4, .kv_heads = 2, .key_width = 128, .value_width = 80}},
      {DType::bf16});
}

// A thread per lot writes which lot it takes to be.
TEST_CASE("emulator: attention's lots are each taken once, those with least to do last") {
  struct Params {
    int32_t* out;
    int32_t tiles, heads, section;
  };
  cuda::KernelLibrary library(cuda::emulated_gpu());
  const cuda::KernelSource source{"lot_places", "lot_places_params", R"(#include "attention_sm90.cuh"
struct lot_places_params { int* out; int tiles, heads, section; };
extern "C" __global__ void lot_places(const __grid_constant__ lot_places_params p) {
  for (int i = threadIdx.x; i < p.tiles * p.heads; i += 32) {
    const nf::cuda::LotPlace place(i, p.tiles, p.heads, p.section);
    p.out[i] = place.head * p.tiles + place.rank;
  }
})"};
  const int32_t tiles = 5, heads = 14;
  for (const int32_t section : {1, 4, 7, 14}) {
    CAPTURE(section);
    std::vector<int32_t> lots(tiles * heads, -1);
    const Launch launch = library.launch(source, {.threads = 32}, Params{lots.data(), tiles, heads, section});
    library.compile();
    launch();
    CHECK(std::set<int32_t>(lots.begin(), lots.end()).size() == lots.size());
    for (size_t i = 1; i < lots.size(); ++i) {
      const int32_t head = lots[i] / tiles, rank = lots[i] % tiles, before = lots[i - 1] % tiles;
      CHECK((head >= 0 && head < heads));
      CHECK(std::abs(rank - before) <= 1);  // as much to do as the one before, almost
      CHECK(head / section >= lots[i - 1] / tiles / section);
    }
    CHECK(lots.back() % tiles == tiles - 1);
  }
}

TEST_CASE("cuda: attention does not hide what is not a number") {
  const Case c{.queries = 20,
               .keys = 20,
               .options = {.cap = 2, .cap_type = CapType::soft, .causal = false},
               .backward = false};
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const cuda::GpuKind kind : kinds_for(dtype)) {
      Graph graph;
      Bindings inputs = inputs_of(c, dtype), state;
      build(graph, c, dtype, inputs);
      inputs["q"].data[7 * 16] = std::nan("");
      const std::vector<Tensor> results =
          test::run_on(cuda::emulated_cuda_device(kind), graph, inputs, state);
      for (size_t i = 0; i < 20; ++i) {
        CHECK(std::isnan(results[0].data[i * 16]) == (i == 7));
        CHECK(std::isnan(results[1].data[i]) == (i == 7));
      }
    }
}

TEST_CASE("cuda: attention of tensors with gaps between their rows") {
  check_all({{.batch = 2, .heads = 2, .heads_first = true},
             {.batch = 2, .heads = 4, .kv_heads = 2, .key_width = 24, .joined = true},
             {.batch = 2, .heads = 2, .key_width = 3, .value_width = 5, .joined = true}});
}

TEST_CASE("cuda: attention to a cache of keys, split over blocks") {
  std::vector<Case> cases;
  for (const int64_t length : {1, 300, 1100})
    for (const int64_t queries : {1, 3})
      cases.push_back({.queries = queries,
                       .keys = 1100,
                       .heads = 4,
                       .kv_heads = 2,
                       .value_width = 24,
                       .length = length,
                       .backward = false});
  check_all(cases);
}

TEST_CASE("cuda: attention never reads keys past the length") {
  const Case c{.queries = 4, .keys = 40, .heads = 2, .length = 21};
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const cuda::GpuKind kind : kinds_for(dtype)) {
      Graph graph;
      Bindings inputs = inputs_of(c, dtype), state;
      build(graph, c, dtype, inputs);
      const auto run = [&] { return test::run_on(cuda::emulated_cuda_device(kind), graph, inputs, state); };
      const std::vector<Tensor> expected = run();
      for (const char* name : {"k", "v"}) {
        std::vector<double>& data = inputs.at(name).data;  // one batch, one head: rows of keys
        for (size_t i = data.size() / 40 * 21; i < data.size(); ++i)
          data[i] = std::numeric_limits<double>::quiet_NaN();
      }
      const std::vector<Tensor> results = run();
      for (size_t i = 0; i < expected.size(); ++i) CHECK(test::relative_error(results[i], expected[i]) == 0);
    }
}
