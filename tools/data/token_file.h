// Tokens of documents as the cache keeps them: in a file that is written once and mapped, so that a corpus
// may be larger than memory.
//
//     header   64 bytes, see token_file.cpp; holds two hashes, of itself and of everything behind it
//     tokens   2 bytes each where the vocabulary has at most 65536, else 4; padded to a multiple of 8
//     ends     8 bytes per document: the index behind its last token
//
// All numbers are little-endian. A file is read only after every byte of it has been checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace nf {

// Immutable, and safe to read from many threads.
class TokenFile {
 public:
  // Bytes read so far and in all, while a long file is checked.
  using Watch = std::function<void(int64_t done, int64_t total)>;

  // Maps a file, and marks it as used as long as this lives (see mark_used in cache.h). Throws Error when it
  // is not whole, was altered, or was not written for this key.
  static std::shared_ptr<const TokenFile> open(const std::filesystem::path& path, uint64_t key,
                                               const Watch& watch = {});

  // The same in memory: `lengths` of the documents, which lie back to back in `tokens`. Throws Error when a
  // length is not positive, they do not add up, or an id is outside 0 … vocab_size - 1.
  static std::shared_ptr<const TokenFile> in_memory(std::span<const int32_t> tokens,
                                                    std::span<const int64_t> lengths, int32_t vocab_size);

  int64_t documents() const { return static_cast<int64_t>(ends_.size()); }
  int32_t vocab_size() const { return vocab_size_; }
  int64_t begin(int64_t document) const { return document == 0 ? first_ : ends_[index(document - 1)]; }
  int64_t end(int64_t document) const { return ends_[index(document)]; }

  // Copies the tokens from index `begin` on.
  void copy(int64_t begin, std::span<int32_t> out) const;

  // Lets the system take back the memory behind tokens that were read and will not be soon.
  void forget(int64_t begin, int64_t end) const;

  // Of tokens and ends.
  uint64_t hash() const { return hash_; }

 private:
  static size_t index(int64_t i) { return static_cast<size_t>(i); }

  std::shared_ptr<const void> owner_;  // of what the spans see
  std::span<const std::byte> tokens_;
  std::span<const int64_t> ends_;
  int64_t first_ = 0;  // where the first document begins
  int32_t vocab_size_ = 0;
  bool narrow_ = true;
  bool mapped_ = false;
  uint64_t hash_ = 0;
};

// Special tokens around the documents of a file that is written.
struct DocumentFrame {
  int32_t bos = -1, eos = -1;  // -1: none
  // Also around the only document of a text; otherwise such a text gets neither.
  bool bos_always = false, eos_always = false;
};

// Writes a token file. Memory: one block, and 8 bytes per document.
class TokenFileWriter {
 public:
  // Creates or empties `path`. Throws Error when it cannot be written, as every other call does.
  TokenFileWriter(const std::filesystem::path& path, uint64_t key, int32_t vocab_size, DocumentFrame frame);
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;
  ~TokenFileWriter();

  // The next tokens of a document; `more` of it follow. A document without tokens leaves no trace.
  void add(std::span<const int32_t> ids, bool more);

  int64_t documents() const { return static_cast<int64_t>(ends_.size()) + (open_ ? 1 : 0); }

  // Ends the file and syncs it. After that, and only then, it can be opened.
  void finish();

 private:
  struct Content;
  void put(int32_t id);

  std::unique_ptr<Content> content_;
  uint64_t key_;
  int32_t vocab_size_;
  DocumentFrame frame_;
  std::vector<int64_t> ends_;
  int64_t tokens_ = 0;
  bool open_ = false;        // a document has begun
  bool awaits_eos_ = false;  // one has ended, and what follows decides whether with eos
};

}  // namespace nf
