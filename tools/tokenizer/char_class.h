// What pre-tokenizers ask about a character: letter (\p{L}), number (\p{N}), white space, line end or
// something else.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nf {

enum class CharClass : uint8_t { other, letter, number, space, newline };  // newline: CR and LF

// A character at the start of some bytes.
struct ClassifiedChar {
  CharClass kind;
  uint8_t length;  // bytes
};

// All code points in two levels, 256 to a block, equal blocks once. Immutable, so free to share.
class CharClasses {
 public:
  CharClasses();

  CharClass of(char32_t code_point) const {
    return static_cast<CharClass>(blocks_[block_of_[code_point >> 8] * size_t{256} + (code_point & 0xFFU)]);
  }

  // The character at `at`, which must exist; `text` is valid UTF-8.
  ClassifiedChar at(std::string_view text, size_t at) const {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
    const uint8_t first = byte(0);
    if (first < 0x80) return {static_cast<CharClass>(blocks_[first]), 1};
    if (first < 0xE0) return {of((char32_t{first & 0x1FU} << 6) | (byte(1) & 0x3FU)), 2};
    if (first < 0xF0)
      return {of((char32_t{first & 0x0FU} << 12) | ((byte(1) & 0x3FU) << 6) | (byte(2) & 0x3FU)), 3};
    return {of((char32_t{first & 0x07U} << 18) | ((byte(1) & 0x3FU) << 12) | ((byte(2) & 0x3FU) << 6) |
               (byte(3) & 0x3FU)),
            4};
  }

 private:
  std::array<uint16_t, 0x1100> block_of_{};
  std::vector<uint8_t> blocks_;
};

}  // namespace nf
