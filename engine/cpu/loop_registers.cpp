// The back of the loop compiler: virtual registers get places, instructions their functions.
#include <algorithm>
#include <map>

#include "cpu/loop_program.h"

namespace nf::cpu {
namespace {

class Finisher {
 public:
  Finisher(LoopProgram& program, const std::vector<VirtualRegister>& registers)
      : program_(program), registers_(registers) {}

  void finish() {
    store_directly();
    allocate();
    size_registers();
    finish_instructions();
  }

 private:
  // ---- stores in place ----

  // Lets the instruction that makes a stored value write it to the output, unless something still reads the
  // memory that the output shares.
  void store_directly() {
    std::vector<Instruction>& code = program_.stages.back().body;
    for (size_t s = 0; s < code.size();) {
      if (can_store_directly(code, s)) {
        redirect(code, s);
        code.erase(code.begin() + static_cast<std::ptrdiff_t>(s));
      } else {
        ++s;
      }
    }
  }

  static size_t definition(const std::vector<Instruction>& code, int32_t slot) {
    for (size_t i = 0; i < code.size(); ++i)
      if (code[i].out == slot) return i;
    return code.size();
  }

  bool can_store_directly(const std::vector<Instruction>& code, size_t s) {
    const Instruction& store = code[s];
    if (store.code != Code::copy || store.pattern != 0 || !is_register(store.in[0]) || is_register(store.out))
      return false;
    const size_t made = definition(code, store.in[0]);
    if (made >= s || !(code[made].extent == store.extent) || code[made].shift != 0) return false;
    if (code[made].code >= Code::reduce_sum_f) return false;
    const std::byte* data = program_.streams[static_cast<size_t>(store.out)].data;
    for (size_t i = made + 1; i < code.size(); ++i)
      for (const int32_t slot : code[i].in)
        if (slot >= 0 && slot < kFirstConstant) {
          const Stream& stream = program_.streams[static_cast<size_t>(slot)];
          if (stream.kind == Stream::Kind::input && stream.data == data) return false;
        }
    return true;
  }

  void redirect(std::vector<Instruction>& code, size_t s) {
    const Instruction store = code[s];
    Instruction& maker = code[definition(code, store.in[0])];
    maker.out = store.out;
    maker.out_step = store.out_step;
    for (Instruction& instruction : code)
      for (int i = 0; i < 3; ++i) {
        if (instruction.in[i] != store.in[0]) continue;
        instruction.in[i] = store.out;
        if (instruction.step[i] != 0 && (instruction.pattern >> i & 1) == 0)
          instruction.step[i] = store.out_step;
      }
  }

  // ---- registers ----

  struct Pool {
    Extent extent;
    bool lanes;
    std::vector<int32_t> free;
  };

  void allocate() {
    place_of_.assign(registers_.size(), -1);
    for (Stage& stage : program_.stages)
      for (std::vector<Instruction>* code : {&stage.before, &stage.body, &stage.after}) allocate(*code);
    allocate(program_.prologue);
    for (size_t r = 0; r < registers_.size(); ++r) place(static_cast<int32_t>(r));
  }

  // Gives the registers that live only inside this list their places.
  void allocate(std::vector<Instruction>& code) {
    std::map<int32_t, size_t> last_use;
    for (size_t i = 0; i < code.size(); ++i)
      for (const int32_t slot : code[i].in) last_use[slot] = i;
    for (size_t i = 0; i < code.size(); ++i) {
      for (const int32_t slot : code[i].in)
        if (is_register(slot) && last_use[slot] == i) release(slot);
      if (is_register(code[i].out)) place(code[i].out - kFirstRegister);
    }
  }

  Pool& pool_of(const VirtualRegister& r) {
    for (Pool& pool : pools_)
      if (pool.extent == r.extent && pool.lanes == r.lanes) return pool;
    return pools_.emplace_back(Pool{r.extent, r.lanes, {}});
  }

  void place(int32_t r) {
    if (place_of_[static_cast<size_t>(r)] >= 0) return;
    const VirtualRegister& wanted = registers_[static_cast<size_t>(r)];
    Pool& pool = pool_of(wanted);
    if (!wanted.shared && !pool.free.empty()) {
      place_of_[static_cast<size_t>(r)] = pool.free.back();
      pool.free.pop_back();
      return;
    }
    place_of_[static_cast<size_t>(r)] = static_cast<int32_t>(places_.size());
    places_.push_back(wanted);
  }

