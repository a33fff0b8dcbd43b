// Event files for TensorBoard: tensorboard --logdir RUN/tensorboard
//
// A file of records (TensorFlow's TFRecord: length, its checksum, an Event message, its checksum; both
// checksums are masked CRC-32Cs). Metrics are scalars, train/loss and validation/loss; the run's config is a
// text. One file serves a run and its resumptions.
#pragma once

#include <optional>
#include <string_view>

#include "tools/tracking/append_file.h"
#include "tools/tracking/protobuf.h"
#include "tools/tracking/tracker.h"

namespace nf {

class TensorboardTracker final : public Tracker {
 public:
  // Writes into `folder`, which is made. With resume_step a run goes on after that step in the newest file of
  // the folder: events of later steps, and anything damaged and all after it, are cut off. Throws Error when
  // files cannot be read or written.
  TensorboardTracker(const std::filesystem::path& folder, std::optional<int64_t> resume_step,
                     std::string_view config_json);

  void log(int64_t step, std::span<const Metric> metrics) override;
  void flush() override { file_->sync(); }
  void close() override { file_->close(); }

 private:
  void append(const ProtoMessage& event);

  std::optional<AppendFile> file_;
};

}  // namespace nf
