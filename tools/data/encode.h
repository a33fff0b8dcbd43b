// Text to tokens with all cores, in the order of the documents.
#pragma once

#include "tools/data/source.h"
#include "tools/data/token_file.h"
#include "tools/tokenizer/tokenizer.h"

namespace nf {

// Reads every document on the calling thread, encodes on `threads` others, and writes in order: the file
// depends on neither. Memory: a few MiB per thread. Shows progress on standard error when it takes long.
// Throws what the source and the writer throw, and Error with a document's origin when the tokenizer refuses
// it (the first such document, whatever the threads).
void encode_documents(const DocumentSource& source, const Tokenizer& tokenizer, int threads,
                      TokenFileWriter& writer);

}  // namespace nf
