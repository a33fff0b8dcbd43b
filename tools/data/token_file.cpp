#include "tools/data/token_file.h"

#include <fcntl.h>
#include <nf/error.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "tools/data/cache.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
static_assert(std::endian::native == std::endian::little, "token files are mapped as they are");

constexpr std::array<char, 8> kMagic = {'N', 'F', 'T', 'O', 'K', 'E', 'N', 'S'};
constexpr uint32_t kVersion = 1;
constexpr size_t kBlock = size_t{1} << 20;  // bytes read or written at once
constexpr int32_t kNarrowVocabulary = 1 << 16;

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  int32_t vocab_size = 0;
  uint64_t key = 0;
  int64_t tokens = 0;
  int64_t documents = 0;
  int64_t first = 0;  // index of the first document's first token
  uint64_t content_hash = 0;
  uint64_t header_hash = 0;  // of the bytes before it
};
static_assert(sizeof(Header) == 64);

uint64_t hash_of(const Header& header) {
  return ::XXH3_64bits(&header, sizeof header - sizeof header.header_hash);
}

int64_t width_of(int32_t vocab_size) { return vocab_size <= kNarrowVocabulary ? 2 : 4; }

int64_t padded_bytes(int64_t tokens, int32_t vocab_size) {
  return (tokens * width_of(vocab_size) + 7) / 8 * 8;
}

[[noreturn]] void fail_system(const fs::path& path, std::string_view what) {
  fail("data: cannot {} {}: {}", what, path.string(), std::generic_category().message(errno));
}

// A hash of bytes that come in pieces.
class RunningHash {
 public:
  RunningHash() : state_(::XXH3_createState(), &::XXH3_freeState) {
    require(state_ != nullptr, "data: out of memory");
    ::XXH3_64bits_reset(state_.get());
  }
  void add(const void* bytes, size_t count) { ::XXH3_64bits_update(state_.get(), bytes, count); }
  uint64_t value() const { return ::XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&::XXH3_freeState)> state_;
};

struct File {
  File(const fs::path& file, int flags)
      : path(file), descriptor(::open(file.c_str(), flags | O_CLOEXEC, 0644)) {
    if (descriptor < 0) fail_system(path, "open");
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor); }

  int64_t size() const {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) fail_system(path, "examine");
    return status.st_size;
  }

  void read(int64_t offset, void* out, size_t count) const {
    for (auto* at = static_cast<char*>(out); count > 0;) {
      const ssize_t taken = ::pread(descriptor, at, count, offset);
      if (taken < 0 && errno == EINTR) continue;
      if (taken < 0) fail_system(path, "read");
      require(taken > 0, "data: {} is cut short", path.string());
      at += taken, offset += taken, count -= static_cast<size_t>(taken);
    }
  }

  void write(int64_t offset, const void* from, size_t count) const {
    for (const auto* at = static_cast<const char*>(from); count > 0;) {
      const ssize_t taken = ::pwrite(descriptor, at, count, offset);
      if (taken < 0 && errno == EINTR) continue;
      if (taken < 0) fail_system(path, "write");
      at += taken, offset += taken, count -= static_cast<size_t>(taken);
    }
  }

  fs::path path;
  int descriptor;
};

// The largest id among some bytes of the token part, whose start is a multiple of the width.
template <typename Id>
uint32_t largest(std::span<const std::byte> bytes) {
  uint32_t most = 0;
  for (size_t at = 0; at + sizeof(Id) <= bytes.size(); at += sizeof(Id)) {
    Id id;
    std::memcpy(&id, bytes.data() + at, sizeof id);
    most = std::max<uint32_t>(most, id);
  }
  return most;
}

