#include "tools/trainer/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace nf {
namespace {

volatile std::sig_atomic_t stop_requested = 0;  // a handler can reach nothing else

void request_stop(int) { stop_requested = 1; }

void set_action(void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested = 0;
  set_action(request_stop, static_cast<int>(SA_RESETHAND) | SA_RESTART);
}

StopSignal::~StopSignal() { set_action(SIG_DFL, 0); }

bool StopSignal::requested() const { return stop_requested != 0; }

}  // namespace nf
