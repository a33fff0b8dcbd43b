// metrics.jsonl: one JSON object per line, {"step":12,"loss":1.5,"lr":0.001}.
//
// Values are written with as many digits as it takes to read the same double back; one that is infinite or
// not a number is null. A record is one write() of one whole line, so a killed process loses nothing it
// logged; a crash of the machine loses at most what came after flush(). Half a line that such an end leaves
// behind is dropped on resume.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "tools/tracking/tracker.h"

namespace nf {

class JsonlTracker final : public Tracker {
 public:
  // Without resume_step the file starts empty, whatever was there. With it, a run goes on after that step:
  // records of later steps and lines that are no records are removed, and what is logged is appended; a file
  // that is not there yet is made. Throws Error when the file cannot be read or written.
  JsonlTracker(std::filesystem::path file, std::optional<int64_t> resume_step);
  ~JsonlTracker() override;
  JsonlTracker(const JsonlTracker&) = delete;
  JsonlTracker& operator=(const JsonlTracker&) = delete;

  // Throws Error for a step below the last one, and when the line cannot be written (a full disk, say); the
  // file then ends with the record before.
  void log(int64_t step, std::span<const Metric> metrics) override;
  void flush() override;
  void close() override;

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
  int64_t last_step_;
  int64_t size_ = 0;  // of the whole lines written
  std::string line_;  // kept to spare allocations
};

struct MetricSeries {
  std::vector<double> steps, values;  // of equal length; NaN where the record holds null
};

// One metric's history from such a file, in the order of its lines, skipping records without it and lines
// that are no records. Throws Error when the file cannot be read.
MetricSeries read_metric(const std::filesystem::path& file, std::string_view name);

}  // namespace nf
