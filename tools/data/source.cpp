#include "tools/data/source.h"

#include <nf/error.h>
#include <xxhash.h>

#include <algorithm>
#include <optional>

#include "tools/data/byte_stream.h"
#include "tools/data/files.h"
#include "tools/data/random_file.h"
#include "tools/data/readers.h"
#include "tools/data/shuffle.h"
#include "tools/data/slow_progress.h"

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
    {DocumentFormat::fortune, "fortune", read_fortune}, {DocumentFormat::json, "json", read_json},
};

// nullopt: not a file of documents, as far as one can tell.
std::optional<DocumentFormat> detect_format(const FoundFile& file) {
  const std::string extension = unpacked_name(file.path).extension().string();
  if (extension == ".jsonl" || extension == ".ndjson") return DocumentFormat::jsonl;
  if (extension == ".json" && file.named) return DocumentFormat::json;
  if (extension == ".parquet") return DocumentFormat::parquet;
  std::error_code ignored;
  if (fs::is_regular_file(file.path.string() + ".dat", ignored)) return DocumentFormat::fortune;
  if (extension == ".txt") return DocumentFormat::text;
  if ((extension.empty() || file.named) && has_fortune_separator(file.path)) return DocumentFormat::fortune;
  if (file.named) return DocumentFormat::text;
  return std::nullopt;
}

// FILE.dat, which says where the entries of FILE begin.
bool is_fortune_index(const fs::path& path) {
  std::error_code ignored;
  return path.extension() == ".dat" && fs::is_regular_file(fs::path(path).replace_extension(), ignored);
}

// XXH3-64 of a file, which is read in blocks: a mapping would count as memory that the program uses.
uint64_t hash_content(const fs::path& path, const std::function<void(int64_t)>& watch) {
  const std::unique_ptr<XXH3_state_t, decltype(&::XXH3_freeState)> state(::XXH3_createState(),
                                                                         &::XXH3_freeState);
  require(state != nullptr, "data: out of memory");
  ::XXH3_64bits_reset(state.get());
  const RandomFile file(path, RandomFile::Packed::as_it_is);
  std::vector<char> block(size_t{1} << 20);
  for (int64_t at = 0; at < file.size();) {
    const auto bytes = std::span(block).first(
        static_cast<size_t>(std::min(file.size() - at, static_cast<int64_t>(block.size()))));
    file.read(at, bytes);
    ::XXH3_64bits_update(state.get(), bytes.data(), bytes.size());
    at += static_cast<int64_t>(bytes.size());
    watch(static_cast<int64_t>(bytes.size()));
  }
  return ::XXH3_64bits_digest(state.get());
}

struct SourceFile {
  fs::path path;
  const FormatEntry* format;
};

class FileSource final : public DocumentSource {
 public:
  FileSource(std::vector<SourceFile> files, std::vector<fs::path> left_out, SourceOptions options)
      : files_(std::move(files)), left_out_(std::move(left_out)), options_(std::move(options)) {}

  void visit(const DocumentVisitor& visitor) const override {
    for (const SourceFile& file : files_) file.format->read(file.path, options_, visitor);
  }

  uint64_t fingerprint() const override {
    uint64_t hash = mix_bits(static_cast<uint64_t>(files_.size()));
    const auto add = [&](uint64_t part) { hash = mix_bits(hash ^ part); };
    for (const char letter : options_.text_field) add(static_cast<uint8_t>(letter));
    int64_t total = 0, done = 0;
    std::error_code ignored;
    for (const SourceFile& file : files_) total += static_cast<int64_t>(fs::file_size(file.path, ignored));
    SlowProgress progress("reading, MB", total);
    for (const SourceFile& file : files_) {
      add(static_cast<uint64_t>(file.format->format));
      add(static_cast<uint64_t>(unpacked_name(file.path) != file.path));
      add(hash_content(file.path, [&](int64_t bytes) { progress.update(done += bytes); }));
    }
    return hash;
  }

  std::string description() const override {
    const std::string first = files_.front().path.string();
    return files_.size() == 1 ? first : fmt::format("{} files, {} …", files_.size(), first);
  }

  std::string left_out() const override {
    if (left_out_.empty()) return {};
    const std::string others = left_out_.size() == 1 ? "" : fmt::format(" and {} more", left_out_.size() - 1);
    return fmt::format(
        "data: left out {}{}, whose names do not say that they hold texts; a file that is named "
        "itself is read",
        left_out_.front().string(), others);
  }

 private:
  std::vector<SourceFile> files_;
  std::vector<fs::path> left_out_;
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
  fail("data: unknown document format '{}'; known are auto, text, lines, jsonl, json, parquet, fortune",
       name);
}

std::unique_ptr<DocumentSource> open_documents(const std::vector<std::string>& paths,
                                               const SourceOptions& options) {
  require(!paths.empty(), "data: no path given; name files, folders or patterns");
  std::vector<SourceFile> files;
  std::vector<fs::path> left_out;
  for (const FoundFile& file : find_files(paths, options.hub)) {
    const auto format = options.format == DocumentFormat::automatic ? detect_format(file) : options.format;
    if (format)
      files.push_back({file.path, &entry_of(*format)});
    else if (!is_fortune_index(file.path))
      left_out.push_back(file.path);
  }
  require(!files.empty(), "data: no .txt, .jsonl, .ndjson, .parquet (also .gz, .zst) or fortune file in {}",
          fmt::join(paths, ", "));
  return std::make_unique<FileSource>(std::move(files), std::move(left_out), options);
}

}  // namespace nf
