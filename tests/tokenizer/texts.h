// Random texts that try tokenizers, the same for the same seed.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "tools/tokenizer/utf8.h"

namespace nf {

// Valid UTF-8 of about so many characters: words, numbers, contractions, blanks and line ends in runs,
// symbols, and characters of all of Unicode.
inline std::string random_text(uint64_t seed, size_t characters) {
  static constexpr const char* kPieces[] = {" ",
                                            "  ",
                                            "\t",
                                            "\n",
                                            "\r\n",
                                            "\n\n",
                                            "a",
                                            "the",
                                            "Word",
                                            "'s",
                                            "'S",
                                            "'ll",
                                            "'LL",
                                            "'\xC5\xBF",
                                            "'v",
                                            "'",
                                            "1",
                                            "234",
                                            "12345",
                                            ".",
                                            "--",
                                            "...",
                                            "(",
                                            "\xC3\xA9",
                                            "\xE4\xBD\xA0\xE5\xA5\xBD",
                                            "\xF0\x9F\x98\x80",
                                            "\xC2\xA0",
                                            "\xE3\x80\x80",
                                            "\xE2\x80\xA8",
                                            "\xE1\xA0\x8E",
                                            "\xC2\x85",
                                            "_",
                                            "x1",
                                            "\xD9\xA3"};
  std::mt19937_64 random(seed);
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const uint64_t kind = random() % 20;
    if (kind > 0) {
      text += kPieces[random() % std::size(kPieces)];
      continue;
    }
    char32_t code_point = static_cast<char32_t>(random() % 0x30000);
    if (code_point >= 0xD800 && code_point < 0xE000) code_point = U'?';
    append_utf8(text, code_point);
  }
  return text;
}

}  // namespace nf
