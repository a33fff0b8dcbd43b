// The compiler's chain of passes.
#include "nf/compile.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "nf/device.h"
#include "passes/passes.h"

namespace nf {
namespace {

// Writes the graph after each pass to the folder NF_DUMP, numbered in order, and verifies it there and in
// tests.
class Dump {
 public:
  explicit Dump(const CompileOptions& options) : name_(options.name) {
    if (const char* folder = std::getenv("NF_DUMP")) folder_ = folder;
    verify_ = !folder_.empty() || std::getenv("NF_VERIFY") != nullptr;
  }

  void operator()(const Graph& graph, std::string_view pass) {
    if (verify_) verify(graph);
    if (folder_.empty()) return;
    write(fmt::format("{}.{}.{}.txt", name_, number_, pass), to_text(graph));
    write(fmt::format("{}.{}.{}.dot", name_, number_, pass), to_dot(graph));
    ++number_;
  }

  void operator()(const Plan& plan) const {
    if (!folder_.empty()) write(fmt::format("{}.{}.plan.txt", name_, number_), to_text(plan));
  }

 private:
  void write(const std::string& file, const std::string& text) const {
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    std::ofstream stream(std::filesystem::path(folder_) / file);
    stream << text;
    require(stream.good(), "NF_DUMP: cannot write {} in {}", file, folder_);
  }

  std::string name_, folder_;
  bool verify_ = false;
  int number_ = 0;
};

class Compiler {
 public:
  Compiler(const Device& device, const CompileOptions& options)
      : device_(device), options_(options), dump_(options) {
    if (device.unoptimized())
      options_.simplify = options_.fuse = options_.schedule = options_.reuse_memory = false;
  }

  Plan run(const Graph& graph) {
    dump_(graph, "trace");
    const GraphPtr simple = options_.simplify ? simplify(graph) : nullptr;
    const Graph& source = simple ? *simple : graph;
    if (simple) dump_(source, "simplify");
    Plan plan = device_.unoptimized() ? finish(source) : choose_recompute(source);
    plan.frozen = options_.frozen;
    dump_(plan);
    return plan;
  }

 private:
  Plan choose_recompute(const Graph& graph) {
    if (options_.recompute.kind == Recompute::Kind::none) return finish(graph);
    const int64_t candidates = recompute_candidates(graph);
    if (options_.recompute.kind == Recompute::Kind::layer) return finish_dropping(graph, candidates);
    // The fewest dropped values that fit: the exact figure comes from planning.
    int64_t low = 0, high = candidates;
    Plan best = finish_dropping(graph, high);
    require(best.arena_bytes() <= options_.recompute.bytes,
            "gradient_checkpointing: {} bytes are not enough for the activations, {} is the least; lower the "
            "batch size or the sequence length",
            options_.recompute.bytes, best.arena_bytes());
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      Plan plan = finish_dropping(graph, middle);
      if (plan.arena_bytes() <= options_.recompute.bytes) {
        high = middle;
        best = std::move(plan);
      } else {
        low = middle + 1;
      }
    }
    return best;
  }

  Plan finish_dropping(const Graph& graph, int64_t dropped) {
    if (dropped == 0) return finish(graph);
    const GraphPtr result = recompute(graph, dropped);
    dump_(*result, "recompute");
    return finish(*result);
  }

  Plan finish(const Graph& graph) {
    const GraphPtr lowered =
        lower(graph, [this](const Graph& g, const Node& n) { return device_.supports(g, n); });
    dump_(*lowered, "lower");
    const GraphPtr fused = fuse(*lowered, options_.fuse);
    dump_(*fused, "fuse");
    return plan_memory(
        fused, schedule(*fused, options_.schedule),
        [this](const Graph& g, const Node& n) { return device_.workspace(g, n); }, options_.reuse_memory);
  }

  const Device& device_;
  CompileOptions options_;
  Dump dump_;
};

}  // namespace

Plan plan(const Graph& graph, const Device& device, const CompileOptions& options) {
  Compiler compiler(device, options);
  return compiler.run(graph);
}

}  // namespace nf
