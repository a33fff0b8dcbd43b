#include "tests/cuda/fiber.h"

#include <cstdint>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NF_ADDRESS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define NF_ADDRESS_SANITIZER 1
#endif

#if defined(NF_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// What a function must preserve is pushed; the rest the caller has saved. ucontext would do the same, and ask
// the system for the signal mask at every switch.
#if defined(__x86_64__)
asm(R"(
  .pushsection .text
  .type nf_switch_stacks, @function
nf_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size nf_switch_stacks, . - nf_switch_stacks
  .popsection
)");
extern "C" void nf_switch_stacks(void** from, void* to);
#endif

namespace nf::cuda {
namespace {

#if defined(NF_ADDRESS_SANITIZER)
void before_switch(void** fake_stack, const void* bottom, size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}
void after_switch(void* fake_stack, const void** bottom, size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
}
void forget_frames(std::span<unsigned char> stack) {
  __asan_unpoison_memory_region(stack.data(), stack.size());
}
#else
void before_switch(void**, const void*, size_t) {}
void after_switch(void*, const void**, size_t*) {}
void forget_frames(std::span<unsigned char>) {}
#endif

}  // namespace

void Context::begin(std::span<unsigned char> stack, void (*entry)()) {
  bottom_ = stack.data();
  bytes_ = stack.size();
  fake_stack_ = nullptr;
  forget_frames(stack);
#if defined(__x86_64__)
  // Six registers, the address that the switch returns to, and none for the entry's own return.
  constexpr size_t kWords = 8;
  const auto top = (reinterpret_cast<uintptr_t>(stack.data()) + stack.size()) / 16 * 16;
  auto* words = reinterpret_cast<uintptr_t*>(top) - kWords;
  for (size_t i = 0; i < kWords; ++i) words[i] = 0;
  words[6] = reinterpret_cast<uintptr_t>(entry);
  stack_pointer_ = words;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack.data();
  context_.uc_stack.ss_size = stack.size();
  makecontext(&context_, entry, 0);
#endif
}

void Context::exchange(Context& from, Context& to) {
#if defined(__x86_64__)
  nf_switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
}

void Context::go(Context& from, Context& to) {
  before_switch(&from.fake_stack_, to.bottom_, to.bytes_);
  exchange(from, to);
  after_switch(from.fake_stack_, nullptr, nullptr);
}

void Context::arrive(Context& from) { after_switch(nullptr, &from.bottom_, &from.bytes_); }

void Context::leave(Context& from, Context& to) {
  before_switch(nullptr, to.bottom_, to.bytes_);
  exchange(from, to);
  __builtin_unreachable();
}

}  // namespace nf::cuda
