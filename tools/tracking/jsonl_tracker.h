// metrics.jsonl: one JSON object per line, {"step":12,"loss":1.5,"lr":0.001}.
//
// Values are written with as many digits as it takes to read the same double back; one that is infinite or
// not a number is null. Half a line that the machine's end leaves behind is dropped on resume.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "tools/tracking/append_file.h"
#include "tools/tracking/tracker.h"

namespace nf {

class JsonlTracker final : public Tracker {
 public:
  // Without resume_step the file starts empty, whatever was there. With it, a run goes on after that step:
  // records of later steps and lines that are no records are removed, and what is logged is appended; a file
  // that is not there yet is made. Throws Error when the file cannot be read or written.
  JsonlTracker(const std::filesystem::path& file, std::optional<int64_t> resume_step);

  // Throws Error for a step below the last one, and when the line cannot be written (a full disk, say); the
  // file then ends with the record before.
  void log(int64_t step, std::span<const Metric> metrics) override;
  void flush() override { file_->sync(); }
  void close() override { file_->close(); }

 private:
  std::optional<AppendFile> file_;
  int64_t last_step_;
  std::string line_;  // kept to spare allocations
};

// Calls `visit` with every record of such a file, in the order of its lines; null is NaN; lines that are no
// records, and values that are no numbers, are skipped. Throws Error when the file cannot be read.
void read_records(const std::filesystem::path& file,
                  const std::function<void(int64_t step, std::span<const Metric> metrics)>& visit);

struct MetricSeries {
  std::vector<double> steps, values;  // of equal length; NaN where the record holds null
};

// One metric's history from such a file: records without it are skipped.
MetricSeries read_metric(const std::filesystem::path& file, std::string_view name);

}  // namespace nf
