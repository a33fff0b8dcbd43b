// Texts from Apache Parquet files: the string columns, and nothing else.
//
//     const ParquetFile file("corpus.parquet");
//     for (const parquet::Column& column : file.columns()) …
//     file.read_strings("text", [&](int64_t row, std::string_view text) { … });
//
// Read are byte arrays in every encoding that the format has for them (plain, dictionary, delta-length and
// delta), in data pages of both versions, packed with snappy, gzip, zstd or not at all, with nulls, in any
// number of row groups. Columns inside structs, lists and maps are not read, nor are encrypted files and
// other codecs: an Error says so by name.
//
// A file is untrusted: every offset, length and count is checked before use, a page's checksum where there is
// one, and memory is bounded by two pages and a dictionary of the column that is read (at most 1 GiB each).
// Error names the file, row group and what is wrong. Source: the specification in apache/parquet-format.
#pragma once

#include <functional>

#include "tools/data/parquet_format.h"
#include "tools/data/random_file.h"

namespace nf {

class ParquetFile {
 public:
  // Reads the footer. Name.gz and name.zst are unpacked first.
  explicit ParquetFile(const std::filesystem::path& file);

  // Of the schema's top level, in its order.
  const std::vector<parquet::Column>& columns() const { return metadata_.columns; }
  int64_t rows() const { return metadata_.rows; }

  // Calls visitor for every value of the column that is not null, with the number of its row, from 1. The
  // text is valid until the visitor returns, and is not checked to be UTF-8. Error for a column that there is
  // not or that holds no byte arrays.
  using StringVisitor = std::function<void(int64_t row, std::string_view text)>;
  void read_strings(std::string_view column, const StringVisitor& visitor) const;

 private:
  RandomFile file_;
  int64_t data_end_ = 0;  // where the footer begins
  parquet::FileMetadata metadata_;
};

}  // namespace nf
