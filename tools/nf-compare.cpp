// Trains several models on the same batches and shows them side by side:
// nf-compare -m mha -m gqa -m ngpt --data book.txt --budget tokens=2M
#include <cstdio>

#include "tools/compare/contest.h"
#include "tools/program.h"
#include "tools/trainer/interrupt.h"

int main(int argc, char** argv) {
  return nf::run_program("nf-compare", argc, argv, [&] {
    nf::CompareRequest request = nf::parse_compare(argc, argv);
    if (request.help) {
      std::fputs(request.help->c_str(), stdout);
      return nf::kExitDone;
    }
    const nf::StopSignal stop;
    return nf::run_contest(std::move(request), [&] { return stop.requested(); });
  });
}
