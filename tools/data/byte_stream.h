// The bytes of a file, from its start to its end, unpacked on the way when it is compressed.
//
//     const auto stream = open_stream("corpus.jsonl.zst");
//     while (const size_t count = stream->read(block)) …
//
// A stream holds one small block in memory, whatever the size of the file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace nf {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Fills `out` (not empty) and returns how many bytes it took; fewer only at the end of the file, where it
  // returns 0 from then on. Throws Error that names the file when it cannot be read, is damaged or cut short.
  virtual size_t read(std::span<char> out) = 0;
};

// By the name: X.gz is gzip (RFC 1952, any number of members), X.zst is Zstandard (RFC 8878, any number of
// frames), everything else is taken as it is.
std::unique_ptr<ByteStream> open_stream(const std::filesystem::path& file);

// The name without .gz or .zst, which tells what is inside.
std::filesystem::path unpacked_name(const std::filesystem::path& file);

}  // namespace nf
