#include "tools/tracking/wandb_tracker.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "nf/error.h"
#include "nf/file.h"
#include "tools/tracking/wandb_log.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using Ordered = nlohmann::ordered_json;

// Fields of the messages, from W&B's wandb_internal.proto.
namespace record {
constexpr int kNumber = 1, kHistory = 2, kSummary = 3, kFiles = 6, kStats = 7, kRun = 17, kExit = 18,
              kFinal = 20, kHeader = 21, kFooter = 22;
}
namespace item {  // of a config, a summary, a history; statistics have kKey in place of kNestedKey
constexpr int kKey = 1, kNestedKey = 2, kValueJson = 16;
}
namespace header {
constexpr int kVersionInfo = 1, kProducer = 1;
}
namespace run {
constexpr int kId = 1, kProject = 3, kConfig = 4, kDisplayName = 8, kHost = 13, kStartTime = 17;
}
namespace history {
constexpr int kItem = 1, kStep = 2, kStepNumber = 1;
}
constexpr int kUpdate = 1;  // of a config or a summary
constexpr int kStatsType = 1, kStatsTime = 2, kStatsItem = 3;
constexpr int kExitCode = 1, kRuntime = 2;
constexpr int kFile = 1, kPath = 1, kPolicy = 2, kFileType = 3;
constexpr int kSeconds = 1, kNanos = 2;  // of a timestamp

constexpr std::string_view kOffline = "offline-run-";
constexpr int64_t kMaxBytes = int64_t{1} << 34;

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