// Reads everything behind the header once: the hash is right, and no id is outside the vocabulary.
void check_content(const File& file, const Header& header, int64_t size, const TokenFile::Watch& watch) {
  std::vector<std::byte> block(kBlock);
  RunningHash hash;
  const int64_t tokens_end =
      static_cast<int64_t>(sizeof header) + header.tokens * width_of(header.vocab_size);
  for (int64_t at = sizeof header; at < size;) {
    const auto count = static_cast<size_t>(std::min<int64_t>(kBlock, size - at));
    file.read(at, block.data(), count);
    hash.add(block.data(), count);
    const auto ids =
        static_cast<size_t>(std::clamp<int64_t>(tokens_end - at, 0, static_cast<int64_t>(count)));
    const auto tokens = std::span<const std::byte>(block).first(ids);
    const uint32_t most =
        width_of(header.vocab_size) == 2 ? largest<uint16_t>(tokens) : largest<uint32_t>(tokens);
    require(tokens.empty() || most < static_cast<uint32_t>(header.vocab_size),
            "data: {} holds token {} of a vocabulary of {}", file.path.string(), most, header.vocab_size);
    at += static_cast<int64_t>(count);
    if (watch) watch(at, size);
  }
  require(hash.value() == header.content_hash, "data: {} is damaged: its hash is {:016x}, not {:016x}",
          file.path.string(), hash.value(), header.content_hash);
}

Header read_header(const File& file, uint64_t key, int64_t size) {
  const std::string name = file.path.string();
  Header header;
  require(size >= static_cast<int64_t>(sizeof header), "data: {} is cut short", name);
  file.read(0, &header, sizeof header);
  require(header.magic == kMagic && header.version == kVersion, "data: {} is no token file of version {}",
          name, kVersion);
  require(header.header_hash == hash_of(header), "data: {} is damaged: its header has another hash", name);
  require(header.key == key, "data: {} is of another text or tokenizer", name);
  constexpr int64_t kMost = int64_t{1} << 56;
  require(header.vocab_size > 0 && header.tokens >= 0 && header.tokens < kMost && header.documents >= 0 &&
              header.documents <= header.tokens && header.first >= 0 && header.first <= header.tokens &&
              size == static_cast<int64_t>(sizeof header) + padded_bytes(header.tokens, header.vocab_size) +
                          8 * header.documents,
          "data: {} has not the size that its header states", name);
  return header;
}

}  // namespace

std::shared_ptr<const TokenFile> TokenFile::open(const fs::path& path, uint64_t key, const Watch& watch) {
  const auto file = std::make_shared<const File>(path, O_RDONLY);  // stays open: the mark that it is in use
  mark_used(file->descriptor);
  const int64_t size = file->size();
  const Header header = read_header(*file, key, size);
  check_content(*file, header, size, watch);

  const auto bytes = static_cast<size_t>(size);
  void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file->descriptor, 0);
  if (address == MAP_FAILED) fail_system(path, "map");
  auto result = std::make_shared<TokenFile>();
  result->owner_ = std::shared_ptr<const void>(
      address, [bytes, file](const void* p) { ::munmap(const_cast<void*>(p), bytes); });
  const auto* content = static_cast<const std::byte*>(address) + sizeof header;
  const auto token_bytes = static_cast<size_t>(padded_bytes(header.tokens, header.vocab_size));
  result->tokens_ = {content, token_bytes};
  result->ends_ = {reinterpret_cast<const int64_t*>(content + token_bytes), index(header.documents)};
  result->first_ = header.first;
  result->vocab_size_ = header.vocab_size;
  result->narrow_ = width_of(header.vocab_size) == 2;
  result->mapped_ = true;
  result->hash_ = header.content_hash;
  int64_t last = header.first;
  for (const int64_t end : result->ends_) {
    require(end > last && end <= header.tokens, "data: {}: documents that do not follow each other",
            path.string());
    last = end;
  }
  return result;
}

std::shared_ptr<const TokenFile> TokenFile::in_memory(std::span<const int32_t> tokens,
                                                      std::span<const int64_t> lengths, int32_t vocab_size) {
  struct Owned {
    std::vector<std::byte> tokens;
    std::vector<int64_t> ends;
  };
  auto owned = std::make_shared<Owned>();
  int64_t end = 0;
  for (const int64_t length : lengths) {
    require(length > 0, "data: document {} has {} tokens", owned->ends.size(), length);
    owned->ends.push_back(end += length);
  }
  require(end == static_cast<int64_t>(tokens.size()), "data: documents of {} tokens in a buffer of {}", end,
          tokens.size());
  const auto width = static_cast<size_t>(width_of(vocab_size));
  owned->tokens.resize(static_cast<size_t>(padded_bytes(end, vocab_size)));
  std::byte* out = owned->tokens.data();
  for (const int32_t id : tokens) {
    require(id >= 0 && id < vocab_size, "data: token id {} is outside the vocabulary of {}", id, vocab_size);
    std::memcpy(out, &id, width);  // the lower bytes come first
    out += width;
  }
  auto result = std::make_shared<TokenFile>();
  result->tokens_ = owned->tokens;
  result->ends_ = owned->ends;
  result->vocab_size_ = vocab_size;
  result->narrow_ = width == 2;
  RunningHash hash;
  hash.add(owned->tokens.data(), owned->tokens.size());
  hash.add(owned->ends.data(), 8 * owned->ends.size());
  result->hash_ = hash.value();
  result->owner_ = std::move(owned);
  return result;
}

