// Tokenizers as other libraries read them.
#pragma once

#include <string>
#include <vector>

#include "tools/tokenizer/tokenizer.h"

namespace nf {

// tokenizer.json for Hugging Face's library, which gives the same ids for every text; only that a special
// token spelled out in a text becomes that token there. The byte tokenizer is a byte-level BPE without
// merges, the char tokenizer a BPE of characters without merges; a tokenizer that came from such a file is
// that file.
std::string hugging_face_tokenizer(const Tokenizer& tokenizer);

// tokenizer_config.json beside it, and generation_config.json: the special tokens, by spelling and by id.
// `longest`: tokens that the model takes.
std::string tokenizer_config(const Tokenizer& tokenizer, int64_t longest);
std::string generation_config(const Tokenizer& tokenizer);

// The vocabulary of a byte-level BPE as GGUF holds it.
struct ByteLevelVocabulary {
  enum Type : int32_t {
    kNormal = 1,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5
  };  // as llama.cpp numbers them

  std::vector<std::string> tokens;  // by id, in GPT-2's spelling of bytes
  std::vector<int32_t> types;
  std::vector<std::string> merges;  // "left right", by rank
  std::string pre_tokenizer;        // llama.cpp's name for how text is cut into words
};

// Throws Error `gguf: …` for tokenizers that are no byte-level BPE, and for ways of cutting text that
// llama.cpp has no name for.
ByteLevelVocabulary byte_level_vocabulary(const Tokenizer& tokenizer);

}  // namespace nf
