// The shell that the programs share: runs a main, and turns what goes wrong into one line and an exit status.
//
//     int main(int argc, char** argv) {
//       return nf::run_program("nf-train", argc, argv, [&] { … return nf::kExitDone; });
//     }
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "nf/error.h"

namespace nf {

constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;  // the input was good, the run was not: a loss that is not finite, a full disk
constexpr int kExitBadInput = 2;       // a flag, config, text or checkpoint is wrong
constexpr int kExitInterrupted = 130;  // stopped by SIGINT, everything saved

// Thrown where the input has been accepted and the run fails: exit status kExitFailed. Every other Error
// means bad input.
class RunFailed : public Error {
 public:
  using Error::Error;
};

// Runs part of a program whose input has been accepted: an Error in it becomes RunFailed.
void run_accepted(const std::function<void()>& body);

// Another program of this project as it is called from here: "./nf-eval" when this one was called as
// "./nf-train".
std::string sibling_program(std::string_view name);

// Calls `body` and returns its exit status. What it throws is printed to standard error as the line
// "NAME: what is wrong" ("NAME COMMAND: …" where it begins like that), line breaks replaced by blanks: an
// Error gives kExitBadInput; RunFailed, lack of memory and every other exception kExitFailed. So does a
// standard output that cannot be written (a full disk); a closed pipe ends the process quietly, as usual. A
// file that outgrows `ulimit -f` is an error like a full disk, not a signal.
//
// With --version among the arguments it prints the version and the backends that are compiled in instead.
int run_program(std::string_view name, int argc, const char* const* argv, const std::function<int()>& body);

}  // namespace nf