void TokenFile::copy(int64_t begin, std::span<int32_t> out) const {
  if (narrow_) {
    const auto* from = reinterpret_cast<const uint16_t*>(tokens_.data()) + begin;
    std::copy_n(from, out.size(), out.begin());
  } else {
    const auto* from = reinterpret_cast<const int32_t*>(tokens_.data()) + begin;
    std::copy_n(from, out.size(), out.begin());
  }
}

void TokenFile::forget(int64_t begin, int64_t end) const {
  if (!mapped_) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const int64_t width = narrow_ ? 2 : 4;
  const auto from = (reinterpret_cast<uintptr_t>(tokens_.data() + begin * width) + page - 1) / page * page;
  const auto to = reinterpret_cast<uintptr_t>(tokens_.data() + end * width) / page * page;
  if (from < to) ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

// --- writing

// Everything behind the header, in the order in which it is written and hashed.
struct TokenFileWriter::Content {
  explicit Content(const fs::path& path) : file(path, O_RDWR | O_CREAT | O_TRUNC) { block.reserve(kBlock); }

  void add(const void* bytes, size_t count) {
    if (block.size() + count > kBlock) flush();
    const auto* from = static_cast<const std::byte*>(bytes);
    block.insert(block.end(), from, from + count);
  }

  void flush() {
    hash.add(block.data(), block.size());
    file.write(at, block.data(), block.size());
    at += static_cast<int64_t>(block.size());
    block.clear();
  }

  File file;
  RunningHash hash;
  std::vector<std::byte> block;
  int64_t at = sizeof(Header);  // of the block in the file
};

TokenFileWriter::TokenFileWriter(const fs::path& path, uint64_t key, int32_t vocab_size, DocumentFrame frame)
    : content_(std::make_unique<Content>(path)), key_(key), vocab_size_(vocab_size), frame_(frame) {}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::put(int32_t id) {
  require(id >= 0 && id < vocab_size_, "data: token id {} is outside the vocabulary of {}", id, vocab_size_);
  content_->add(&id, static_cast<size_t>(width_of(vocab_size_)));  // the lower bytes come first
  ++tokens_;
}

void TokenFileWriter::add(std::span<const int32_t> ids, bool more) {
  if (!open_ && !ids.empty()) {
    if (awaits_eos_) put(frame_.eos), ends_.back() = tokens_;
    awaits_eos_ = false;
    if (frame_.bos >= 0) put(frame_.bos);
    open_ = true;
  }
  for (const int32_t id : ids) put(id);
  if (more || !open_) return;
  ends_.push_back(tokens_);
  open_ = false;
  awaits_eos_ = frame_.eos >= 0;
}

void TokenFileWriter::finish() {
  const bool alone = ends_.size() == 1;
  if (awaits_eos_ && (!alone || frame_.eos_always)) put(frame_.eos), ends_.back() = tokens_;
  Header header{.vocab_size = vocab_size_,
                .key = key_,
                .tokens = tokens_,
                .documents = static_cast<int64_t>(ends_.size()),
                .first = alone && frame_.bos >= 0 && !frame_.bos_always ? 1 : 0};
  constexpr uint64_t kZeros = 0;
  const int64_t padding = padded_bytes(tokens_, vocab_size_) - tokens_ * width_of(vocab_size_);
  content_->add(&kZeros, static_cast<size_t>(padding));
  for (const int64_t end : ends_) content_->add(&end, sizeof end);
  content_->flush();
  header.content_hash = content_->hash.value();
  header.header_hash = hash_of(header);
  content_->file.write(0, &header, sizeof header);
  if (::fsync(content_->file.descriptor) != 0) fail_system(content_->file.path, "sync");
}

}  // namespace nf
