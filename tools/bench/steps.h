// The section "steps" of nf-bench: whole training steps of a model, as nf-train makes them.
#pragma once

#include <string>

#include "tools/bench/measure.h"
#include "tools/bench/report.h"
#include "tools/settings.h"

namespace nf {

// A model that can be trained: a config and its "training" section.
struct BenchModel {
  std::string name;
  ModelConfig model;
  TrainSettings settings;
};

// `config`: as after -m of nf-train. Throws Error when there is none, or something in it is wrong.
BenchModel load_bench_model(const std::string& config);

// Forward, backward, clipping and the optimizer on random tokens.
void bench_steps(const Bench& bench, const BenchModel& model, BenchReport& report);

}  // namespace nf
