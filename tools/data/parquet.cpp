#include "tools/data/parquet.h"

#include <zlib.h>

#include <algorithm>

#include "nf/error.h"
#include "tools/data/parquet_thrift.h"
#include "tools/data/parquet_values.h"
#include "tools/data/readers.h"
#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

using namespace parquet;

constexpr std::string_view kMagic = "PAR1", kEncryptedMagic = "PARE";
constexpr int64_t kTail = 8;  // length of the footer, and the magic bytes
constexpr int32_t kLargestPage = 1 << 30;
constexpr int32_t kMostValues = 1 << 26;  // of a page

std::string read_bytes(const RandomFile& file, int64_t offset, int64_t count) {
  std::string bytes(static_cast<size_t>(count), '\0');
  file.read(offset, bytes);
  return bytes;
}

uint32_t little_endian_32(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 4; i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i - 1]);
  return value;
}

// Reads the pages of one column chunk and hands out its values.
class ChunkReader {
 public:
  ChunkReader(const RandomFile& file, const Chunk& chunk, const Column& column, int64_t first_row,
              const ParquetFile::StringVisitor& visitor)
      : file_(file), chunk_(chunk), column_(column), row_(first_row), visitor_(visitor) {}

  void read() {
    int64_t at = chunk_.begin, left = chunk_.values;
    const int64_t end = chunk_.begin + chunk_.size;
    while (left > 0) {
      require(at < end, "its pages end {} values early", left);
      const PageHeader page = read_header(at, end - at);
      at += static_cast<int64_t>(page.bytes);
      require(page.packed_size >= 0 && page.packed_size <= end - at && page.unpacked_size >= 0 &&
                  page.unpacked_size <= kLargestPage,
              "a page of {} bytes, {} unpacked, where {} are left", page.packed_size, page.unpacked_size,
              end - at);
      if (page.kind == PageKind::dictionary) {
        read_dictionary_page(page, at);
      } else if (page.kind != PageKind::index) {
        require(page.values >= 0 && page.values <= std::min<int64_t>(left, kMostValues),
                "a page of {} values, where {} are left", page.values, left);
        read_data_page(page, at);
        left -= page.values;
      }
      at += page.packed_size;
    }
  }

 private:
  // Headers are a few bytes, but may hold the least and the largest value of their page.
  PageHeader read_header(int64_t at, int64_t most) {
    constexpr int64_t kUsual = 1 << 10, kLongest = 1 << 24;
    for (int64_t size = kUsual;; size *= 16) {
      packed_ = read_bytes(file_, at, std::min(size, most));
      try {
        return parse_page_header(packed_);
      } catch (const CompactReader::Short&) {
        if (size >= most || size >= kLongest) throw;
      }
    }
  }

  void read_packed(const PageHeader& page, int64_t at) {
    packed_.resize(static_cast<size_t>(page.packed_size));
    file_.read(at, packed_);
    if (!page.crc) return;
    const auto sum =
        static_cast<uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(packed_.data()), packed_.size()));
    require(sum == *page.crc, "the checksum of a page is {:08x}, not {:08x}", sum, *page.crc);
  }

  void read_dictionary_page(const PageHeader& page, int64_t at) {
    const auto encoding = static_cast<Encoding>(page.encoding);
    require(encoding == Encoding::plain || encoding == Encoding::plain_dictionary,
            "a dictionary in the encoding {}", encoding_name(page.encoding));
    read_packed(page, at);
    unpack(chunk_.codec, packed_, static_cast<size_t>(page.unpacked_size), dictionary_bytes_);
    dictionary_ = read_dictionary(dictionary_bytes_, page.values);
  }

  void read_data_page(const PageHeader& page, int64_t at) {
    read_packed(page, at);
    std::string_view packed = packed_, levels, values;
    if (page.kind == PageKind::data_v2) {
      const int64_t repetition = page.repetition_bytes, definition = page.definition_bytes;
      require(repetition >= 0 && definition >= 0 && repetition + definition <= page.packed_size &&
                  repetition + definition <= page.unpacked_size,
              "levels of {} and {} bytes in a page of {}", repetition, definition, page.packed_size);
      levels = packed.substr(static_cast<size_t>(repetition), static_cast<size_t>(definition));
      packed.remove_prefix(static_cast<size_t>(repetition + definition));
      const int64_t size = page.unpacked_size - repetition - definition;
      if (page.packed_values && chunk_.codec != static_cast<int32_t>(Codec::none) && size > 0) {
        unpack(chunk_.codec, packed, static_cast<size_t>(size), unpacked_);
        values = unpacked_;
      } else {
        values = packed;
      }
    } else {
      unpack(chunk_.codec, packed, static_cast<size_t>(page.unpacked_size), unpacked_);
      values = unpacked_;
      if (column_.optional) {
        require(page.level_encoding == static_cast<int32_t>(Encoding::rle),
                "levels in the encoding {} are not supported", encoding_name(page.level_encoding));
        require(values.size() >= 4 && little_endian_32(values) <= values.size() - 4,
                "the levels of a page are longer than it");
        levels = values.substr(4, little_endian_32(values));
        values.remove_prefix(4 + levels.size());
      }
    }
    visit_values(page, levels, values);
  }

  void visit_values(const PageHeader& page, std::string_view levels, std::string_view values) {
    const int64_t count = column_.optional ? count_present(levels, page.values) : page.values;
    const auto reader = read_byte_arrays(values, page.encoding, count, dictionary_);
    HybridReader present(levels, 1);
    for (int64_t left = page.values; left > 0;) {
      const auto run = column_.optional ? present.next(left) : HybridReader::Run{1, left};
      for (int64_t i = 0; i < run.count && run.value != 0; ++i) visitor_(row_ + i, reader->next());
      row_ += run.count;
      left -= run.count;
    }
  }

  static int64_t count_present(std::string_view levels, int64_t values) {
    HybridReader present(levels, 1);
    int64_t count = 0;
    while (values > 0) {
      const HybridReader::Run run = present.next(values);
      require(run.value <= 1, "a level of {}, where 1 is the highest", run.value);
      if (run.value == 1) count += run.count;
      values -= run.count;
    }
    return count;
  }

  const RandomFile& file_;
  const Chunk& chunk_;
  const Column& column_;
  int64_t row_;
  const ParquetFile::StringVisitor& visitor_;
  std::string packed_, unpacked_, dictionary_bytes_;
  std::vector<std::string_view> dictionary_;  // views of the bytes
};

