#include "tests/trainer/late_device.h"

#include <algorithm>

namespace nf {

class LateDevice::LateReadback : public Readback {
 public:
  LateReadback(const LateDevice& device, int64_t bytes)
      : device_(device), memory_(static_cast<size_t>(bytes)) {}

  void read(int64_t at, int64_t bytes, const std::byte* from) override {
    device_.ask([to = memory_.data() + at, bytes, from] { std::copy_n(from, bytes, to); });
    last_ = device_.asked_;
  }
  std::span<const std::byte> wait() override {
    device_.work_until(last_);
    return memory_;
  }

 private:
  const LateDevice& device_;
  std::vector<std::byte> memory_;
  int64_t last_ = 0;
};

void LateDevice::ask(std::function<void()> work) const {
  queue_.push_back(std::move(work));
  ++asked_;
}

void LateDevice::work_until(int64_t count) const {
  for (; done_ < count; ++done_) {
    queue_.front()();
    queue_.pop_front();
  }
}

void LateDevice::write(std::byte* to, std::span<const std::byte> from) const {
  ask([to, bytes = std::vector(from.begin(), from.end())] { std::copy(bytes.begin(), bytes.end(), to); });
}

void LateDevice::read(std::span<std::byte> to, const std::byte* from) const {
  synchronize();
  std::copy_n(from, to.size(), to.data());
}

std::unique_ptr<Readback> LateDevice::readback(int64_t bytes) const {
  return std::make_unique<LateReadback>(*this, bytes);
}

std::vector<Launch> LateDevice::load(const BoundPlan& bound) const {
  std::vector<Launch> launches;
  for (Launch& launch : cpu_->load(bound))
    launches.emplace_back([this, launch = std::move(launch)] { ask(launch); });
  return launches;
}

}  // namespace nf
