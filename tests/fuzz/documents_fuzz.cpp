// Any bytes as a file of documents, in every format.
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tools/data/source.h"
#include "tools/tokenizer/utf8.h"

using namespace nf;
using namespace nf::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = folder().write("input", text_of(data, size));
  for (const DocumentFormat format : {DocumentFormat::automatic, DocumentFormat::text, DocumentFormat::lines,
                                      DocumentFormat::jsonl, DocumentFormat::fortune}) {
    const auto source = open_documents({path}, {.format = format});
    std::vector<std::string> documents;
    const bool accepted = accepts([&] {
      source->visit([&](const Document& document) {
        expect(!document.text.empty(), "a document has text");
        expect(!find_invalid_utf8(document.text), "a document is valid UTF-8");
        documents.emplace_back(document.text);
      });
    });
    size_t next = 0;
    const bool accepted_again = accepts([&] {
      source->visit([&](const Document& document) {
        expect(next < documents.size() && documents[next++] == document.text,
               "a second visit gives the same");
      });
    });
    expect(accepted_again == accepted && next == documents.size(), "a second visit ends alike");
  }
  return 0;
}
