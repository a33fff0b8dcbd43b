// Profiles: every step measured while it is on, as a table and as a trace that is valid JSON.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "nf/executable.h"
#include "nf/ops.h"

using namespace nf;

namespace {

std::unique_ptr<Executable> small_net() {
  Graph graph;
  const Scope scope(graph, "net");
  const Value x = input(graph, "x", DType::f32, {8, 16}), w = state(graph, "w", DType::f32, {16, 4});
  graph.output("y", exp(matmul(x, w)));
  return compile(graph, std::make_shared<State>(cpu_device(1)), {.name = "small"});
}

}  // namespace

TEST_CASE("profiler: measures each step of each run while it is on") {
  const auto net = small_net();
  net->run();
  CHECK(net->profile().empty());
  net->set_profiling(true);
  for (int i = 0; i < 3; ++i) net->run();
  net->set_profiling(false);
  net->run();
  REQUIRE(net->profile().size() == net->plan().steps.size());
  const StepProfile& product = net->profile()[0];
  CHECK(product.kind == "matmul");
  CHECK(product.scope == "net");
  CHECK_FALSE(product.backward);
  CHECK(product.runs == 3);
  CHECK(product.spans.size() == 3);
  CHECK(product.seconds > 0);
  CHECK(product.flops == 2 * 8 * 16 * 4);
  CHECK(product.bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4));
}

TEST_CASE("profiler: a table with a row for each kind of step") {
  const auto net = small_net();
  net->set_profiling(true);
  net->run();
  const Executable* const all[] = {net.get()};
  const std::string table = profile_table(all);
  CHECK(table.find("GFLOP/s") != std::string::npos);
  CHECK(table.find("\nsmall matmul ") != std::string::npos);
  CHECK(table.find("\nsmall loop ") != std::string::npos);
}

TEST_CASE("profiler: a trace of events") {
  const auto net = small_net();
  net->set_profiling(true);
  for (int i = 0; i < 2; ++i) net->run();
  const Executable* const all[] = {net.get()};
  const auto trace = nlohmann::json::parse(profile_trace(all));
  const auto& events = trace.at("traceEvents");
  REQUIRE(events.size() == 2 * net->plan().steps.size());
  double earliest = 1e9;
  for (const auto& event : events) {
    CHECK(event.at("ph") == "X");
    CHECK(event.at("cat") == "small");
    CHECK(event.at("dur").get<double>() >= 0);
    CHECK(event.at("args").at("scope") == "net");
    earliest = std::min(earliest, event.at("ts").get<double>());
  }
  CHECK(earliest == 0);
}

TEST_CASE("profiler: nothing measured is an empty table and an empty trace") {
  const auto net = small_net();
  const Executable* const all[] = {net.get()};
  CHECK(nlohmann::json::parse(profile_trace(all)).at("traceEvents").empty());
  CHECK(profile_table(all).find('\n') == profile_table(all).size() - 1);
}
