#include "nf/state.h"

namespace nf {
namespace {

void require_size(const std::string& name, const TensorType& type, size_t bytes) {
  require(static_cast<int64_t>(bytes) == type.bytes(), "state: '{}' has {} bytes, not {}", name, type.bytes(),
          bytes);
}

}  // namespace

std::byte* State::ensure(const std::string& name, const TensorType& type) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return tensors_.emplace(name, Tensor{type, slabs_.allocate(type.bytes())}).first->second.buffer.get();
  const TensorType& existing = found->second.type;
  require(existing == type, "state: '{}' is {}{}, not {}{}", name, nf::name(existing.dtype), existing.shape,
          nf::name(type.dtype), type.shape);
  return found->second.buffer.get();
}

std::vector<std::string> State::names() const {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : tensors_) result.push_back(name);
  return result;
}

const State::Tensor& State::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  require(found != tensors_.end(), "state: there is no tensor '{}'", name);
  return found->second;
}

const TensorType& State::type(const std::string& name) const { return find(name).type; }

int64_t State::bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) total += tensor.type.bytes();
  return total;
}

std::span<std::byte> State::memory(const std::string& name) {
  require(device_->shares_host_memory(), "state: '{}' lives in the memory of {}", name, device_->name());
  const Tensor& tensor = find(name);
  return {tensor.buffer.get(), static_cast<size_t>(tensor.type.bytes())};
}

std::span<const std::byte> State::memory(const std::string& name) const {
  return const_cast<State*>(this)->memory(name);
}

void State::write(const std::string& name, std::span<const std::byte> bytes) {
  const Tensor& tensor = find(name);
  require_size(name, tensor.type, bytes.size());
  device_->write(tensor.buffer.get(), bytes);
}

void State::read(const std::string& name, std::span<std::byte> bytes) const {
  const Tensor& tensor = find(name);
  require_size(name, tensor.type, bytes.size());
  device_->read(bytes, tensor.buffer.get());
}

std::span<const std::byte> State::host_bytes(const std::string& name, std::vector<Buffer>& copies) const {
  if (device_->shares_host_memory()) return memory(name);
  const auto bytes = static_cast<size_t>(type(name).bytes());
  copies.push_back(allocate_host_memory(static_cast<int64_t>(bytes)));
  read(name, {copies.back().get(), bytes});
  return {copies.back().get(), bytes};
}

void State::overwrite(const std::string& name, const std::function<void(std::span<std::byte>)>& write_to) {
  if (device_->shares_host_memory()) return write_to(memory(name));
  std::vector<std::byte> bytes(static_cast<size_t>(type(name).bytes()));
  write_to(bytes);
  write(name, bytes);
}

}  // namespace nf
