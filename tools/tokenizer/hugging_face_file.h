// Hugging Face's tokenizer.json as we write it.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace nf {

// An entry of "added_tokens" that is no text.
nlohmann::ordered_json special_token(int64_t id, std::string_view content);

// The pre-tokenizer and decoder of byte-level vocabularies. `use_regex`: it cuts text by GPT-2's pattern.
nlohmann::ordered_json byte_level(bool use_regex);

struct BpeFile {
  nlohmann::ordered_json vocabulary, merges;  // an object and an array
  nlohmann::ordered_json added_tokens;        // an array
  nlohmann::ordered_json pre_tokenizer, decoder;
};

// The whole file, of a BPE without normaliser, dropout or unknown token.
nlohmann::ordered_json bpe_file(BpeFile parts);

}  // namespace nf
