#include "tools/data/readers.h"

#include <nf/error.h>
#include <simdjson.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::ifstream open(const fs::path& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  require(in.is_open(), "data: cannot open {}: {}", file.string(), std::strerror(errno));
  return in;
}

// `offset`: where `bytes` begin in the file.
void check_utf8(std::string_view bytes, size_t offset, const fs::path& file) {
  const auto bad = find_invalid_utf8(bytes);
  if (bad)
    fail("data: {}: invalid UTF-8 at byte {} (0x{:02X}); convert the file to UTF-8", file.string(),
         offset + *bad, static_cast<uint8_t>(bytes[*bad]));
}

// Reads a file line by line, keeping count of the place.
class LineReader {
 public:
  explicit LineReader(const fs::path& file) : file_(file), in_(open(file)) {}

  // The next line with its line end, if it has one; false at the end.
  bool next() {
    offset_ += line_.size() + skipped_;
    skipped_ = 0;
    errno = 0;
    if (!std::getline(in_, line_)) {
      require(!in_.bad(), "data: cannot read {}: {}", file_.string(), std::strerror(errno));
      return false;
    }
    if (!in_.eof()) line_ += '\n';
    if (number_++ == 0 && line_.starts_with(kByteOrderMark)) {
      line_.erase(0, kByteOrderMark.size());
      skipped_ = kByteOrderMark.size();
    }
    return true;
  }

  std::string& line() { return line_; }
  int64_t number() const { return number_; }            // of the line, from 1
  size_t offset() const { return offset_ + skipped_; }  // of its first byte in the file

 private:
  const fs::path& file_;
  std::ifstream in_;
  std::string line_;
  int64_t number_ = 0;
  size_t offset_ = 0, skipped_ = 0;
};

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

}  // namespace

void read_text(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  std::ifstream in = open(file);
  std::error_code ignored;
  const uintmax_t size = fs::file_size(file, ignored);
  std::string bytes;
  if (!ignored) bytes.reserve(size + 1);
  char block[1 << 16];
  errno = 0;
  while (in.read(block, sizeof block), in.gcount() > 0) bytes.append(block, static_cast<size_t>(in.gcount()));
  require(!in.bad(), "data: cannot read {}: {}", file.string(), std::strerror(errno));

  check_utf8(bytes, 0, file);
  std::string_view text = bytes;
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (!text.empty()) visitor({text, file, 0});
}

void read_lines(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  for (LineReader reader(file); reader.next();) {
    const std::string_view text = without_line_end(reader.line());
    check_utf8(text, reader.offset(), file);
    if (!text.empty()) visitor({text, file, reader.number()});
  }
}

void read_jsonl(const fs::path& file, const SourceOptions& options, const DocumentVisitor& visitor) {
  const std::string missing = fmt::format("there is no field \"{}\"", options.text_field);
  const std::string mistyped = fmt::format("field \"{}\" is not a string", options.text_field);
  simdjson::dom::parser parser;
  for (LineReader reader(file); reader.next();) {
    std::string& line = reader.line();
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    check_utf8(line, reader.offset(), file);

    const auto check = [&](bool good, std::string_view what) {
      if (!good) fail("data: {}:{}: {}", file.string(), reader.number(), what);
    };
    line.reserve(line.size() + simdjson::SIMDJSON_PADDING);  // the parser reads that far past the end
    simdjson::dom::element document, field;
    simdjson::dom::object object;
    std::string_view text;
    const auto error = parser.parse(line.data(), line.size(), false).get(document);
    if (error) check(false, fmt::format("not JSON: {}", simdjson::error_message(error)));
    check(document.get(object) == simdjson::SUCCESS, "expected a JSON object");
    check(object.at_key(options.text_field).get(field) == simdjson::SUCCESS, missing);
    check(field.get(text) == simdjson::SUCCESS, mistyped);
    if (!text.empty()) visitor({text, file, reader.number()});
  }
}

void read_fortune(const fs::path& file, const SourceOptions&, const DocumentVisitor& visitor) {
  std::string entry;
  int64_t first_line = 1;
  size_t first_byte = 0;
  const auto finish_entry = [&] {
    check_utf8(entry, first_byte, file);
    const std::string_view text = without_line_end(entry);
    if (!text.empty()) visitor({text, file, first_line});
    entry.clear();
  };
  for (LineReader reader(file); reader.next();) {
    if (without_line_end(reader.line()) == "%") {
      finish_entry();
      continue;
    }
    if (entry.empty()) {
      first_line = reader.number();
      first_byte = reader.offset();
    }
    entry += reader.line();
  }
  finish_entry();
}

bool has_fortune_separator(const fs::path& file) {
  std::ifstream in = open(file);
  std::string head(size_t{1} << 20, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  const bool cut = in.gcount() == static_cast<std::streamsize>(head.size());
  head.resize(static_cast<size_t>(in.gcount()));

  for (std::string_view rest = head; !rest.empty();) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos && cut) return false;  // half a line tells nothing
    if (without_line_end(rest.substr(0, end)) == "%") return true;
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return false;
}

}  // namespace nf
