// GPT-2's alphabet for bytes (Radford et al., 2019), in which byte-level vocabularies are written: every byte
// is a visible character, so that any string of bytes is a word of text without white space.
//
// '!' … '~', U+00A1 … U+00AC and U+00AE … U+00FF stand for themselves; the other 68 bytes, in order, are
// U+0100 and on: a blank is U+0120.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace nf {

// The character of each byte.
const std::array<char32_t, 256>& byte_letters();

std::string to_byte_letters(std::string_view bytes);

// The bytes that a text in this alphabet (valid UTF-8) stands for; nullopt when a character is not of it.
std::optional<std::string> from_byte_letters(std::string_view text);

}  // namespace nf