std::string formatted_time(double seconds, const char* format, bool utc) {
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  utc ? ::gmtime_r(&whole, &parts) : ::localtime_r(&whole, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

// Eight letters and digits, as W&B's own.
std::string new_id() {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;
  std::string id;
  for (int i = 0; i < 8; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

ProtoMessage timestamp(double seconds) {
  const double whole = std::floor(seconds);
  return ProtoMessage()
      .number(kSeconds, static_cast<int64_t>(whole))
      .number(kNanos, static_cast<int64_t>(1e9 * (seconds - whole)));
}

std::string json_text(const Ordered& value) {
  return value.dump(-1, ' ', false, Ordered::error_handler_t::replace);
}

// As Python's json module writes numbers.
std::string json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

ProtoMessage nested_item(std::string_view key, std::string_view value_json) {
  return ProtoMessage().text(item::kNestedKey, key).text(item::kValueJson, value_json);
}

// Calls visit(key, value) for the keys of a config, with the training section's among them, as "training.lr".
template <typename Visit>
void for_each_setting(const std::string& config_json, Visit visit) {
  const Ordered config = Ordered::parse(config_json);
  for (const auto& [key, value] : config.items()) {
    if (!value.is_object()) {
      visit(key, value);
      continue;
    }
    for (const auto& [inner, inner_value] : value.items()) visit(key + "." + inner, inner_value);
  }
}

}  // namespace

WandbTracker::WandbTracker(const fs::path& folder, std::optional<int64_t> resume_step, WandbOptions options)
    : options_(std::move(options)) {
  const fs::path parent = folder / "wandb";
  std::error_code error;
  fs::create_directories(parent, error);
  require(!error, "tracking: cannot make {}: {}", parent.string(), error.message());
  if (!resume_step || !resume(parent, *resume_step)) begin(parent);
}

// False when there is no run to go on with.
bool WandbTracker::resume(const fs::path& parent, int64_t last_step) {
  std::optional<fs::path> newest;  // their names begin with the time
  for (const auto& entry : fs::directory_iterator(parent))
    if (entry.path().filename().string().starts_with(kOffline) && (!newest || entry.path() > *newest))
      newest = entry.path();
  if (!newest) return false;
  const std::string name = newest->filename().string();
  const fs::path file = *newest / ("run-" + name.substr(name.rfind('-') + 1) + ".wandb");
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return false;

  bool begun = false;
  const int64_t kept = read_wandb_log(read_file(file, kMaxBytes), [&](std::string_view bytes, int64_t) {
    if (const auto begins = bytes_field(bytes, record::kRun)) {
      begun = true;
      const std::string_view time = bytes_field(*begins, run::kStartTime).value_or("");
      start_ = static_cast<double>(number_field(time, kSeconds).value_or(0)) +
               1e-9 * static_cast<double>(number_field(time, kNanos).value_or(0));
    }
    for (const int end : {record::kSummary, record::kExit, record::kFinal, record::kFooter})
      if (bytes_field(bytes, end)) return false;
    if (const auto entry = bytes_field(bytes, record::kHistory)) {
      const std::string_view step = bytes_field(*entry, history::kStep).value_or("");
      if (number_field(step, history::kStepNumber).value_or(0) > last_step) return false;
    }
    records_ = number_field(bytes, record::kNumber).value_or(records_);
    return true;
  });
  if (!begun) return false;
  folder_ = *newest;
  file_.emplace(file, kept);
  fs::remove(file.string() + ".synced", ignored);  // what is sent already is no longer all
  return true;
}

void WandbTracker::begin(const fs::path& parent) {
  start_ = now();
  const std::string id = new_id();
  folder_ = parent / fmt::format("{}{}-{}", kOffline, formatted_time(start_, "%Y%m%d_%H%M%S", false), id);
  std::error_code error;
  fs::create_directories(folder_ / "files", error);
  require(!error, "tracking: cannot make {}: {}", folder_.string(), error.message());
  file_.emplace(folder_ / ("run-" + id + ".wandb"), 0);
  file_->append(wandb_log_header());

  const std::string version = "NanoFormer";
  append(ProtoMessage().message(
      record::kHeader,
      ProtoMessage().message(header::kVersionInfo, ProtoMessage().text(header::kProducer, version))));
  ProtoMessage config;
  std::string yaml = "wandb_version: 1\n";
  for_each_setting(options_.config_json, [&](const std::string& key, const Ordered& value) {
    config.message(kUpdate, nested_item(key, json_text(value)));
    yaml += fmt::format("\n{}:\n  desc: null\n  value: {}\n", key, json_text(value));  // JSON is YAML
  });
  append(ProtoMessage().message(record::kRun, ProtoMessage()
                                                  .text(run::kId, id)
                                                  .text(run::kProject, options_.project)
                                                  .message(run::kConfig, config)
                                                  .text(run::kDisplayName, options_.name)
                                                  .text(run::kHost, host_name())
                                                  .message(run::kStartTime, timestamp(start_))));
  write_file(folder_ / "files/config.yaml", yaml);

  Ordered metadata = {{"os", "Linux"},
                      {"startedAt", formatted_time(start_, "%Y-%m-%dT%H:%M:%SZ", true)},
                      {"host", host_name()},
                      {"program", "nf-train"},
                      {"cpu_count_logical", std::thread::hardware_concurrency()}};
  write_file(folder_ / "files/wandb-metadata.json", json_text(metadata) + "\n");
  const ProtoMessage file = ProtoMessage()
                                .text(kPath, "wandb-metadata.json")
                                .number(kPolicy, 0)
                                .number(kFileType, 1);  // now; W&B's own
  append(ProtoMessage().message(record::kFiles, ProtoMessage().message(kFile, file)));
}

void WandbTracker::append(ProtoMessage message) {
  ProtoMessage numbered;
  numbered.number(record::kNumber, ++records_);
  file_->append(wandb_log_record(numbered.bytes() + message.bytes(), file_->size()));
}

void WandbTracker::log(int64_t step, std::span<const Metric> metrics) {
  require(!closed_, "tracking: {} is closed", folder_.string());
  if (step_ && *step_ != step) append_step();
  step_ = step;
  for (const Metric& metric : metrics) {
    if (metric.name == "memory")
      append_memory(metric.value);
    else
      values_.insert_or_assign(std::string(metric.name), metric.value);
  }
}

void WandbTracker::append_step() {
  if (!step_) return;
  const double time = now();
  values_["_step"] = static_cast<double>(*step_);
  values_["_timestamp"] = time;
  values_["_runtime"] = time - start_;
  ProtoMessage entry;
  for (const auto& [key, value] : values_) {
    entry.message(history::kItem, nested_item(key, json_number(value)));
    summary_[key] = value;
  }
  entry.message(history::kStep, ProtoMessage().number(history::kStepNumber, *step_));
  append(ProtoMessage().message(record::kHistory, entry));
  values_.clear();
  step_.reset();
}

void WandbTracker::append_memory(double bytes) {
  const ProtoMessage figure = ProtoMessage()
                                  .text(item::kKey, "proc.memory.rssMB")
                                  .text(item::kValueJson, json_number(bytes / (1 << 20)));
  append(ProtoMessage().message(record::kStats, ProtoMessage()
                                                    .number(kStatsType, 0)
                                                    .message(kStatsTime, timestamp(now()))
                                                    .message(kStatsItem, figure)));
}

void WandbTracker::flush() {
  if (closed_) return;
  append_step();
  file_->sync();
}

void WandbTracker::write_summary() {
  ProtoMessage update;
  std::string json = "{";
  for (const auto& [key, value] : summary_) {
    update.message(kUpdate, nested_item(key, json_number(value)));
    json += fmt::format("{}{}:{}", json.size() > 1 ? "," : "", json_text(key),
                        std::isfinite(value) ? json_number(value) : json_text(json_number(value)));
  }
  append(ProtoMessage().message(record::kSummary, update));
  write_file(folder_ / "files/wandb-summary.json", json + "}\n");
}

void WandbTracker::close() {
  if (closed_) return;
  append_step();
  write_summary();
  append(ProtoMessage().message(
      record::kExit,
      ProtoMessage().number(kExitCode, 0).number(kRuntime, static_cast<int64_t>(now() - start_))));
  append(ProtoMessage().message(record::kFinal, ProtoMessage()));
  append(ProtoMessage().message(record::kFooter, ProtoMessage()));
  file_->close();
  closed_ = true;
}

}  // namespace nf
