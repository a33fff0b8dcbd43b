#include "tools/tracking/jsonl_tracker.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "nf/error.h"
#include "nf/file.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// Metrics of a very long run; what is larger is not ours.
constexpr int64_t kMaxBytes = int64_t{1} << 34;

void append_quoted(std::string& line, std::string_view text) {
  line += '"';
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x20)
      fmt::format_to(std::back_inserter(line), "\\u{:04x}", static_cast<int>(c));
    else if (c == '"' || c == '\\')
      (line += '\\') += c;
    else
      line += c;
  }
  line += '"';
}

// Calls visit(step, object, line with its end) for every line of `bytes` that is a whole record.
template <typename Visit>
void for_each_record(std::string_view bytes, Visit visit) {
  simdjson::dom::parser parser;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) return;  // a line cut short
    const std::string_view line = bytes.substr(0, end + 1);
    bytes.remove_prefix(end + 1);
    simdjson::dom::object object;
    int64_t step = 0;
    if (parser.parse(line.data(), line.size()).get(object) == simdjson::SUCCESS &&
        object.at_key("step").get(step) == simdjson::SUCCESS)
      visit(step, object, line);
  }
}

}  // namespace

JsonlTracker::JsonlTracker(const fs::path& file, std::optional<int64_t> resume_step)
    : last_step_(std::numeric_limits<int64_t>::min()) {
  std::error_code ignored;
  int64_t keep = 0;
  if (resume_step && fs::exists(file, ignored)) {
    const std::string bytes = read_file(file, kMaxBytes);
    std::string kept;
    for_each_record(bytes, [&](int64_t step, const simdjson::dom::object&, std::string_view line) {
      if (step > *resume_step) return;
      kept += line;
      last_step_ = std::max(last_step_, step);
    });
    if (kept.size() != bytes.size()) write_file(file, kept);
    keep = static_cast<int64_t>(kept.size());
  }
  file_.emplace(file, keep);
}

void JsonlTracker::log(int64_t step, std::span<const Metric> metrics) {
  require(step >= last_step_, "tracking: step {} comes after step {} in {}", step, last_step_,
          file_->path().string());
  line_.clear();
  fmt::format_to(std::back_inserter(line_), "{{\"step\":{}", step);
  for (const Metric& metric : metrics) {
    require(metric.name != "step", "tracking: a metric cannot be called step");
    line_ += ',';
    append_quoted(line_, metric.name);
    line_ += ':';
    if (std::isfinite(metric.value))
      fmt::format_to(std::back_inserter(line_), "{}", metric.value);
    else
      line_ += "null";
  }
  line_ += "}\n";
  file_->append(line_);
  last_step_ = step;
}

void read_records(const fs::path& file,
                  const std::function<void(int64_t step, std::span<const Metric> metrics)>& visit) {
  const std::string bytes = read_file(file, kMaxBytes);
  std::vector<Metric> metrics;
  for_each_record(bytes, [&](int64_t step, const simdjson::dom::object& object, std::string_view) {
    metrics.clear();
    for (const auto& [name, element] : object) {
      double value = std::numeric_limits<double>::quiet_NaN();
      if (name != "step" && (element.is_null() || element.get(value) == simdjson::SUCCESS))
        metrics.push_back({name, value});
    }
    visit(step, metrics);
  });
}

MetricSeries read_metric(const fs::path& file, std::string_view name) {
  MetricSeries series;
  read_records(file, [&](int64_t step, std::span<const Metric> metrics) {
    for (const Metric& metric : metrics) {
      if (metric.name != name) continue;
      series.steps.push_back(static_cast<double>(step));
      series.values.push_back(metric.value);
    }
  });
  return series;
}

}  // namespace nf
