// Says what a training run would need, without starting it: nf-estimate -m gqa --data book.txt
#include "tools/estimate.h"
#include "tools/program.h"

int main(int argc, char** argv) {
  return nf::run_program("nf-estimate", argc, argv, [&] {
    return nf::run_estimate(nf::parse_command_line(argc, argv, nf::Program::estimate));
  });
}
