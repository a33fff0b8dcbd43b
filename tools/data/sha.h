// SHA-256 and SHA-1 (FIPS 180-4) of bytes that come in pieces: the names under which hubs keep files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nf {

enum class Sha : uint8_t { sha1, sha256 };

class ShaHash {
 public:
  explicit ShaHash(Sha kind);

  void add(std::string_view bytes);

  // In hexadecimal; nothing may be added after that.
  std::string hex();

 private:
  void block(const uint8_t* bytes);

  Sha kind_;
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> pending_;
  uint64_t bytes_ = 0;
};

}  // namespace nf
