// A Readback where nothing is gained by waiting: each copy is made when it is asked for.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "nf/device.h"

namespace nf {

class ImmediateReadback : public Readback {
 public:
  using Read = std::function<void(std::span<std::byte> to, const std::byte* from)>;

  ImmediateReadback(int64_t bytes, Read read) : memory_(static_cast<size_t>(bytes)), read_(std::move(read)) {}

  void read(int64_t at, int64_t bytes, const std::byte* from) override {
    read_(std::span(memory_).subspan(static_cast<size_t>(at), static_cast<size_t>(bytes)), from);
  }
  std::span<const std::byte> wait() override { return memory_; }

 private:
  std::vector<std::byte> memory_;
  Read read_;
};

}  // namespace nf
