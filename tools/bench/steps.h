// The sections of nf-bench about whole training steps, as nf-train makes them.
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

struct StepTiming {
  DType compute = DType::f32;
  double seconds = 0, tokens_per_second = 0;
  double flops_per_token = 0;  // forward and backward, without recomputation
  double share_of_peak = 0;
};

// Forward, backward, clipping and the optimizer on random tokens.
StepTiming time_step(const Bench& bench, const BenchModel& model);

// The section "steps": of one model.
void bench_steps(const Bench& bench, const BenchModel& model, BenchReport& report);

// The section "scale": of many lengths, depths and vocabularies.
void bench_scale(const Bench& bench, BenchReport& report);

}  // namespace nf
