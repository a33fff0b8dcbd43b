// Documents from files: text, JSON lines, Parquet and fortune files behind one interface.
//
//     auto source = open_documents({"corpus/", "more/*.jsonl.gz"});
//     source->visit([&](const Document& document) { … document.text … });
//
// Formats, by the first that fits; each may be packed, with .gz or .zst behind its name:
//   .jsonl .ndjson   one JSON object per line, the text in one of its fields; blank lines are skipped
//   .json            an array of such objects, or of strings; or JSON lines under this name. Only when named
//                    itself: inside a folder it is more often settings than a text
//   .parquet         one document per row, the text in one of its columns (see parquet.h); nulls are skipped
//   fortune          entries separated by lines that hold only "%": a file beside which FILE.dat stands,
//                    or one without an extension that has such a line in its first MiB
//   .txt             one document per file
//   anything else    left out inside a folder or pattern; when named itself, text (or fortune, by its lines)
// Entries and files with no text at all are skipped. A byte order mark at the start of a file is dropped;
// otherwise bytes are passed on as they are, line ends included. The line end before a fortune's "%" is not
// part of the text.
//
// The text of a record is in the field that SourceOptions names. Where nobody named one and there is no
// "text", the only string of the record (in JSON lines: of a file's first) is taken; otherwise Error lists
// what there is.
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

#include "tools/data/hub.h"

namespace nf {

// A document, or a piece of a long one: above 1 MiB it comes in several calls, so that no text is too large
// for memory. Pieces are cut after a line end that stands alone between characters that are no blanks, where
// every usual tokenizer begins a new token anyway; without one, after a line end or a character.
struct Document {
  std::string_view text;              // valid UTF-8, not empty; lives until the visitor returns
  const std::filesystem::path& file;  // where it comes from; lives as long as the source
  int64_t line;                       // its first line or its row, from 1; 0 when it is the whole file
  bool more = false;                  // the document goes on in the next call

  std::string origin() const;  // "corpus/a.jsonl:17", for messages
};

using DocumentVisitor = std::function<void(const Document&)>;

class DocumentSource {
 public:
  virtual ~DocumentSource() = default;

  // Calls the visitor for every document, always in the same order. Holds a few MiB in memory: a piece of a
  // text, a line of JSON, a page of Parquet. May be called again; what the visitor throws passes through.
  virtual void visit(const DocumentVisitor& visitor) const = 0;

  // A hash of everything that the documents depend on: the files' content and how it is read. Reads them.
  virtual uint64_t fingerprint() const = 0;

  // "3 files, corpus/a.txt …", for messages.
  virtual std::string description() const = 0;

  // What to tell the user about files of folders that are not read; empty: there are none.
  virtual std::string left_out() const { return {}; }
};

enum class DocumentFormat : uint8_t {
  automatic,  // by the rules above
  text,       // one document per file
  lines,      // one document per line (never chosen by itself)
  jsonl,
  parquet,
  fortune,
  json,
};

// "auto", "text", "lines", "jsonl", "json", "parquet", "fortune"; throws Error that lists them.
DocumentFormat parse_document_format(std::string_view name);

struct SourceOptions {
  DocumentFormat format = DocumentFormat::automatic;  // another value forces it on every file
  HubChoice hub = {};                                 // of datasets that are fetched
  std::string text_field = "text";                    // of JSON lines and Parquet; see above
};

// A path is an id of the Hugging Face hub (hub.h) when nothing has that name, else a file, a folder (searched
// recursively; hidden entries and links to folders are not followed), or a pattern with * ? [] when nothing
// has that very name. Paths keep their order; what a folder or pattern gives is sorted; a file reached twice
// is read once. Throws Error for a path that is missing, unreadable or gives no file.
std::unique_ptr<DocumentSource> open_documents(const std::vector<std::string>& paths,
                                               const SourceOptions& options = {});

}  // namespace nf
