// nf-bench: how fast the engine is on this machine, and how near to what the machine can do.
#include <algorithm>
#include <optional>

#include "nf/json.h"
#include "tools/arguments.h"
#include "tools/bench/sections.h"
#include "tools/bench/steps.h"
#include "tools/device.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/settings.h"

namespace nf {
namespace {

struct Arguments {
  std::vector<std::string> sections;
  std::string model = "gqa", device = "cpu";
  int64_t threads = 0;
  double seconds = 0.3;
  bool json = false;
};

using Section = void (*)(const Bench& bench, BenchReport& report);

constexpr std::string_view kSteps = "steps";
constexpr std::string_view kScale = "scale";  // takes minutes: only when it is asked for
constexpr std::pair<std::string_view, Section> kSections[] = {
    {"machine", bench_machine}, {"matmul", bench_matmul}, {"attention", bench_attention},
    {"loss", bench_loss},       {"loops", bench_loops},   {"generation", bench_generation}};

void check_section(const std::string& word) {
  std::vector<std::string_view> names;
  for (const auto& [name, section] : kSections) names.push_back(name);
  names.push_back(kSteps);
  names.push_back(kScale);
  if (std::find(names.begin(), names.end(), word) != names.end()) return;
  const std::string_view near = nearest(word, names);
  require(!near.empty(), "nf-bench: unknown section '{}'; there are {}", printable(word),
          fmt::join(names, ", "));
  fail("nf-bench: unknown section '{}'; did you mean '{}'?", printable(word), near);
}

// Moves the words in front of the first flag from the command line to the sections.
void take_sections(int& argc, char**& argv, std::vector<std::string>& sections) {
  while (argc > 1 && argv[1][0] != '-') {
    sections.emplace_back(argv[1]);
    argv[1] = argv[0];
    ++argv;
    --argc;
  }
}

// False: --help was asked for, and printed.
bool read(Arguments& a, int argc, char** argv) {
  take_sections(argc, argv, a.sections);
  FlagTable flags("nf-bench", "sections come before all flags");
  flags.text({.name = "model", .takes = "CONFIG", .help = "what 'steps' trains", .letter = 'm'}, a.model);
  flags.real({.name = "seconds", .takes = "S", .help = "time to spend on each measurement"}, a.seconds);
  flags.word({.name = "device", .takes = "cpu|cuda", .help = "what to measure"}, a.device, {"cpu", "cuda"});
  flags.whole({.name = "threads", .takes = "N", .help = "threads to use", .default_text = "all cores"},
              a.threads, 1, 1024);
  flags.toggle({.name = "json", .help = "print one JSON object, when everything is measured"}, a.json);
  if (!flags.parse(argc, argv,
                   "nf-bench [SECTION…] measures the engine on this machine, and the machine itself beside "
                   "each figure.\nSections: machine matmul attention loss loops generation steps; none means "
                   "all of these (a minute or so).\nAnd scale, which takes minutes: steps of many lengths, "
                   "depths and vocabularies.",
                   "  nf-bench\n  nf-bench matmul attention --threads 1\n  nf-bench steps -m ngpt --json"))
    return false;
  for (const std::string& section : a.sections) check_section(section);
  require(a.seconds > 0 && a.seconds <= 600, "nf-bench: --seconds must be above 0 and at most 600, not {}",
          a.seconds);
  check_dump_folder();
  return true;
}

int run(int argc, char** argv) {
  Arguments a;
  if (!read(a, argc, argv)) return kExitDone;
  const int threads =
      a.threads > 0 ? static_cast<int>(a.threads) : parse_training("", ModelConfig{}, "nf-bench").threads;
  const Bench bench{.device = open_device(a.device, threads), .threads = threads, .seconds = a.seconds};
  const auto wanted = [&](std::string_view name) {
    return a.sections.empty() || std::find(a.sections.begin(), a.sections.end(), name) != a.sections.end();
  };
  std::optional<BenchModel> model;  // read before minutes go by
  if (wanted(kSteps)) model = load_bench_model(a.model);
  BenchReport report(a.json, threads, a.seconds);
  for (const auto& [name, section] : kSections)
    if (wanted(name)) section(bench, report);
  if (model) bench_steps(bench, *model, report);
  if (std::find(a.sections.begin(), a.sections.end(), kScale) != a.sections.end()) bench_scale(bench, report);
  report.finish();
  return kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-bench", argc, argv, [&] { return nf::run(argc, argv); });
}
