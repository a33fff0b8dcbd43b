// Named tensors that outlive runs: parameters, moments, accumulated gradients, caches. Executables share them
// by name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nf/device.h"

namespace nf {

class State {
 public:
  explicit State(std::shared_ptr<const Device> device) : device_(std::move(device)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const std::shared_ptr<const Device>& device() const { return device_; }

  // Makes the tensor, of zeros, unless it exists; throws Error when it exists with another type. Returns its
  // memory.
  std::byte* ensure(const std::string& name, const TensorType& type);
  void erase(const std::string& name) { tensors_.erase(name); }

  bool contains(const std::string& name) const { return tensors_.contains(name); }
  std::vector<std::string> names() const;  // sorted
  const TensorType& type(const std::string& name) const;
  int64_t bytes() const;  // of all tensors

  // Copies in and out, dense and row-major, in the tensor's own dtype; `bytes` must be exactly its size.
  void write(const std::string& name, std::span<const std::byte> bytes);
  void read(const std::string& name, std::span<std::byte> bytes) const;

  // The tensor where the host can read it: its memory, or else a copy of it that `copies` owns from now on.
  std::span<const std::byte> host_bytes(const std::string& name, std::vector<Buffer>& copies) const;
  // Lets `write` overwrite the whole tensor: in its memory, or else on the host first.
  void overwrite(const std::string& name, const std::function<void(std::span<std::byte>)>& write);

  // The memory itself; Error when the device does not share it with the host.
  std::span<std::byte> memory(const std::string& name);
  std::span<const std::byte> memory(const std::string& name) const;

 private:
  struct Tensor {
    TensorType type;
    Buffer buffer;
  };
  const Tensor& find(const std::string& name) const;

  std::shared_ptr<const Device> device_;
  Slabs slabs_{*device_};
  std::map<std::string, Tensor> tensors_;
};

// Fills an f32 tensor with a number, or with normal deviates N(0, std^2) from the Philox stream of (seed,
// name): the same values whatever else the State holds.
void fill_constant(State& state, const std::string& name, double value);
void fill_normal(State& state, const std::string& name, double std, uint64_t seed);

}  // namespace nf
