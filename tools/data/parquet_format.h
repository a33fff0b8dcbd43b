// The parts of Parquet's metadata that reading texts takes (parquet.thrift of apache/parquet-format).
//
// Both parsers check what a number means by itself; that offsets lie inside the file is the reader's to
// check.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nf::parquet {

enum class Repetition : uint8_t { required = 0, optional = 1, repeated = 2 };
enum class Codec : int32_t { none = 0, snappy = 1, gzip = 2, zstd = 6 };  // others are refused by name

enum class Encoding : int32_t {
  plain = 0,
  plain_dictionary = 2,  // the old name of rle_dictionary; in a dictionary page, of plain
  rle = 3,
  delta_length_byte_array = 6,
  delta_byte_array = 7,
  rle_dictionary = 8,
};

// A column as the schema's top level names it.
struct Column {
  std::string name;
  bool nested = false;    // a struct, list or map
  bool binary = false;    // byte arrays of any meaning
  bool text = false;      // byte arrays that are marked as UTF-8
  bool optional = false;  // may be null
  size_t leaf = 0;        // its place among the chunks of a row group (of a nested one, the first)
};

// The values of one column in one row group: pages back to back.
struct Chunk {
  int64_t values = 0;
  int64_t begin = 0, size = 0;  // in the file
  int32_t codec = 0;            // as written: an unknown one is told only when it is needed
  bool elsewhere = false;       // in another file, or encrypted
};

struct RowGroup {
  int64_t rows = 0;
  std::vector<Chunk> chunks;
};

struct FileMetadata {
  int64_t rows = 0;
  std::vector<Column> columns;
  size_t leaves = 0;  // chunks of every row group
  std::vector<RowGroup> row_groups;
};

// Throws Error that tells what is wrong, without the file's name.
FileMetadata parse_file_metadata(std::string_view footer);

enum class PageKind : uint8_t { data = 0, index = 1, dictionary = 2, data_v2 = 3 };

struct PageHeader {
  PageKind kind = PageKind::data;
  int32_t unpacked_size = 0, packed_size = 0;
  std::optional<uint32_t> crc;
  int32_t values = 0;  // nulls included
  int32_t encoding = 0;
  int32_t level_encoding = 3;    // of the definition levels, in a data page of version 1
  int32_t definition_bytes = 0;  // version 2: levels lie before the values and are never packed
  int32_t repetition_bytes = 0;
  bool packed_values = true;  // version 2
  size_t bytes = 0;           // of the header itself
};

// The header at the start of `bytes`. Throws CompactReader::Short when it goes on behind them.
PageHeader parse_page_header(std::string_view bytes);

std::string_view codec_name(int32_t codec);
std::string_view encoding_name(int32_t encoding);

}  // namespace nf::parquet
