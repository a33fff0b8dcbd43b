// Cuts a workspace into its pieces.
#pragma once

#include <cstdint>

namespace nf::cpu {

// Hands out 64-byte aligned pieces of memory; with a null base it only counts. Always inline, since files
// that are compiled for other processors use it too.
class Carver {
 public:
  [[gnu::always_inline]] explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  [[gnu::always_inline]] T* take(int64_t count) {
    char* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(piece);
  }
  [[gnu::always_inline]] int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace nf::cpu
