// The command line of nf-compare: models, a budget, and every flag of nf-train for all of them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tools/settings.h"

namespace nf {

// How long each model is trained.
struct Budget {
  enum class Kind : uint8_t { steps, tokens, flops, seconds };  // steps: what the settings say
  Kind kind = Kind::steps;
  double amount = 0;
  std::string text = {};  // as it was given
};

// "tokens=2M", "flops=1e15", "time=10m"; k, M, G, T, P are powers of 1000, times end with s, m or h. Throws
// Error for anything else.
Budget parse_budget(const std::string& text);

// One run to make.
struct Contestant {
  std::string name;   // of the run and its folder
  std::string group;  // of the model: its runs differ in the seed only
  CommandLine line;
};

struct CompareRequest {
  std::vector<Contestant> contestants;
  Budget budget;
  std::filesystem::path out;
  // Whether the line says how often; else it follows from the number of steps.
  bool evaluation_given = false, saving_given = false;
  std::optional<std::string> help;  // --help: print this and exit 0; nothing else is filled
};

// Throws Error, one line, for anything wrong: also for models that would not see the same batches.
CompareRequest parse_compare(int argc, const char* const* argv);

}  // namespace nf
