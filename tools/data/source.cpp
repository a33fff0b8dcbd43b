#include "tools/data/source.h"

#include <nf/error.h>

#include <optional>

#include "tools/data/byte_stream.h"
#include "tools/data/files.h"
#include "tools/data/readers.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

struct FormatEntry {
  DocumentFormat format;
  std::string_view name;
  void (*read)(const fs::path&, const SourceOptions&, const DocumentVisitor&);
};

constexpr FormatEntry kFormats[] = {
    {DocumentFormat::text, "text", read_text},          {DocumentFormat::lines, "lines", read_lines},
    {DocumentFormat::jsonl, "jsonl", read_jsonl},       {DocumentFormat::parquet, "parquet", read_parquet},
    {DocumentFormat::fortune, "fortune", read_fortune},
};

// nullopt: not a file of documents, as far as one can tell.
std::optional<DocumentFormat> detect_format(const FoundFile& file) {
  const std::string extension = unpacked_name(file.path).extension().string();
  if (extension == ".jsonl" || extension == ".ndjson") return DocumentFormat::jsonl;
  if (extension == ".parquet") return DocumentFormat::parquet;
  std::error_code ignored;
  if (fs::is_regular_file(file.path.string() + ".dat", ignored)) return DocumentFormat::fortune;
  if (extension == ".txt") return DocumentFormat::text;
  if ((extension.empty() || file.named) && has_fortune_separator(file.path)) return DocumentFormat::fortune;
  if (file.named) return DocumentFormat::text;
  return std::nullopt;
}

struct SourceFile {
  fs::path path;
  const FormatEntry* format;
};

class FileSource final : public DocumentSource {
 public:
  FileSource(std::vector<SourceFile> files, SourceOptions options)
      : files_(std::move(files)), options_(std::move(options)) {}

  void visit(const DocumentVisitor& visitor) const override {
    for (const SourceFile& file : files_) file.format->read(file.path, options_, visitor);
  }

  std::string description() const override {
    const std::string first = files_.front().path.string();
    return files_.size() == 1 ? first : fmt::format("{} files, {} …", files_.size(), first);
  }

 private:
  std::vector<SourceFile> files_;
  SourceOptions options_;
};

const FormatEntry& entry_of(DocumentFormat format) {
  for (const FormatEntry& entry : kFormats)
    if (entry.format == format) return entry;
  fail("data: unknown document format {}", static_cast<int>(format));
}

}  // namespace

std::string Document::origin() const {
  return line == 0 ? file.string() : fmt::format("{}:{}", file.string(), line);
}

DocumentFormat parse_document_format(std::string_view name) {
  if (name == "auto") return DocumentFormat::automatic;
  for (const FormatEntry& entry : kFormats)
    if (entry.name == name) return entry.format;
  fail("data: unknown document format '{}'; known are auto, text, lines, jsonl, parquet, fortune", name);
}

std::unique_ptr<DocumentSource> open_documents(const std::vector<std::string>& paths,
                                               const SourceOptions& options) {
  require(!paths.empty(), "data: no path given; name files, folders or patterns");
  std::vector<SourceFile> files;
  for (const FoundFile& file : find_files(paths)) {
    const auto format = options.format == DocumentFormat::automatic ? detect_format(file) : options.format;
    if (format) files.push_back({file.path, &entry_of(*format)});
  }
  require(!files.empty(), "data: no .txt, .jsonl, .parquet or fortune file in {}", fmt::join(paths, ", "));
  return std::make_unique<FileSource>(std::move(files), options);
}

}  // namespace nf
