// The edition of Unicode that texts are cut by: 16, as in Hugging Face's tokenizers. Regular expressions know
// the edition of the PCRE2 that is installed, 14 or later; what came after 14 is listed here, so that the
// same text gives the same tokens everywhere.
#pragma once

#include <string>
#include <string_view>

namespace nf {

// The characters of Unicode 15, 15.1 and 16 that have a property, as the inside of a set of PCRE2
// ("\\x{1C89}\\x{A7CB}-\\x{A7CC}"). `property` is a general category ("L", "Lu") or the name of a script;
// empty for one that gained no character.
std::string newer_characters(std::string_view property);

}  // namespace nf
