#include "tools/tracking/jsonl_tracker.h"

#include <fcntl.h>
#include <nf/error.h>
#include <nf/file.h>
#include <simdjson.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

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

JsonlTracker::JsonlTracker(fs::path file, std::optional<int64_t> resume_step)
    : file_(std::move(file)), last_step_(std::numeric_limits<int64_t>::min()) {
  std::error_code ignored;
  if (resume_step && fs::exists(file_, ignored)) {
    const std::string bytes = read_file(file_, kMaxBytes);
    std::string kept;
    for_each_record(bytes, [&](int64_t step, const simdjson::dom::object&, std::string_view line) {
      if (step > *resume_step) return;
      kept += line;
      last_step_ = std::max(last_step_, step);
    });
    if (kept.size() != bytes.size()) write_file(file_, kept);
  }
  const int truncate = resume_step ? 0 : O_TRUNC;
  descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | truncate, 0644);
  require(descriptor_ >= 0, "tracking: cannot open {}: {}", file_.string(), std::strerror(errno));
  size_ = ::lseek(descriptor_, 0, SEEK_END);
}

JsonlTracker::~JsonlTracker() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void JsonlTracker::log(int64_t step, std::span<const Metric> metrics) {
  require(descriptor_ >= 0, "tracking: {} is closed", file_.string());
  require(step >= last_step_, "tracking: step {} comes after step {} in {}", step, last_step_,
          file_.string());
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

  for (std::string_view rest = line_; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      // Should this fail too, resuming drops the half line.
      [[maybe_unused]] const int undone = ::ftruncate(descriptor_, size_);
      fail("tracking: cannot write {}: {}", file_.string(), std::strerror(reason));
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
  size_ += static_cast<int64_t>(line_.size());
  last_step_ = step;
}

void JsonlTracker::flush() {
  if (descriptor_ < 0) return;
  // EINVAL: a pipe or a device, which has nothing to sync.
  require(::fsync(descriptor_) == 0 || errno == EINVAL, "tracking: cannot sync {}: {}", file_.string(),
          std::strerror(errno));
}

void JsonlTracker::close() {
  if (descriptor_ < 0) return;
  flush();
  const int descriptor = std::exchange(descriptor_, -1);
  require(::close(descriptor) == 0, "tracking: cannot close {}: {}", file_.string(), std::strerror(errno));
}

MetricSeries read_metric(const fs::path& file, std::string_view name) {
  MetricSeries series;
  const std::string bytes = read_file(file, kMaxBytes);
  for_each_record(bytes, [&](int64_t step, const simdjson::dom::object& object, std::string_view) {
    simdjson::dom::element element;
    if (object.at_key(name).get(element) != simdjson::SUCCESS) return;
    double value = std::numeric_limits<double>::quiet_NaN();
    if (!element.is_null() && element.get(value) != simdjson::SUCCESS) return;
    series.steps.push_back(static_cast<double>(step));
    series.values.push_back(value);
  });
  return series;
}

}  // namespace nf
