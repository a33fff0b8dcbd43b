// Configs as other people write them, Hugging Face's classes and upstream NanoFormer, brought to our own
// keys. Private to config's own sources.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace nf {

// Other names of our keys become ours. Throws Error, which begins with `source`, where two names of one key
// differ or a value cannot be brought over.
void replace_spellings(nlohmann::json& object, std::string_view source);

// After replace_spellings(): a class of Hugging Face becomes the variant it is, with the class's defaults,
// its nulls become what they stand for, and keys without effect go. Throws Error for what is not supported.
void canonicalise(nlohmann::json& object, std::string_view source);

}  // namespace nf
