// The sections of nf-bench (more in steps.h): each measures one part of the engine through its public
// interface and adds its rows to the report.
#pragma once

#include "tools/bench/measure.h"
#include "tools/bench/report.h"

namespace nf {

// What the machine can do: matrix products in registers alone, and copies of memory.
void bench_machine(const Bench& bench, BenchReport& report);
// Products of linear layers, forward and backward.
void bench_matmul(const Bench& bench, BenchReport& report);
// Causal attention, over everything and in a window.
void bench_attention(const Bench& bench, BenchReport& report);
// Cross entropy of a large vocabulary, with the projection to it.
void bench_loss(const Bench& bench, BenchReport& report);
// What the compiler fuses: norms, activations, the optimizer.
void bench_loops(const Bench& bench, BenchReport& report);
// A model of 124M parameters reads a prompt and writes tokens.
void bench_generation(const Bench& bench, BenchReport& report);

}  // namespace nf
