// Profiles for people and for Perfetto.
#include <algorithm>
#include <iterator>
#include <map>

#include "nf/executable.h"

namespace nf {

std::string profile_table(std::span<const Executable* const> executables) {
  struct Total {
    double seconds = 0, flops = 0, bytes = 0;
    int64_t runs = 0;
  };
  std::map<std::string, Total> totals;
  double all = 0;
  for (const Executable* executable : executables)
    for (const StepProfile& step : executable->profile()) {
      Total& total =
          totals[fmt::format("{} {}{}", executable->name(), step.kind, step.backward ? " (backward)" : "")];
      const auto runs = static_cast<double>(step.runs);
      total.seconds += step.seconds;
      total.flops += step.flops * runs;
      total.bytes += step.bytes * runs;
      total.runs += step.runs;
      all += step.seconds;
    }
  std::vector<std::pair<std::string, Total>> rows(totals.begin(), totals.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::string text =
      fmt::format("{:<52} {:>8} {:>10} {:>6} {:>9} {:>8}\n", "step", "runs", "ms", "%", "GFLOP/s", "GB/s");
  for (const auto& [name, total] : rows) {
    if (total.runs == 0) continue;
    fmt::format_to(std::back_inserter(text), "{:<52} {:>8} {:>10.2f} {:>6.1f} {:>9.1f} {:>8.1f}\n", name,
                   total.runs, total.seconds * 1e3, 100 * total.seconds / all,
                   total.flops / total.seconds * 1e-9, total.bytes / total.seconds * 1e-9);
  }
  return text;
}

std::string profile_trace(std::span<const Executable* const> executables) {
  std::string text = "{\"traceEvents\":[";
  double origin = -1;
  for (const Executable* executable : executables)
    for (const StepProfile& step : executable->profile())
      for (const auto& [start, length] : step.spans) origin = origin < 0 ? start : std::min(origin, start);
  bool first = true;
  for (const Executable* executable : executables)
    for (const StepProfile& step : executable->profile())
      for (const auto& [start, length] : step.spans) {
        fmt::format_to(std::back_inserter(text),
                       "{}\n{{\"name\":\"{}\",\"cat\":\"{}\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":{:.3f},"
                       "\"dur\":{:.3f},"
                       "\"args\":{{\"scope\":\"{}\",\"backward\":{},\"gflops\":{:.2f}}}}}",
                       first ? "" : ",", step.kind, executable->name(), (start - origin) * 1e6, length * 1e6,
                       step.scope, step.backward, step.flops / std::max(length, 1e-9) * 1e-9);
        first = false;
      }
  return text + "\n]}\n";
}

}  // namespace nf
