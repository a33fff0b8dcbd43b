// Configs as other people write them, Hugging Face's classes and upstream NanoFormer, brought to our own
// keys. Private to config's own sources.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace nf {

// Other names of our keys become ours. Throws Error, which begins with `source`, where two names of one key
// differ.
void replace_spellings(nlohmann::json& object, std::string_view source);

// What is left of a class of Hugging Face: its type becomes a variant with the class's defaults, keys without
// effect go. Leaves our keys alone; spellings have been replaced. Throws Error for what is not supported.
void canonicalise(nlohmann::json& object, std::string_view source);

}  // namespace nf
