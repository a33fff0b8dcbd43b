// Trains a model: nf-train -m gqa --data book.txt
#include <cstdio>

#include "tools/estimate.h"
#include "tools/program.h"
#include "tools/trainer/interrupt.h"
#include "tools/trainer/trainer.h"

int main(int argc, char** argv) {
  return nf::run_program("nf-train", argc, argv, [&] {
    const nf::CommandLine line = nf::parse_command_line(argc, argv, nf::Program::train);
    if (line.help) {
      std::fputs(line.help->c_str(), stdout);
      return nf::kExitDone;
    }
    if (line.settings.estimate) return nf::run_estimate(line);
    const nf::StopSignal stop;
    nf::Trainer trainer(line);  // texts, model, compilation, weights
    return trainer.run([&] { return stop.requested(); });
  });
}
