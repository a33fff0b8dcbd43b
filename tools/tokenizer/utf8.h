// UTF-8 as the readers, the tokenizers and the terminal need it (RFC 3629: no overlong forms, no surrogates,
// nothing above U+10FFFF).
//
// All functions are pure and thread-safe; none of them throws but append_utf8's allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nf {

// Some editors begin a file with it; it is no part of the text.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// What stands at the start of some bytes.
struct Utf8Character {
  enum class Kind : uint8_t {
    whole,       // a well-formed character
    incomplete,  // the bytes end inside a character that is well-formed so far
    invalid,     // no character begins so
  };
  Kind kind;
  // Bytes taken: the character; or everything that is left of an incomplete one; or, when invalid, the
  // longest start of a character (at least 1 byte), which decoders replace by one U+FFFD (Unicode 15,
  // section 3.9).
  uint8_t length;
  char32_t code_point;  // 0 unless whole
};

// Reads the first character; `bytes` must not be empty.
Utf8Character first_character(std::string_view bytes);

// The offset of the first byte that is not part of a whole well-formed character, or nullopt.
std::optional<size_t> find_invalid_utf8(std::string_view bytes);

// Appends the 1 to 4 bytes of a code point (a Unicode scalar value).
void append_utf8(std::string& text, char32_t code_point);

// Number of characters (code points) of well-formed text; what the terminal shows in one column each.
size_t count_characters(std::string_view text);

// Turns a stream of bytes, cut anywhere, into whole characters, for showing text while it is generated.
// Bytes that can never become a character come out as U+FFFD. Holds back at most 3 bytes.
class Utf8Stream {
 public:
  // Returns every character completed by these bytes.
  std::string feed(std::string_view bytes);

  // At the end of the stream: U+FFFD when it ended inside a character, else nothing.
  std::string finish();

 private:
  std::string pending_;  // the start of a character
};

}  // namespace nf
