// The yardsticks themselves.
#include "tools/bench/sections.h"

namespace nf {

void bench_machine(const Bench& bench, BenchReport& report) {
  report.section("machine",
                 "products in registers alone; copies between arrays of 128 MiB, bytes read plus written",
                 {{.key = "gflops", .title = "GFLOP/s"}, {.key = "gb_per_second", .title = "GB/s"}});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Timing timing = measure(
        {.device = bench.device}, [] {}, [&] { return bench.device->peak_flops(dtype); });
    report.row("peak of matrix products", name(dtype), {timing.yardstick * 1e-9, kNoFigure});
  }
  MemoryCopy copy(bench);
  const Timing timing = measure(
      {.device = bench.device}, [] {}, [&] { return copy.bytes_per_second(); });
  report.row("copy", "", {kNoFigure, timing.yardstick * 1e-9});
}

}  // namespace nf
