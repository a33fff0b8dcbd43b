// Which instruction sets Highway compiles our kernels for: on x86-64 one lane (portable), AVX2 and AVX-512;
// what lies between gains little. Vectors of a size unknown to the compiler (SVE, RVV) cannot stand in
// arrays. To be included before <hwy/foreach_target.h>.
#pragma once

#include <hwy/detect_targets.h>

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
