// Flows of control with stacks of their own, for the emulator's threads.
//
//     Context scheduler, fiber;
//     void entry() { Context::arrive(scheduler); …; Context::leave(fiber, scheduler); }
//
//     fiber.begin(stack, entry);
//     Context::go(scheduler, fiber);    // runs entry until it goes back to the scheduler
//
// A flow must not go to another while it handles an exception, and none may leave its entry.
#pragma once

#include <cstddef>
#include <span>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace nf::cuda {

class Context {
 public:
  // The next go() to this one calls entry() on that stack. What ran on it before is forgotten.
  void begin(std::span<unsigned char> stack, void (*entry)());

  // Leaves `from` where it is and goes on with `to`; returns when something goes to `from`.
  static void go(Context& from, Context& to);

  // The first words of an entry: it was reached from `from`, which began on a stack of the system's.
  static void arrive(Context& from);
  // The last: goes to `to`, and nothing may go to `from` before it has begun again.
  [[noreturn]] static void leave(Context& from, Context& to);

 private:
  static void exchange(Context& from, Context& to);

#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_{};
#endif
  // What AddressSanitizer wants to know of a stack, unused without it.
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace nf::cuda
