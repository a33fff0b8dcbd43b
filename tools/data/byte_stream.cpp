#include "tools/data/byte_stream.h"

#include <fcntl.h>
#include <nf/error.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

namespace nf {
namespace {

namespace fs = std::filesystem;

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(const fs::path& file)
      : file_(file), descriptor_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    require(descriptor_ >= 0, "data: cannot open {}: {}", file.string(),
            std::generic_category().message(errno));
  }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;
  ~PlainStream() override { ::close(descriptor_); }

  size_t read(std::span<char> out) override {
    size_t filled = 0;
    while (filled < out.size()) {
      const ssize_t count = ::read(descriptor_, out.data() + filled, out.size() - filled);
      if (count < 0 && errno == EINTR) continue;
      require(count >= 0, "data: cannot read {}: {}", file_.string(), std::generic_category().message(errno));
      if (count == 0) break;
      filled += static_cast<size_t>(count);
    }
    return filled;
  }

 private:
  fs::path file_;
  int descriptor_;
};

// What both formats share: packed bytes are taken in blocks, and a file may hold several parts back to back.
class PackedStream : public ByteStream {
 public:
  size_t read(std::span<char> out) final {
    size_t filled = 0;
    while (filled < out.size()) {
      if (packed_.empty() && !pending_ && !refill()) break;
      const size_t count = unpack(out.subspan(filled));
      filled += count;
      pending_ = inside_ && filled == out.size();
    }
    return filled;
  }

 protected:
  explicit PackedStream(const fs::path& file) : file_(file), in_(file) {}

  // Unpacks some of packed_, takes what it used from there, and sets inside_.
  virtual size_t unpack(std::span<char> out) = 0;

  [[noreturn]] void damaged(std::string_view what) const {
    fail("data: {} is damaged: {}; fetch or pack it again", file_.string(), what);
  }

  std::span<const char> packed_;
  bool inside_ = false;  // a part has begun and has not ended

 private:
  bool refill() {
    packed_ = std::span<const char>(block_).first(in_.read(block_));
    if (packed_.empty() && inside_) damaged("it ends before its content does");
    return !packed_.empty();
  }

  fs::path file_;
  PlainStream in_;
  std::array<char, 1 << 16> block_;
  bool pending_ = false;  // there may be unpacked bytes that had no room
};

class GzipStream final : public PackedStream {
 public:
  explicit GzipStream(const fs::path& file) : PackedStream(file) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    require(::inflateInit2(&state_, kGzipOnly) == Z_OK, "data: out of memory for {}", file.string());
  }
  ~GzipStream() override { ::inflateEnd(&state_); }

 private:
  size_t unpack(std::span<char> out) override {
    if (!inside_) ::inflateReset(&state_);
    inside_ = true;
    constexpr size_t kMost = size_t{1} << 30;  // the library counts in 32 bits
    const std::span<char> room = out.first(std::min(out.size(), kMost));
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed_.data()));
    state_.avail_in = static_cast<uInt>(packed_.size());
    state_.next_out = reinterpret_cast<Bytef*>(room.data());
    state_.avail_out = static_cast<uInt>(room.size());
    const int status = ::inflate(&state_, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      damaged(state_.msg != nullptr ? state_.msg : "not gzip");
    packed_ = packed_.last(state_.avail_in);
    if (status == Z_STREAM_END) inside_ = false;
    return room.size() - state_.avail_out;
  }

  z_stream state_{};
};

class ZstdStream final : public PackedStream {
 public:
  explicit ZstdStream(const fs::path& file) : PackedStream(file), state_(::ZSTD_createDStream()) {
    require(state_ != nullptr, "data: out of memory for {}", file.string());
  }
  ~ZstdStream() override { ::ZSTD_freeDStream(state_); }

 private:
  size_t unpack(std::span<char> out) override {
    ZSTD_inBuffer from{packed_.data(), packed_.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const size_t left = ::ZSTD_decompressStream(state_, &to, &from);
    if (::ZSTD_isError(left) != 0) damaged(::ZSTD_getErrorName(left));
    packed_ = packed_.subspan(from.pos);
    inside_ = left != 0;
    return to.pos;
  }

  ZSTD_DStream* state_;
};

}  // namespace

std::unique_ptr<ByteStream> open_stream(const fs::path& file) {
  const std::string extension = file.extension().string();
  if (extension == ".gz") return std::make_unique<GzipStream>(file);
  if (extension == ".zst") return std::make_unique<ZstdStream>(file);
  return std::make_unique<PlainStream>(file);
}

fs::path unpacked_name(const fs::path& file) {
  const std::string extension = file.extension().string();
  return extension == ".gz" || extension == ".zst" ? fs::path(file).replace_extension() : file;
}

}  // namespace nf
