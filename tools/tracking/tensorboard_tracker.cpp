#include "tools/tracking/tensorboard_tracker.h"

#include <unistd.h>

#include <chrono>

#include "nf/error.h"
#include "nf/file.h"
#include "tools/tracking/crc32c.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// Fields of the messages, from TensorFlow's event.proto, summary.proto and tensor.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5;
}
namespace summary {
constexpr int kValue = 1;
constexpr int kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;  // of a value
constexpr int kPluginData = 1, kPluginName = 1;                        // of its metadata
}  // namespace summary
namespace tensor {
constexpr int kDtype = 1, kShape = 2, kStringValue = 8;
constexpr int kDim = 2, kSize = 1;  // of a shape
constexpr int64_t kString = 7;      // a dtype
}  // namespace tensor

constexpr std::string_view kFilePrefix = "events.out.tfevents.";
constexpr std::string_view kVersion = "brain.Event:2";
constexpr size_t kHead = 12, kTail = 4;  // bytes around a record's data
constexpr int64_t kMaxBytes = int64_t{1} << 34;

// A checksum is masked so that checksums of data that hold checksums stay meaningful.
uint32_t masked(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

std::optional<fs::path> newest_file(const fs::path& folder) {
  std::optional<fs::path> newest;  // their names begin with the time
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(kFilePrefix) && (!newest || entry.path() > *newest))
      newest = entry.path();
  return newest;
}

// Bytes of the whole records up to that step; 0 for a file of something else.
int64_t kept_bytes(std::string_view bytes, int64_t last_step) {
  size_t at = 0;
  while (bytes.size() - at >= kHead + kTail) {
    const uint64_t length = read_fixed(bytes, at, 8);
    if (read_fixed(bytes, at + 8, 4) != masked(bytes.substr(at, 8)) ||
        length > bytes.size() - at - kHead - kTail)
      break;
    const std::string_view data = bytes.substr(at + kHead, length);
    if (read_fixed(bytes, at + kHead + length, 4) != masked(data)) break;
    if (at == 0 && bytes_field(data, event::kFileVersion) != kVersion) return 0;
    if (number_field(data, event::kStep).value_or(0) > last_step) break;
    at += kHead + length + kTail;
  }
  return static_cast<int64_t>(at);
}

std::string tag_of(std::string_view name) {
  return name.starts_with("val_") ? "validation/" + std::string(name.substr(4))
                                  : "train/" + std::string(name);
}

// TensorBoard shows Markdown, where an indented block is shown as it is.
std::string indented(std::string_view text) {
  std::string out = "    ";
  for (const char c : text) out += c == '\n' ? "\n    " : std::string(1, c);
  return out;
}

ProtoMessage text_summary(const std::string& tag, const std::string& markdown) {
  const ProtoMessage shape = ProtoMessage().message(tensor::kDim, ProtoMessage().number(tensor::kSize, 1));
  const ProtoMessage value =
      ProtoMessage()
          .text(summary::kTag, tag)
          .message(
              summary::kMetadata,
              ProtoMessage().message(summary::kPluginData, ProtoMessage().text(summary::kPluginName, "text")))
          .message(summary::kTensor, ProtoMessage()
                                         .number(tensor::kDtype, tensor::kString)
                                         .message(tensor::kShape, shape)
                                         .text(tensor::kStringValue, markdown));
  return ProtoMessage().message(summary::kValue, value);
}

}  // namespace

TensorboardTracker::TensorboardTracker(const fs::path& folder, std::optional<int64_t> resume_step,
                                       std::string_view config_json) {
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, "tracking: cannot make {}: {}", folder.string(), error.message());
  if (const std::optional<fs::path> present = newest_file(folder); present && resume_step)
    if (const int64_t kept = kept_bytes(read_file(*present, kMaxBytes), *resume_step); kept > 0) {
      file_.emplace(*present, kept);
      return;
    }
  const auto seconds = static_cast<int64_t>(wall_time());
  file_.emplace(folder / fmt::format("{}{}.{}.{}", kFilePrefix, seconds, host_name(), ::getpid()), 0);
  append(ProtoMessage().text(event::kFileVersion, kVersion));
  append(ProtoMessage()
             .number(event::kStep, 0)
             .message(event::kSummary, text_summary("config", indented(config_json))));
}

void TensorboardTracker::append(const ProtoMessage& event) {
  ProtoMessage timed;
  timed.real(event::kWallTime, wall_time());
  const std::string data = timed.bytes() + event.bytes();
  std::string record;
  append_fixed(record, data.size(), 8);
  append_fixed(record, masked(record), 4);
  record += data;
  append_fixed(record, masked(data), 4);
  file_->append(record);
}

void TensorboardTracker::log(int64_t step, std::span<const Metric> metrics) {
  ProtoMessage values;
  for (const Metric& metric : metrics)
    values.message(summary::kValue, ProtoMessage()
                                        .text(summary::kTag, tag_of(metric.name))
                                        .single(summary::kSimpleValue, static_cast<float>(metric.value)));
  append(ProtoMessage().number(event::kStep, step).message(event::kSummary, values));
}

}  // namespace nf
