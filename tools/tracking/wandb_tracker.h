// An offline run for Weights & Biases, which `wandb sync` sends to a server later; nothing is sent here.
//
//     wandb/offline-run-20260131_120000-k3v9x2ab/
//       run-k3v9x2ab.wandb          every record: wandb_log.h holds protocol buffers (W&B's
//                                   wandb_internal.proto)
//       files/config.yaml  wandb-summary.json  wandb-metadata.json
//
// Each step is one record of the history. The process' memory goes to the system metrics, where W&B looks for
// it. A run that is resumed goes on in the same folder.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "tools/tracking/append_file.h"
#include "tools/tracking/protobuf.h"
#include "tools/tracking/tracker.h"

namespace nf {

struct WandbOptions {
  std::string project = "nanoformer";
  std::string name;         // of the run
  std::string config_json;  // an object
};

class WandbTracker final : public Tracker {
 public:
  // Writes below `folder`/wandb, which is made. With resume_step the newest run there goes on after that
  // step: records of later steps, the end of the run, and anything damaged are cut off. Throws Error when
  // files cannot be read or written.
  WandbTracker(const std::filesystem::path& folder, std::optional<int64_t> resume_step, WandbOptions options);

  // Values of one step are gathered and recorded with the next step, flush() or close().
  void log(int64_t step, std::span<const Metric> metrics) override;
  void flush() override;
  void close() override;

  // The run's folder.
  const std::filesystem::path& folder() const { return folder_; }

 private:
  bool resume(const std::filesystem::path& parent, int64_t last_step);
  void begin(const std::filesystem::path& parent);
  void append(ProtoMessage record);
  void append_step();
  void append_memory(double bytes);
  void write_summary();

  WandbOptions options_;
  std::filesystem::path folder_;
  std::optional<AppendFile> file_;
  bool closed_ = false;
  double start_ = 0;                                    // of the run, in seconds of the Unix epoch
  int64_t records_ = 0;                                 // numbered so far
  std::optional<int64_t> step_ = std::nullopt;          // being gathered
  std::map<std::string, double, std::less<>> values_;   // of that step
  std::map<std::string, double, std::less<>> summary_;  // the last value of each metric
};

}  // namespace nf
