// Documents from files: text, JSON lines and fortune files behind one interface.
//
//     auto source = open_documents({"corpus/", "more/*.jsonl"});
//     source->visit([&](const Document& document) { … document.text … });
//
// Formats, by the first that fits:
//   .jsonl .ndjson   one JSON object per line, the text in one of its fields; blank lines are skipped
//   fortune          entries separated by lines that hold only "%": a file beside which FILE.dat stands,
//                    or one without an extension that has such a line in its first MiB
//   .txt             one document per file
//   anything else    skipped inside a folder or pattern; when named itself, text (or fortune, by its lines)
// Entries and files with no text at all are skipped. A byte order mark at the start of a file is dropped;
// otherwise bytes are passed on as they are, line ends included. The line end before a fortune's "%" is not
// part of the text.
//
// Files are untrusted: invalid UTF-8, malformed JSON and unreadable files throw Error with the file and the
// place.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

struct Document {
  std::string_view text;              // valid UTF-8, not empty; lives until the visitor returns
  const std::filesystem::path& file;  // where it comes from
  int64_t line;                       // its first line, from 1; 0 when it is the whole file

  std::string origin() const;  // "corpus/a.jsonl:17", for messages
};

using DocumentVisitor = std::function<void(const Document&)>;

class DocumentSource {
 public:
  virtual ~DocumentSource() = default;

  // Calls the visitor for every document, always in the same order. Holds one document in memory at a time
  // (and for a text file that is the file). May be called again; what the visitor throws passes through.
  virtual void visit(const DocumentVisitor& visitor) const = 0;

  // "3 files, corpus/a.txt …", for messages.
  virtual std::string description() const = 0;
};

enum class DocumentFormat : uint8_t {
  automatic,  // by the rules above
  text,       // one document per file
  lines,      // one document per line (never chosen by itself)
  jsonl,
  fortune,
};

// "auto", "text", "lines", "jsonl", "fortune"; throws Error that lists them.
DocumentFormat parse_document_format(std::string_view name);

struct SourceOptions {
  DocumentFormat format = DocumentFormat::automatic;  // another value forces it on every file
  std::string text_field = "text";                    // of JSON lines
};

// A path is a file, a folder (searched recursively; hidden entries and links to folders are not followed), or
// a pattern with * ? [] when nothing has that very name. Paths keep their order; what a folder or pattern
// gives is sorted; a file reached twice is read once. Throws Error for a path that is missing, unreadable or
// gives no file.
std::unique_ptr<DocumentSource> open_documents(const std::vector<std::string>& paths,
                                               const SourceOptions& options = {});

}  // namespace nf
