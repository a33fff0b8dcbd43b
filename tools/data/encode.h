// Text to tokens with all cores, in the order of the documents.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "tools/data/source.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

struct EncodeOptions {
  int threads = 0;       // 0: all cores
  bool special = false;  // spellings of special tokens become these; see Tokenizer::encode_special()
};

// Takes a document, or a piece of a long one, and its ids. Both live until it returns.
using EncodedSink = std::function<void(const Document& document, std::span<const int32_t> ids)>;

// Reads every document on the calling thread, encodes on `threads` others (one: on the calling thread too),
// and hands them over in the order of the source, on the calling thread: what comes does not depend on the
// number. Memory: a few MiB per thread. Throws what the source and the sink throw, and Error with a
// document's origin when the tokenizer refuses it (the first such document, whatever the threads).
void encode_documents(const DocumentSource& source, const Tokenizer& tokenizer, const EncodeOptions& options,
                      const EncodedSink& sink);

}  // namespace nf
