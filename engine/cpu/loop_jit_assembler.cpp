// The skeleton of the code: rows, phases, columns, and who has which register.
#if NF_HAVE_XBYAK

#include "cpu/loop_jit_assembler.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace nf::cpu {
namespace {

// Vectors that may leave their registers, and operations that are worth a longer loop.
constexpr int kSpills = 64, kShort = 12, kMiddle = 30;
// rbx, rdx, rsi, rdi, r8, r9, r10, r12, r13, r14, r15
constexpr int kPointerRegisters[] = {3, 2, 6, 7, 8, 9, 10, 12, 13, 14, 15};
constexpr int64_t kFrameAlignment = 64;

int64_t aligned(int64_t bytes) { return (bytes + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment; }

// The key of a hoisted constant; values per row have their number.
constexpr uint64_t kConstant = uint64_t{1} << 32, kTable = uint64_t{2} << 32;
uint64_t key_of(uint32_t bits) { return kConstant | bits; }

std::vector<uint64_t> by_weight(const std::map<uint64_t, int>& weights) {
  std::vector<uint64_t> keys;
  for (const auto& [key, weight] : weights) keys.push_back(key);
  std::stable_sort(keys.begin(), keys.end(),
                   [&](uint64_t a, uint64_t b) { return weights.at(a) > weights.at(b); });
  return keys;
}

}  // namespace

LoopAssembler::LoopAssembler(const JitPlan& plan, bool avx512, int most_accumulators,
                             std::span<uint8_t> memory)
    : VectorCode(avx512, memory),
      plan_(plan),
      most_accumulators_(most_accumulators),
      places_(plan.values.size()) {
  row_places_.assign(plan.values.size(), -1);
  int32_t rows = 0;
  for (size_t v = 0; v < plan.values.size(); ++v)
    if (plan.values[v].row && !plan.values[v].constant) row_places_[v] = rows++;
  size_t most_reductions = 0;
  for (int32_t phase = 0; phase < plan.phases; ++phase)
    most_reductions =
        std::max(most_reductions, static_cast<size_t>(std::count_if(
                                      plan.operations.begin(), plan.operations.end(), [&](const auto& op) {
                                        return op.kind == JitOperation::Kind::reduce && op.phase == phase;
                                      })));
  const auto pointers = static_cast<int64_t>(plan.pointers.size());
  rows_at_ = pointers * 8;
  cols_at_ = rows_at_ + 8;
  stack_at_ = cols_at_ + 8;
  row_values_at_ = stack_at_ + 8;
  accumulators_at_ = aligned(row_values_at_ + rows * 4);
  calls_at_ = accumulators_at_ + static_cast<int64_t>(most_reductions) * kReduceLanes * 4;
  most_accumulators_ = std::min(static_cast<int>(most_reductions) * per_reduction_, most_accumulators);
  spills_at_ = calls_at_ + (vectors_ + 5) * kFrameAlignment;
  mask_at_ = spills_at_ + kSpills * vector_bytes_;
  count_at_ = mask_at_ + (avx512_ ? 0 : vector_bytes_);
  frame_bytes_ = count_at_ + (avx512_ ? 0 : kFrameAlignment);
  survey();
  emit_function();
}

// ---- the function ----

void LoopAssembler::emit_function() {
  const Reg64 saved[] = {rbx, rbp, r12, r13, r14, r15};
  Xbyak::Label pool, row;
  for (const Reg64& r : saved) push(r);
  mov(rax, rsp);
  sub(rsp, static_cast<uint32_t>(frame_bytes_));
  and_(rsp, -static_cast<int>(kFrameAlignment));
  mov(frame(stack_at_), rax);
  mov(frame(rows_at_), rsi);
  mov(frame(cols_at_), rdx);
  lea(rbp, ptr[rip + pool]);
  for (size_t p = 0; p < plan_.pointers.size(); ++p) {
    mov(rax, ptr[rdi + static_cast<size_t>(plan_.pointers[p].slot) * 8]);
    mov(frame(static_cast<int64_t>(p) * 8), rax);
  }
  for (const auto& [number, r] : pointers_) mov(r, frame(int64_t{number} * 8));
  for (const auto& [key, r] : constants_) broadcast_key(vector(r), key);

  L(row);
  for (int32_t phase = 0; phase < plan_.phases; ++phase) {
    emit_row(phase);
    emit_columns(phase);
  }
  emit_row(plan_.phases);
  for (size_t p = 0; p < plan_.pointers.size(); ++p) {
    const int64_t step = plan_.pointers[p].row_step;
    if (step == 0) continue;
    mov(rax, step);
    if (all_pointers_kept_)
      add(pointers_.at(static_cast<int32_t>(p)), rax);
    else
      add(frame(static_cast<int64_t>(p) * 8), rax);
  }
  dec(qword[rsp + static_cast<size_t>(rows_at_)]);
  jnz(row, T_NEAR);

  mov(rsp, frame(stack_at_));
  for (auto r = std::rbegin(saved); r != std::rend(saved); ++r) pop(*r);
  vzeroupper();
  ret();
  align(kFrameAlignment);
  emit_tables();
  L(pool);
  for (const uint32_t bits : pool_)
    for (int copy = 0; copy < (avx512_ ? 1 : lanes_); ++copy) dd(bits);
}

void LoopAssembler::emit_tables() {
  if (avx512_) {
    for (int place = 0; place < 2 * lanes_; ++place) dw(static_cast<uint16_t>(2 * place + 1));
    for (int lane = 0; lane < lanes_; ++lane) db(lane);
    return;
  }
  for (int lane = 0; lane < 2 * lanes_; ++lane) dd(lane < lanes_ ? ~0U : 0U);
  for (int lane = 0; lane < 4 * lanes_; ++lane) db(lane);
}

void LoopAssembler::begin_operations(int32_t phase, bool row) {
  phase_ = phase;
  operations_.clear();
  for (const JitOperation& op : plan_.operations)
    if (op.row == row && op.phase == phase) operations_.push_back(&op);
  uses_.assign(plan_.values.size(), {});
  for (size_t i = 0; i < operations_.size(); ++i)
    for (const int32_t in : operations_[i]->in)
      if (in >= 0) uses_[static_cast<size_t>(in)].push_back(i);
  // What the columns of this phase read has one more use, behind the last operation per row.
  if (row)
    for (const JitOperation& op : plan_.operations)
      for (const int32_t in : op.in)
        if (in >= 0 && !op.row && op.phase == phase && row_places_[static_cast<size_t>(in)] >= 0)
          uses_[static_cast<size_t>(in)].push_back(operations_.size());
  reductions_.clear();
  for (const JitOperation* op : operations_)
    if (op->kind == JitOperation::Kind::reduce) reductions_.push_back(op);
  accumulator_registers_ =
      std::min(static_cast<int>(reductions_.size()), most_accumulators_ / per_reduction_);
  std::fill_n(owners_, vectors_, kFree);
  for (const auto& [key, r] : constants_) owners_[r] = kReserved;
  std::fill_n(owners_ + vectors_ - most_accumulators_, most_accumulators_, kReserved);
  hoisted_.clear();
}

// The values per row that a phase needs, each in all lanes of a register, from where it goes to the frame.
void LoopAssembler::emit_row(int32_t phase) {
  begin_operations(phase, true);
  emit_block(0, false);
  carried_.clear();
  for (int r = 0; r < vectors_; ++r)
    if (owners_[r] >= 0 && row_places_[static_cast<size_t>(owners_[r])] >= 0)
      carried_.push_back({owners_[r], r});
}

void LoopAssembler::emit_columns(int32_t phase) {
  begin_operations(phase, false);
  if (operations_.empty()) return;
  load_pointers();
  for (const auto& [value, r] : carried_) owners_[r] = kReserved;
  begin_reductions();
  hoist();
  const auto count = static_cast<int>(operations_.size());
  const bool whole = !reductions_.empty() || count <= kShort;
  emit_loops(plan_.cols == 0 ? 1 : whole ? per_reduction_ : count <= kMiddle ? per_reduction_ / 2 : 1);
  end_reductions();
}

// ---- columns ----

// Walks the columns in blocks of `unroll` vectors. Except with many rows of one column the rest is known.
void LoopAssembler::emit_loops(int unroll) {
  const int block = unroll * lanes_;
  Xbyak::Label loop, rest, end;
  xor_(eax, eax);
  if (plan_.cols > 0 && !plan_.chunked) {
    const int64_t whole = plan_.cols / block * block;
    if (whole > 0) {
      L(loop);
      emit_piece(unroll, 0);
      if (whole > block || plan_.cols > whole) add(rax, block);
      if (whole > block) {
        cmp(rax, static_cast<uint32_t>(whole));
        jb(loop, T_NEAR);
      }
    }
    const auto left = static_cast<int>(plan_.cols - whole);
    if (left > 0) emit_piece(left / lanes_, left % lanes_);
    return;
  }
  L(loop);
  lea(rcx, ptr[rax + block]);
  cmp(rcx, frame(cols_at_));
  ja(rest, T_NEAR);
  emit_piece(unroll, 0);
  add(rax, block);
  jmp(loop, T_NEAR);
  L(rest);
  if (plan_.cols == 0) {
    mov(rcx, frame(cols_at_));
    sub(rcx, rax);
    jz(end, T_NEAR);
    begin_mask(0);
    emit_block(0, true);
  } else if (const auto left = static_cast<int>(plan_.cols % block); left > 0) {
    cmp(rax, frame(cols_at_));
    je(end, T_NEAR);
    emit_piece(left / lanes_, left % lanes_);
  }
  L(end);
}

// Whole vectors from column rax on, then one of which only `rest` lanes exist.
void LoopAssembler::emit_piece(int vectors, int rest) {
  for (int v = 0; v < vectors; ++v) emit_block(v, false);
  if (rest == 0) return;
  begin_mask(rest);
  emit_block(vectors, true);
}

// All operations of the phase on one vector.
void LoopAssembler::emit_block(int vector, bool masked) {
  vector_ = vector;
  masked_ = masked;
  std::fill(places_.begin(), places_.end(), Place());
  free_block();
  for (const auto& [value, r] : carried_) {  // into the operations per row
    owners_[r] = value;
    places_[static_cast<size_t>(value)].vector = r;
  }
  carried_.clear();
  spills_ = 0;
  for (position_ = 0; position_ < operations_.size(); ++position_) {
    const JitOperation& op = *operations_[position_];
    switch (op.kind) {
      case JitOperation::Kind::map: emit_map(op); break;
      case JitOperation::Kind::address: emit_row_load(op); break;
      case JitOperation::Kind::load:
        if (op.row)
          emit_row_load(op);
        else
          emit_load(define(op.out), op.code, at(op.pointer, vector_));
        break;
      case JitOperation::Kind::store:
        if (op.row)
          emit_row_store(op);
        else
          emit_store(op);
        break;
      case JitOperation::Kind::reduce: emit_reduce(op); break;
      case JitOperation::Kind::column: emit_column(op); break;
    }
    end_operation();
  }
}

void LoopAssembler::free_block() {
  for (int& owner : owners_)
    if (owner != kReserved) owner = kFree;
}

// ---- pointers ----

// All pointers into registers for good, if there are that few.
void LoopAssembler::keep_pointers() {
  pointers_.clear();
  all_pointers_kept_ = plan_.pointers.size() <= std::size(kPointerRegisters);
  if (!all_pointers_kept_) return;
  for (size_t p = 0; p < plan_.pointers.size(); ++p)
    pointers_.emplace(static_cast<int32_t>(p), Reg64(kPointerRegisters[p]));
}

// Else the phase's.
void LoopAssembler::load_pointers() {
  if (all_pointers_kept_) return;
  pointers_.clear();
  const auto keep = [&](int32_t number) {
    if (number < 0 || pointers_.size() == std::size(kPointerRegisters) || pointers_.contains(number)) return;
    const Reg64 r(kPointerRegisters[pointers_.size()]);
    pointers_.emplace(number, r);
    mov(r, frame(int64_t{number} * 8));
  };
  for (const JitOperation* op : operations_) {
    for (const int32_t in : op->in)
      if (in >= 0 && !plan_.values[static_cast<size_t>(in)].row)
        keep(plan_.values[static_cast<size_t>(in)].pointer);
    if (op->kind != JitOperation::Kind::reduce) keep(op->pointer);
  }
}

Xbyak::Reg64 LoopAssembler::pointer(int32_t number) {
  const auto found = pointers_.find(number);
  if (found != pointers_.end()) return found->second;
  mov(r11, frame(int64_t{number} * 8));
  return r11;
}

// Vector `vector` of the columns from rax on.
LoopAssembler::Address LoopAssembler::at(int32_t number, int vector) {
  const int32_t element = plan_.pointers[static_cast<size_t>(number)].element;
  return ptr[pointer(number) + rax * element + static_cast<size_t>(vector * lanes_ * element)];
}

LoopAssembler::Address LoopAssembler::frame_row(int32_t value) {
  return frame(row_values_at_ + int64_t{row_places_[static_cast<size_t>(value)]} * 4);
}

// ---- reductions ----

void LoopAssembler::begin_reductions() {
  for (size_t r = 0; r < reductions_.size(); ++r) {
    const JitOperation& op = *reductions_[r];
    const uint32_t identity = op.code == Code::reduce_max_f   ? 0xff800000U
                              : op.code == Code::reduce_max_i ? 0x80000000U
                                                              : 0;
    for (int v = 0; v < per_reduction_; ++v) {
      const Vector start = accumulator(r, v);
      if (op.pointer >= 0)
        vmovups(start, ptr[pointer(op.pointer) + static_cast<size_t>(v * vector_bytes_)]);
      else if (identity == 0)
        clear(start);
      else
        broadcast(start, std::bit_cast<float>(identity));
      store_accumulator(start, r, v);
      end_operation();
    }
  }
}

void LoopAssembler::end_reductions() {
  for (const auto& [key, r] : hoisted_) owners_[r] = kFree;
  for (size_t r = 0; r < reductions_.size(); ++r) {
    const JitOperation& op = *reductions_[r];
    std::vector<Vector> lanes;
    for (int v = 0; v < per_reduction_; ++v) {
      lanes.push_back(accumulator(r, v));
      load_accumulator(lanes.back(), r, v);
      if (op.pointer >= 0)
        vmovups(ptr[pointer(op.pointer) + static_cast<size_t>(v * vector_bytes_)], lanes.back());
    }
    if (op.pointer < 0) {
      const Vector sum = take(kReserved);
      emit_fold_lanes(op.code, lanes, sum);
      vmovss(frame_row(op.out), quarter(sum));
      carried_.push_back({op.out, sum.getIdx()});
    }
    end_operation();
  }
}

// ---- vector registers ----

size_t LoopAssembler::next_use(int32_t value, size_t from) const {
  const std::vector<size_t>& uses = uses_[static_cast<size_t>(value)];
  const auto next = std::lower_bound(uses.begin(), uses.end(), from);
  return next == uses.end() ? SIZE_MAX : *next;
}

LoopAssembler::Vector LoopAssembler::take(int owner) {
  int found = -1;
  for (int r = 0; r < vectors_ && found < 0; ++r)
    if (owners_[r] == kFree) found = r;
  if (found < 0) {
    size_t farthest = 0;
    for (int r = 0; r < vectors_; ++r) {
      if (owners_[r] < 0 || (pinned_ >> r & 1U) != 0) continue;
      const size_t next = next_use(owners_[r], position_);
      if (found >= 0 && next <= farthest) continue;
      found = r;
      farthest = next;
    }
    if (found < 0) throw NoVectorLeft();
    evict(owners_[found]);
  }
  owners_[found] = owner;
  pinned_ |= 1U << found;
  const auto busy = std::count_if(owners_, owners_ + vectors_, [](int o) { return o != kFree; });
  peak_ = std::max(peak_, static_cast<int>(busy));
  return vector(found);
}

void LoopAssembler::release(const Vector& temporary) {
  int& owner = owners_[temporary.getIdx()];
  if (avx512_ || owner != kTemporary) return;
  owner = kFree;
  pinned_ &= ~(1U << temporary.getIdx());
}

// Takes a value's register away; one that cannot be had again goes to the frame.
void LoopAssembler::evict(int32_t value) {
  const JitValue& v = plan_.values[static_cast<size_t>(value)];
  Place& place = places_[static_cast<size_t>(value)];
  const bool loadable = v.row || (v.pointer >= 0 && (v.made ? phase_ > v.phase : v.fixed));
  if (!loadable && place.spill < 0 && next_use(value, position_) != SIZE_MAX) {
    if (spills_ == kSpills) throw NoVectorLeft();
    place.spill = spills_++;
    vmovaps(frame(spills_at_ + place.spill * vector_bytes_), vector(place.vector));
  }
  place.vector = -1;
}

LoopAssembler::Vector LoopAssembler::use(int32_t value) {
  const JitValue& v = plan_.values[static_cast<size_t>(value)];
  Place& place = places_[static_cast<size_t>(value)];
  if (place.vector >= 0) {
    pinned_ |= 1U << place.vector;
    return vector(place.vector);
  }
  if (v.row)
    if (const int r = hoisted(v.constant ? key_of(v.bits) : static_cast<uint64_t>(value), 2); r >= 0)
      return vector(r);
  const Vector to = take(value);
  place.vector = to.getIdx();
  if (v.constant)
    vbroadcastss(to, ptr[rbp + static_cast<size_t>(constant_offset(v.bits))]);
  else if (v.row)
    vbroadcastss(to, frame_row(value));
  else if (place.spill >= 0)
    vmovaps(to, frame(spills_at_ + place.spill * vector_bytes_));
  else
    emit_load(to, v.load, at(v.pointer, vector_));
  return to;
}

LoopAssembler::Source LoopAssembler::source(int32_t value) {
  const JitValue& v = plan_.values[static_cast<size_t>(value)];
  if (!v.row || places_[static_cast<size_t>(value)].vector >= 0) return Source(use(value));
  if (v.constant) return constant(v.bits);
  if (const int r = hoisted(static_cast<uint64_t>(value), 1); r >= 0) return Source(vector(r));
  if (!avx512_) return Source(use(value));
  return Source(ptr_b[rsp + static_cast<size_t>(row_values_at_ +
                                                int64_t{row_places_[static_cast<size_t>(value)]} * 4)]);
}

LoopAssembler::Vector LoopAssembler::define(int32_t value) {
  const Vector to = take(value);
  places_[static_cast<size_t>(value)].vector = to.getIdx();
  return to;
}

void LoopAssembler::broadcast(const Vector& to, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (const int r = hoisted(key_of(bits), 1); r >= 0)
    vmovaps(to, vector(r));
  else
    vbroadcastss(to, ptr[rbp + static_cast<size_t>(constant_offset(bits))]);
}

int32_t LoopAssembler::constant_offset(uint32_t bits) {
  const auto found = std::find(pool_.begin(), pool_.end(), bits);
  const auto index = static_cast<int32_t>(found - pool_.begin());
  if (found == pool_.end()) pool_.push_back(bits);
  return index * (avx512_ ? 4 : vector_bytes_);
}

LoopAssembler::Source LoopAssembler::constant(uint32_t bits) {
  if (const int r = hoisted(key_of(bits), 1); r >= 0) return Source(vector(r));
  const Xbyak::RegExp at = rbp + static_cast<size_t>(constant_offset(bits));
  return Source(avx512_ ? ptr_b[at] : ptr[at]);
}

LoopAssembler::Vector LoopAssembler::constant_register(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (const int r = hoisted(key_of(bits), 2); r >= 0) return vector(r);
  const Vector to = temporary();
  vbroadcastss(to, ptr[rbp + static_cast<size_t>(constant_offset(bits))]);
  return to;
}

LoopAssembler::Vector LoopAssembler::upper_halves() {
  if (const int r = hoisted(kTable, 2); r >= 0) return vector(r);
  const Vector to = temporary();
  vmovups(to, ptr[rbp + static_cast<size_t>(upper_at_)]);
  return to;
}

// Frees the registers of temporaries and of values that nothing in the block reads any more.
void LoopAssembler::end_operation() {
  pinned_ = 0;
  for (int& owner : owners_) {
    if (owner == kTemporary) owner = kFree;
    if (owner < 0 || next_use(owner, position_ + 1) != SIZE_MAX) continue;
    places_[static_cast<size_t>(owner)].vector = -1;
    owner = kFree;
  }
}

// The register where something to broadcast stands while the columns are walked, or -1.
int LoopAssembler::hoisted(uint64_t key, int weight) {
  wanted_[key] += weight;
  if (const auto found = constants_.find(key); found != constants_.end()) return found->second;
  const auto found = hoisted_.find(key);
  return found == hoisted_.end() ? -1 : found->second;
}

void LoopAssembler::broadcast_key(const Vector& to, uint64_t key) {
  if (key == kTable)
    vmovups(to, ptr[rbp + static_cast<size_t>(upper_at_)]);
  else if (key >= kConstant)
    vbroadcastss(to, ptr[rbp + static_cast<size_t>(constant_offset(static_cast<uint32_t>(key)))]);
  else
    vbroadcastss(to, frame_row(static_cast<int32_t>(key)));
}

// Makes a block of each phase once and throws it away, to learn what registers it needs and what it
// broadcasts; then chooses the constants that stand in the registers that no phase needs.
void LoopAssembler::survey() {
  keep_pointers();
  const size_t start = getSize();
  const int fewest = vectors_ / 4;  // that always stay, for reductions and values per row
  int free = vectors_ - fewest;
  std::map<uint64_t, int> weights;
  for (int32_t phase = 0; phase < plan_.phases; ++phase) {
    begin_operations(phase, false);
    needs_.push_back({});
    if (operations_.empty()) continue;
    load_pointers();
    wanted_.clear();
    peak_ = 0;
    emit_block(0, true);
    needs_.back() = {peak_, wanted_};
    int rows = 0;
    for (const auto& [key, weight] : wanted_) {
      rows += key < kConstant ? 1 : 0;
      if (key >= kConstant) weights[key] += weight;
    }
    const int left = vectors_ - peak_;
    free = std::min(free, left - std::min(rows, left / 2));
  }
  setSize(start);
  free = std::min(free, vectors_ - fewest - most_accumulators_);
  int next = vectors_ - 1 - most_accumulators_;
  for (const uint64_t key : by_weight(weights))
    if (free-- > 0) constants_[key] = next--;
}

// Lets the registers that the phase's blocks leave free hold what they broadcast most often. Owners are as
// before the first block.
void LoopAssembler::hoist() {
  constexpr int64_t kLongRow = 256;
  const Needs& needs = needs_[static_cast<size_t>(phase_)];
  const std::vector<std::pair<int32_t, int>> carried = std::move(carried_);
  carried_.clear();
  int free = vectors_ - needs.registers - static_cast<int>(constants_.size());
  for (const uint64_t key : by_weight(needs.broadcasts)) {
    if (free <= 0) break;
    const bool worthwhile = key < kConstant || plan_.cols == 0 || plan_.cols >= kLongRow;
    if (constants_.contains(key) || !worthwhile) continue;
    const auto found = std::find_if(carried.begin(), carried.end(), [&, k = key](const auto& c) {
      return static_cast<uint64_t>(c.first) == k;
    });
    const int r = found != carried.end() ? found->second : take(kReserved).getIdx();
    if (found == carried.end()) broadcast_key(vector(r), key);
    hoisted_[key] = r;
    --free;
  }
  for (const auto& [value, r] : carried)
    if (!hoisted_.contains(static_cast<uint64_t>(value))) owners_[r] = kFree;
  end_operation();
}

}  // namespace nf::cpu
#endif
