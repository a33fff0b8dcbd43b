#include "cpu/loop_jit.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/isa.h"
#include "cpu/loop_jit_plan.h"
#include "cpu/loop_program.h"

#if NF_HAVE_XBYAK
#include <sys/mman.h>

#include "cpu/loop_jit_assembler.h"
#endif

namespace nf::cpu {

#if NF_HAVE_XBYAK

std::shared_ptr<const MachineCode> MachineCode::load(std::span<const uint8_t> code) {
  void* memory = mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::memcpy(memory, code.data(), code.size());
  if (mprotect(memory, code.size(), PROT_READ | PROT_EXEC) != 0) {
    munmap(memory, code.size());
    return nullptr;
  }
  return std::shared_ptr<const MachineCode>(new MachineCode(memory, code.size()));
}

MachineCode::~MachineCode() { munmap(memory_, bytes_); }

bool LoopCodes::available() { return cpu_features().avx2 && cpu_features().jit; }

namespace {

// The longest code that is made of one body.
constexpr size_t kLongestCode = size_t{1} << 17;

// With half of the vectors for what reductions have summed up; where that leaves too few for the values, with
// none.
std::shared_ptr<const MachineCode> assemble(const JitPlan& plan) {
  const bool avx512 = cpu_features().avx512;
  struct alignas(64) Line {  // code is aligned where it is made as where it will lie
    uint8_t bytes[64];
  };
  std::vector<Line> lines(kLongestCode / sizeof(Line));
  const std::span memory(lines.front().bytes, kLongestCode);
  for (const int most_accumulators : {avx512 ? 16 : 8, 0}) {
    try {
      const LoopAssembler assembler(plan, avx512, most_accumulators, memory);
      return MachineCode::load(memory.first(assembler.size()));
    } catch (const NoVectorLeft&) {
    } catch (const Xbyak::Error& error) {
      const int what = error;
      const bool is_too_large = what == Xbyak::ERR_CODE_IS_TOO_BIG || what == Xbyak::ERR_IMM_IS_TOO_BIG ||
                                what == Xbyak::ERR_OFFSET_IS_TOO_BIG;
      if (!is_too_large) fail("cpu: a loop could not be assembled: {}", error.what());
    }
  }
  return nullptr;
}

}  // namespace

#else

std::shared_ptr<const MachineCode> MachineCode::load(std::span<const uint8_t>) { return nullptr; }
MachineCode::~MachineCode() = default;
bool LoopCodes::available() { return false; }

namespace {
std::shared_ptr<const MachineCode> assemble(const JitPlan&) { return nullptr; }
}  // namespace

#endif

MachineCode::MachineCode(void* memory, size_t bytes)
    : memory_(memory), bytes_(bytes), function_(reinterpret_cast<TileFunction>(memory)) {}

size_t LoopCodes::count() const {
  return static_cast<size_t>(
      std::count_if(codes_.begin(), codes_.end(), [](const auto& entry) { return entry.second != nullptr; }));
}

void LoopCodes::compile(LoopProgram& program, const ScratchLimits& limits) {
  if (!available()) return;
  bool all = true;
  for (Stage& stage : program.stages) {
    if (stage.body.empty()) continue;
    JitPlan plan;
    if (make_jit_plan(program, stage, limits, plan)) {
      const auto [entry, is_new] = codes_.try_emplace(plan.key());
      if (is_new) entry->second = assemble(plan);
      stage.code = entry->second;
    }
    all = all && stage.code != nullptr && !plan.interpreted;
  }
  // Without the interpreter's tiles a tile may be all that a task has.
  if (!all) return;
  const int64_t inner = program.lead.empty() ? 1 : program.lead.back();
  if (program.chunked)
    program.tile_cols = (program.cols + kReduceLanes - 1) / kReduceLanes * kReduceLanes;
  else
    program.tile_rows = std::clamp<int64_t>(kTaskElements / program.cols, 1, std::max<int64_t>(inner, 1));
}

}  // namespace nf::cpu
