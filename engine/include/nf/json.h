// JSON and other text from outside, before anything believes it.
#pragma once

#include <string>
#include <string_view>

namespace nf {

// Checks that `text` is JSON: syntax, UTF-8, no key twice in an object, not nested deeper than 64. Throws
// Error "source: line 3, column 7: …". What passes can be parsed without surprises.
void check_json(std::string_view text, std::string_view source);

// Text from outside, made fit for a one-line message: control bytes escaped, cut after 120 characters.
std::string printable(std::string_view text);

}  // namespace nf
