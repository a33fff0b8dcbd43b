#include "cpu/isa.h"

#include <cstdlib>
#include <string_view>

#include "nf/error.h"

namespace nf::cpu {
namespace {

CpuFeatures detect() {
  CpuFeatures features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  features.avx512_bf16 = features.avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return features;
}

CpuFeatures limited(CpuFeatures features, std::string_view limit) {
  require(limit == "portable" || limit == "avx2" || limit == "avx512" || limit == "avx512_bf16",
          "isa: NF_ISA is \"{}\", set it to portable, avx2, avx512 or avx512_bf16", limit);
  if (limit != "avx512_bf16") features.avx512_bf16 = false;
  if (limit == "portable" || limit == "avx2") features.avx512 = false;
  if (limit == "portable") features.avx2 = false;
  return features;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    const char* limit = std::getenv("NF_ISA");
    CpuFeatures found = limit == nullptr ? detect() : limited(detect(), limit);
    if (const char* jit = std::getenv("NF_JIT")) {
      require(std::string_view(jit) == "0" || std::string_view(jit) == "1",
              "isa: NF_JIT is \"{}\", set it to 0 or 1", jit);
      found.jit = *jit == '1';
    }
    return found;
  }();
  return features;
}

}  // namespace nf::cpu
