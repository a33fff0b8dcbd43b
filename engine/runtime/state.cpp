#include "nf/state.h"

#include <cstring>

namespace nf {
namespace {

constexpr int64_t kSlabBytes = 32 << 20;
constexpr int64_t kLargeBytes = kSlabBytes / 4;  // from here on a tensor has an allocation of its own
constexpr int64_t kAlignment = 64;

}  // namespace

// A slab lives as long as any tensor in it.
Buffer State::allocate(int64_t bytes) {
  if (bytes >= kLargeBytes) return device_->allocate(bytes);
  const int64_t needed = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (!slab_ || slab_used_ + needed > kSlabBytes) {
    slab_ = device_->allocate(kSlabBytes);
    slab_used_ = 0;
  }
  std::byte* const address = slab_.get() + slab_used_;
  slab_used_ += needed;
  return {slab_, address};
}

std::byte* State::ensure(const std::string& name, const TensorType& type) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return tensors_.emplace(name, Tensor{type, allocate(type.bytes())}).first->second.buffer.get();
  const TensorType& existing = found->second.type;
  require(existing == type, "state: '{}' is {}{}, not {}{}", name, nf::name(existing.dtype),
          to_string(existing.shape), nf::name(type.dtype), to_string(type.shape));
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

std::span<const std::byte> State::memory(const std::string& name) const {
  const Tensor& tensor = find(name);
  return {tensor.buffer.get(), static_cast<size_t>(tensor.type.bytes())};
}

std::span<std::byte> State::memory(const std::string& name) {
  const Tensor& tensor = find(name);
  return {tensor.buffer.get(), static_cast<size_t>(tensor.type.bytes())};
}

void State::write(const std::string& name, std::span<const std::byte> bytes) {
  const std::span<std::byte> to = memory(name);
  require(to.size() == bytes.size(), "state: '{}' has {} bytes, not {}", name, to.size(), bytes.size());
  std::memcpy(to.data(), bytes.data(), bytes.size());
}

void State::read(const std::string& name, std::span<std::byte> bytes) const {
  const std::span<const std::byte> from = memory(name);
  require(from.size() == bytes.size(), "state: '{}' has {} bytes, not {}", name, from.size(), bytes.size());
  std::memcpy(bytes.data(), from.data(), bytes.size());
}

}  // namespace nf