std::vector<std::string> names_of(const std::vector<Column>& columns, bool text_only) {
  std::vector<std::string> names;
  for (const Column& column : columns)
    if (!text_only || column.text) names.push_back(column.name);
  return names;
}

}  // namespace

ParquetFile::ParquetFile(const std::filesystem::path& path) : file_(path) {
  const std::string name = path.string();
  require(file_.size() >= static_cast<int64_t>(kMagic.size()) + kTail, "data: {}: not a Parquet file", name);
  const std::string head = read_bytes(file_, 0, 4), tail = read_bytes(file_, file_.size() - kTail, kTail);
  require(!tail.ends_with(kEncryptedMagic), "data: {}: an encrypted Parquet file, which is not supported",
          name);
  require(head == kMagic && tail.ends_with(kMagic), "data: {}: not a Parquet file, or cut short", name);
  const int64_t footer = little_endian_32(tail);
  data_end_ = file_.size() - kTail - footer;
  require(data_end_ >= static_cast<int64_t>(kMagic.size()), "data: {}: a footer of {} bytes in a file of {}",
          name, footer, file_.size());
  try {
    metadata_ = parse_file_metadata(read_bytes(file_, data_end_, footer));
  } catch (const Error& error) {
    fail("data: {}: damaged Parquet footer: {}", name, error.what());
  }
}

void ParquetFile::read_strings(std::string_view name, const StringVisitor& visitor) const {
  const auto column = std::find_if(columns().begin(), columns().end(),
                                   [&](const Column& candidate) { return candidate.name == name; });
  const auto check = [&](bool good, std::string_view what) {
    if (!good) fail("data: {}: column \"{}\" {}", file_.path().string(), name, what);
  };
  check(column != columns().end(), "does not exist");
  check(!column->nested, "is nested (a struct, list or map); texts are read from plain string columns");
  check(column->binary, "holds no strings");

  int64_t row = 1;
  bool visiting = false;  // what the visitor throws is its own affair
  const StringVisitor guarded = [&](int64_t at, std::string_view text) {
    visiting = true;
    visitor(at, text);
    visiting = false;
  };
  for (size_t i = 0; i < metadata_.row_groups.size(); ++i) {
    const RowGroup& group = metadata_.row_groups[i];
    const Chunk& chunk = group.chunks[column->leaf];
    try {
      require(!chunk.elsewhere, "it is encrypted or in another file, which is not supported");
      require(chunk.values == group.rows, "{} values in {} rows", chunk.values, group.rows);
      require(chunk.begin >= static_cast<int64_t>(kMagic.size()) && chunk.begin <= data_end_ &&
                  chunk.size >= 0 && chunk.size <= data_end_ - chunk.begin,
              "bytes {} to {} + {} are outside of the file", chunk.begin, chunk.begin, chunk.size);
      ChunkReader(file_, chunk, *column, row, guarded).read();
    } catch (const Error& error) {
      if (visiting) throw;
      fail("data: {}: row group {}, column \"{}\": {}", file_.path().string(), i, name, error.what());
    }
    row += group.rows;
  }
}

void read_parquet(const std::filesystem::path& path, const SourceOptions& options,
                  const DocumentVisitor& visitor) {
  const ParquetFile file(path);
  const auto& columns = file.columns();
  const auto named = std::find_if(columns.begin(), columns.end(),
                                  [&](const Column& column) { return column.name == options.text_field; });
  const std::string name =
      named != columns.end() && (named->binary || named->nested)
          ? options.text_field  // byte arrays that nobody has marked as text may be one
          : choose_text_field(options, names_of(columns, true), names_of(columns, false), path.string());
  file.read_strings(name, [&](int64_t row, std::string_view text) {
    if (const auto bad = find_invalid_utf8(text))
      fail("data: {}: row {}, column \"{}\": invalid UTF-8 at byte {} (0x{:02X})", path.string(), row, name,
           *bad, static_cast<uint8_t>(text[*bad]));
    visit_text(text, path, row, visitor);
  });
}

}  // namespace nf
