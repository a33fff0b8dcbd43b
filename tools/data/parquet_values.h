// The encodings of Parquet that byte arrays come in (Encodings.md of apache/parquet-format).
//
// Every reader takes untrusted bytes: it throws Error, without the file's name, when they do not hold what
// they should, reads nothing outside of them, and allocates no more than the values need.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tools/data/parquet_format.h"

namespace nf::parquet {

// Whole numbers of `width` bits (at most 32) in the hybrid of runs and bit packing: levels, and indices of a
// dictionary.
class HybridReader {
 public:
  HybridReader(std::string_view bytes, int width);

  struct Run {
    uint32_t value;
    int64_t count;  // times it stands here; at least 1
  };
  // The next run, cut to `most` (at least 1); numbers that are packed come one by one.
  Run next(int64_t most);

 private:
  std::string_view rest_, packed_;
  int width_;
  int64_t repeated_ = 0, packed_left_ = 0;
  uint32_t value_ = 0;
  size_t bit_ = 0;  // within packed_
};

// DELTA_BINARY_PACKED: whole numbers as differences, in blocks.
class DeltaReader {
 public:
  explicit DeltaReader(std::string_view bytes);

  int64_t count() const { return count_; }
  int64_t next();                      // at most count() times
  size_t used() const { return at_; }  // bytes, once count() numbers are read

 private:
  void begin_block();
  void begin_miniblock();

  std::string_view bytes_, widths_;
  size_t at_ = 0;
  int64_t count_ = 0, read_ = 0, per_miniblock_ = 0;
  uint64_t miniblocks_ = 0, value_ = 0, least_ = 0;
  size_t miniblock_ = 0, bit_ = 0;  // in the block; within the miniblock
  int64_t left_ = 0;                // in the miniblock
  int width_ = 0;
  std::string_view packed_;
};

// The values of one page, nulls left out.
class ByteArrayReader {
 public:
  virtual ~ByteArrayReader() = default;

  // The next value, valid until the next call and while the page's bytes (or the dictionary's) live.
  virtual std::string_view next() = 0;
};

// The values of a dictionary page.
std::vector<std::string_view> read_dictionary(std::string_view bytes, int32_t count);

// `count`: values that are not null. `dictionary`: of the column chunk, empty when it has none. The reader
// keeps views of both.
std::unique_ptr<ByteArrayReader> read_byte_arrays(std::string_view bytes, int32_t encoding, int64_t count,
                                                  const std::vector<std::string_view>& dictionary);

// Unpacks one page into `out`; Error unless that gives `size` bytes. Memory grows with what comes out, not
// with what the file claims.
void unpack(int32_t codec, std::string_view packed, size_t size, std::string& out);

}  // namespace nf::parquet
