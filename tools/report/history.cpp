#include "tools/report/history.h"

#include <algorithm>
#include <array>
#include <limits>

#include "tools/tracking/jsonl_tracker.h"

namespace nf {
namespace {

double find(std::span<const Metric> metrics, std::string_view name) {
  const auto at =
      std::find_if(metrics.begin(), metrics.end(), [&](const Metric& m) { return m.name == name; });
  return at == metrics.end() ? std::numeric_limits<double>::quiet_NaN() : at->value;
}

bool has(std::span<const Metric> metrics, std::string_view name) {
  return std::any_of(metrics.begin(), metrics.end(), [&](const Metric& m) { return m.name == name; });
}

}  // namespace

RunHistory::RunHistory()
    : training_({"step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "memory"}, 3),
      validation_({"step", "tokens", "seconds", "val_loss"}, 3) {}

void RunHistory::log(int64_t step, std::span<const Metric> metrics) {
  step_ = step;
  if (has(metrics, "val_loss"))
    validation_.add(std::array{static_cast<double>(step), tokens_, seconds_, find(metrics, "val_loss")});
  if (!has(metrics, "loss")) return;
  // Records of older versions have no seconds.
  if (has(metrics, "tokens")) tokens_ = find(metrics, "tokens");
  if (has(metrics, "seconds")) seconds_ = find(metrics, "seconds");
  training_.add(std::array{static_cast<double>(step), tokens_, seconds_, find(metrics, "loss"),
                           find(metrics, "lr"), find(metrics, "grad_norm"),
                           find(metrics, "tokens_per_second"), find(metrics, "memory")});
}

void RunHistory::read(const std::filesystem::path& metrics) {
  read_records(metrics, [&](int64_t step, std::span<const Metric> record) { log(step, record); });
}

}  // namespace nf
