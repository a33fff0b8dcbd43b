// Hugging Face's tokenizer.json, read into a BpeTokenizer that gives the same ids.
//
//   model           BPE: merges as "a b" or ["a", "b"], unk_token, fuse_unk, byte_fallback, ignore_merges
//   normalizer      NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence
//   pre_tokenizer   ByteLevel (last), Split, Digits, Metaspace, Sequence
//   post_processor  ByteLevel, TemplateProcessing with at most one token on either side, Sequence
//   decoder         ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, Sequence
//   added_tokens    all of it
//
// Anything else is refused by its name: a tokenizer that nearly fits would give other ids. The token that
// begins documents is the template's; the one that ends them the template's, or a special token whose name
// says so
// ("<|endoftext|>", "</s>", …).
//
// Format: what the tokenizers library of 0.13 and later writes; it has no written specification.
#pragma once

#include <memory>
#include <string>

#include "tools/tokenizer/bpe_tokenizer.h"

namespace nf {

// `text` is the file. Null when it holds no model: it is another kind of tokenizer then. Throws Error
// "SOURCE: …" for what is no JSON, and "tokenizer: SOURCE: …".
std::unique_ptr<BpeTokenizer> parse_hugging_face(std::string text, const std::string& source);

}  // namespace nf
