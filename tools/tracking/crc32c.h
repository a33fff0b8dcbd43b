// Castagnoli's CRC-32 (RFC 3720): of bytes from the lowest bit on, begun and ended with all ones. "123456789"
// gives 0xE3069283. (The other one, of IEEE 802.3, is in zlib.)
#pragma once

#include <cstdint>
#include <string_view>

namespace nf {

uint32_t crc32c(std::string_view bytes);

}  // namespace nf
