#include "tools/tokenizer/byte_letters.h"

#include <cstdint>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

constexpr char32_t kLetters = 0x144;  // the first code point behind the alphabet

constexpr bool stands_for_itself(char32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> kByteLetters = [] {
  std::array<char32_t, 256> letters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) letters[byte] = stands_for_itself(byte) ? byte : next++;
  return letters;
}();

constexpr std::array<int16_t, kLetters> kLetterBytes = [] {
  std::array<int16_t, kLetters> bytes{};
  bytes.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) bytes[kByteLetters[byte]] = static_cast<int16_t>(byte);
  return bytes;
}();

}  // namespace

const std::array<char32_t, 256>& byte_letters() { return kByteLetters; }

std::string to_byte_letters(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) append_utf8(text, kByteLetters[static_cast<uint8_t>(c)]);
  return text;
}

std::optional<std::string> from_byte_letters(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const Utf8Character letter = first_character(text);
    if (letter.code_point >= kLetters || kLetterBytes[letter.code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kLetterBytes[letter.code_point]);
    text.remove_prefix(letter.length);
  }
  return bytes;
}

}  // namespace nf
