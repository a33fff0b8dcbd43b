// Where a run's numbers go: the interface of every tracker, and several of them as one.
//
//     TrackerList trackers;
//     trackers.add(std::make_unique<JsonlTracker>(out / "metrics.jsonl", resumed_step));
//     trackers.log(step, std::array{Metric{"loss", loss}, Metric{"lr", lr}});
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace nf {

struct Metric {
  std::string_view name;
  double value;  // may be infinite or not a number
};

// Not safe to call from several threads at once.
class Tracker {
 public:
  virtual ~Tracker() = default;

  // Records values of one step. Steps do not decrease; the same step may come several times (training, then
  // validation). Throws Error when the record cannot be kept.
  virtual void log(int64_t step, std::span<const Metric> metrics) = 0;

  // Makes everything logged so far durable. To be called before a checkpoint of the same step is written, so
  // that a run resumed from it finds its records.
  virtual void flush() {}

  // Flushes and ends the record; nothing may be logged after it. A second call does nothing.
  virtual void close() {}
};

// Passes every call on to each of its trackers, in the order they were added; with none it does nothing.
class TrackerList final : public Tracker {
 public:
  void add(std::unique_ptr<Tracker> tracker) { trackers_.push_back(std::move(tracker)); }

  void log(int64_t step, std::span<const Metric> metrics) override {
    for (const auto& tracker : trackers_) tracker->log(step, metrics);
  }
  void flush() override {
    for (const auto& tracker : trackers_) tracker->flush();
  }
  void close() override {
    for (const auto& tracker : trackers_) tracker->close();
  }

 private:
  std::vector<std::unique_ptr<Tracker>> trackers_;
};

}  // namespace nf
