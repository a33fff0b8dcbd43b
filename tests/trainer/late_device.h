// A CPU that acts as a GPU does: its memory is its own, and what is launched happens later, when somebody
// waits for it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "nf/device.h"

namespace nf {

class LateDevice : public Device {
 public:
  std::string_view name() const override { return "late"; }
  bool supports(const Graph& graph, const Node& node) const override { return cpu_->supports(graph, node); }
  int64_t workspace(const Graph& graph, const Node& node) const override {
    return cpu_->workspace(graph, node);
  }
  Buffer allocate(int64_t bytes) const override { return cpu_->allocate(bytes); }
  bool shares_host_memory() const override { return false; }
  void write(std::byte* to, std::span<const std::byte> from) const override;
  void read(std::span<std::byte> to, const std::byte* from) const override;
  std::unique_ptr<Readback> readback(int64_t bytes) const override;
  void synchronize() const override { work_until(asked_); }
  std::vector<Launch> load(const BoundPlan& bound) const override;

  // What has been launched and has not happened yet.
  int64_t waiting() const { return static_cast<int64_t>(queue_.size()); }

 private:
  class LateReadback;

  void ask(std::function<void()> work) const;
  void work_until(int64_t count) const;

  std::shared_ptr<const Device> cpu_ = cpu_device(1);
  mutable std::deque<std::function<void()>> queue_;
  mutable int64_t asked_ = 0, done_ = 0;
};

}  // namespace nf
