// Trains the models of a comparison one after another and shows how they do.
//
//     OUT/NAME            a run as nf-train makes it
//     OUT/report.html     all of them side by side, renewed while they train
#pragma once

#include <functional>

#include "tools/compare/request.h"

namespace nf {

// Runs that are done are kept, one that was interrupted goes on. `stop` is asked after every step; the run at
// hand is saved then. A run that fails (a loss that is not finite) leaves the others going. Returns the exit
// status. Throws Error for bad input and for runs in `out` that were made otherwise.
int run_contest(CompareRequest request, const std::function<bool()>& stop);

}  // namespace nf
