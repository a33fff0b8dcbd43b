// Unpacking of Parquet's pages.
#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>

#include "nf/error.h"
#include "tools/data/parquet_values.h"

namespace nf::parquet {
namespace {

constexpr size_t kFirst = size_t{1} << 16;  // bytes of room at first; doubled as they fill

[[noreturn]] void damaged(std::string_view codec, std::string_view why) {
  fail("a page packed with {} is damaged: {}", codec, why);
}

void grow(std::string& out, size_t filled, size_t size) {
  if (filled == out.size()) out.resize(std::min(size, std::max(kFirst, 2 * filled)));
}

void unpack_snappy(std::string_view packed, size_t size, std::string& out) {
  // Three bytes make at most 64, so a larger claim is a lie and gets no memory.
  size_t claimed = 0;
  if (!::snappy::GetUncompressedLength(packed.data(), packed.size(), &claimed) || claimed != size ||
      size / 22 > packed.size())
    damaged("snappy", "its length is wrong");
  out.resize(size);
  if (!::snappy::RawUncompress(packed.data(), packed.size(), out.data()))
    damaged("snappy", "what it copies is not there");
}

void unpack_gzip(std::string_view packed, size_t size, std::string& out) {
  z_stream state{};
  constexpr int kGzipOrZlib = 32 + MAX_WBITS;
  require(::inflateInit2(&state, kGzipOrZlib) == Z_OK, "out of memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> release(&state, &::inflateEnd);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  state.avail_in = static_cast<uInt>(packed.size());
  size_t filled = 0;
  while (true) {
    grow(out, filled, size);
    char nothing = 0;  // when all has come, only the end may follow
    const bool full = filled == out.size();
    state.next_out = reinterpret_cast<Bytef*>(full ? &nothing : out.data() + filled);
    state.avail_out = full ? 1 : static_cast<uInt>(out.size() - filled);
    const uInt room = state.avail_out;
    const int status = ::inflate(&state, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END)
      damaged("gzip", state.msg != nullptr ? state.msg : "it is cut short");
    if (full && state.avail_out != room) damaged("gzip", "it holds more than it should");
    if (!full) filled += room - state.avail_out;
    if (status != Z_STREAM_END) continue;
    if (state.avail_in == 0) break;
    ::inflateReset(&state);  // the next member
  }
  if (filled != size) damaged("gzip", "it holds less than it should");
}

void unpack_zstd(std::string_view packed, size_t size, std::string& out) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> state(::ZSTD_createDStream(),
                                                                       &::ZSTD_freeDStream);
  require(state != nullptr, "out of memory");
  ZSTD_inBuffer from{packed.data(), packed.size(), 0};
  size_t filled = 0;
  while (true) {
    grow(out, filled, size);
    ZSTD_outBuffer to{out.data(), out.size(), filled};
    const size_t used = from.pos;
    const size_t left = ::ZSTD_decompressStream(state.get(), &to, &from);
    if (::ZSTD_isError(left) != 0) damaged("zstd", ::ZSTD_getErrorName(left));
    const bool stuck = from.pos == used && to.pos == filled;
    filled = to.pos;
    if (left == 0 && from.pos == from.size) break;
    if (stuck) damaged("zstd", filled == size ? "it holds more than it should" : "it is cut short");
  }
  if (filled != size) damaged("zstd", "it holds less than it should");
}

}  // namespace

void unpack(int32_t codec, std::string_view packed, size_t size, std::string& out) {
  out.clear();
  switch (static_cast<Codec>(codec)) {
    case Codec::none:
      require(packed.size() == size, "a page that is not packed has {} bytes, not {}", packed.size(), size);
      out = packed;
      return;
    case Codec::snappy: return unpack_snappy(packed, size, out);
    case Codec::gzip: return unpack_gzip(packed, size, out);
    case Codec::zstd: return unpack_zstd(packed, size, out);
  }
  fail("pages packed with {} are not supported; write the file with snappy, gzip or zstd", codec_name(codec));
}

}  // namespace nf::parquet
