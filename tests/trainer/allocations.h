// Counts what the test program allocates with operator new.
#pragma once

#include <cstdint>

namespace nf {

// Calls of operator new so far, by any thread.
int64_t allocations();

}  // namespace nf
