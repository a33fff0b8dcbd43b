// What this processor can do, found at run time.
#pragma once

namespace nf::cpu {

struct CpuFeatures {
  bool avx2 = false;         // with FMA
  bool avx512 = false;       // F, BW, CD, DQ and VL
  bool avx512_bf16 = false;  // VDPBF16PS
  bool jit = true;           // code may be made at run time
};

// Features of this processor that kernels may use. The environment variable NF_ISA (portable | avx2 | avx512
// | avx512_bf16) lowers the limit, so that a test can run the kernels of older processors; it is read once,
// at the first call, which throws nf::Error if its value is none of these. NF_JIT=0 forbids code that is made
// at run time; 1 allows it, as does its absence. Thread-safe.
const CpuFeatures& cpu_features();

}  // namespace nf::cpu
