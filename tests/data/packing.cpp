#include "tests/data/packing.h"

#include <doctest/doctest.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>

std::string nf::gzip(std::string_view bytes) {
  z_stream state{};
  constexpr int kGzip = 16 + MAX_WBITS;
  REQUIRE(::deflateInit2(&state, Z_BEST_SPEED, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(::deflateBound(&state, bytes.size()), '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  state.avail_in = static_cast<uInt>(bytes.size());
  state.next_out = reinterpret_cast<Bytef*>(packed.data());
  state.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(::deflate(&state, Z_FINISH) == Z_STREAM_END);
  packed.resize(state.total_out);
  ::deflateEnd(&state);
  return packed;
}

std::string nf::zstd(std::string_view bytes) {
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> state(::ZSTD_createCCtx(), &::ZSTD_freeCCtx);
  ::ZSTD_CCtx_setParameter(state.get(), ZSTD_c_checksumFlag, 1);
  std::string packed(::ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ::ZSTD_compress2(state.get(), packed.data(), packed.size(), bytes.data(), bytes.size());
  REQUIRE(::ZSTD_isError(size) == 0);
  packed.resize(size);
  return packed;
}