  // Once per register, though an instruction may read it twice.
  void release(int32_t slot) {
    const VirtualRegister& r = registers_[static_cast<size_t>(slot - kFirstRegister)];
    const int32_t place = place_of_[static_cast<size_t>(slot - kFirstRegister)];
    std::vector<int32_t>& free = pool_of(r).free;
    if (r.shared || place < 0 || std::find(free.begin(), free.end(), place) != free.end()) return;
    free.push_back(place);
  }

  // Tiles of a size that keeps the registers in the first-level cache.
  void size_registers() {
    constexpr int64_t kCacheLanes = 6144, kSmallest = 256;
    int64_t large = 0;
    for (const VirtualRegister& r : places_)
      large += !r.lanes && (program_.cols == 1 ? r.extent.rows : r.extent.cols);
    int64_t elements = kTileElements;
    while (elements > kSmallest && elements * large > kCacheLanes) elements /= 2;
    const int64_t inner = program_.lead.empty() ? 1 : program_.lead.back();
    program_.tile_rows =
        program_.chunked ? 1 : std::clamp<int64_t>(elements / program_.cols, 1, std::max<int64_t>(inner, 1));
    program_.tile_cols = program_.chunked ? elements : program_.cols;
    int64_t offset = 0;
    for (const VirtualRegister& r : places_) {
      program_.registers.push_back(offset);
      const int64_t lanes =
          r.lanes ? kReduceLanes
                  : (r.extent.rows ? program_.tile_rows : 1) * (r.extent.cols ? program_.tile_cols : 1);
      offset += (lanes * 4 + 63) / 64 * 64;
    }
    program_.scratch = offset;
  }

  // ---- instructions ----

  void finish_instructions() {
    for (Stage& stage : program_.stages)
      for (std::vector<Instruction>* code : {&stage.before, &stage.body, &stage.after})
        for (Instruction& instruction : *code) finish(instruction);
    for (Instruction& instruction : program_.prologue) finish(instruction);
  }

  int32_t final_slot(int32_t slot) const {
    const auto streams = static_cast<int32_t>(program_.streams.size());
    const auto constants = static_cast<int32_t>(program_.constants.size());
    if (is_register(slot)) return streams + constants + place_of_[static_cast<size_t>(slot - kFirstRegister)];
    if (is_constant(slot)) return streams + slot - kFirstConstant;
    return slot;
  }

  void finish(Instruction& instruction) {
    instruction.flat = is_flat(instruction);
    for (int32_t& slot : instruction.in) slot = final_slot(slot);
    instruction.out = final_slot(instruction.out);
    const auto& row = loop_table()[static_cast<size_t>(instruction.code)];
    instruction.run = row[instruction.pattern];
    require(instruction.run != nullptr, "loop: no {} for operand pattern {}", name(instruction.code),
            instruction.pattern);
  }

  // Elementwise over whole rows that follow each other in every operand.
  bool is_flat(const Instruction& instruction) const {
    const Code code = instruction.code;
    if (program_.chunked || !instruction.extent.rows || !instruction.extent.cols || instruction.shift != 0 ||
        code >= Code::reduce_sum_f)
      return false;
    const bool loads = code >= Code::load_bf16 && code <= Code::load_u8_strided;
    const bool stores = code >= Code::store_bf16 && code <= Code::store_u8_strided;
    const int64_t in_bytes = code == Code::philox ? 1 : loads || code == Code::iota ? instruction.stride : 4;
    const int64_t out_bytes = stores ? instruction.stride : 4;
    if (instruction.out_step != program_.cols * out_bytes) return false;
    const int operands = code == Code::philox ? 1 : 3;
    for (int i = 0; i < operands; ++i) {
      if (instruction.in[i] < 0) continue;
      const bool splat = (instruction.pattern >> i & 1) != 0;
      if (instruction.step[i] != (splat ? 0 : program_.cols * in_bytes)) return false;
    }
    return true;
  }

  LoopProgram& program_;
  const std::vector<VirtualRegister>& registers_;
  std::vector<VirtualRegister> places_;
  std::vector<int32_t> place_of_;
  std::vector<Pool> pools_;
};

}  // namespace

void finish_program(LoopProgram& program, const std::vector<VirtualRegister>& registers) {
  Finisher(program, registers).finish();
}

}  // namespace nf::cpu
