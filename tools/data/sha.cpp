#include "tools/data/sha.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace nf {
namespace {

constexpr std::array<uint32_t, 8> kStart1 = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
constexpr std::array<uint32_t, 8> kStart256 = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                               0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
constexpr std::array<uint32_t, 64> kRound256 = {
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2};

uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

void block_1(std::array<uint32_t, 8>& state, const uint8_t* bytes) {
  std::array<uint32_t, 80> w;
  for (size_t i = 0; i < 16; ++i) w[i] = big_endian(bytes + 4 * i);
  for (size_t i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 80; ++i) {
    uint32_t mixed, constant;
    if (i < 20)
      mixed = (b & c) | (~b & d), constant = 0x5A827999;
    else if (i < 40)
      mixed = b ^ c ^ d, constant = 0x6ED9EBA1;
    else if (i < 60)
      mixed = (b & c) | (b & d) | (c & d), constant = 0x8F1BBCDC;
    else
      mixed = b ^ c ^ d, constant = 0xCA62C1D6;
    const uint32_t next = std::rotl(a, 5) + mixed + e + constant + w[i];
    e = d, d = c, c = std::rotl(b, 30), b = a, a = next;
  }
  const std::array<uint32_t, 8> sum = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 5; ++i) state[i] += sum[i];
}

void block_256(std::array<uint32_t, 8>& state, const uint8_t* bytes) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) w[i] = big_endian(bytes + 4 * i);
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t first = h + s1 + ((e & f) ^ (~e & g)) + kRound256[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t second = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }
  const std::array<uint32_t, 8> sum = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state[i] += sum[i];
}

}  // namespace

ShaHash::ShaHash(Sha kind) : kind_(kind), state_(kind == Sha::sha1 ? kStart1 : kStart256) {}

void ShaHash::block(const uint8_t* bytes) {
  if (kind_ == Sha::sha1)
    block_1(state_, bytes);
  else
    block_256(state_, bytes);
}

void ShaHash::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t filled = bytes_ % pending_.size();
    if (filled == 0 && bytes.size() >= pending_.size()) {
      block(reinterpret_cast<const uint8_t*>(bytes.data()));
      bytes.remove_prefix(pending_.size());
      bytes_ += pending_.size();
      continue;
    }
    const size_t count = std::min(bytes.size(), pending_.size() - filled);
    std::memcpy(pending_.data() + filled, bytes.data(), count);
    bytes.remove_prefix(count);
    bytes_ += count;
    if (bytes_ % pending_.size() == 0) block(pending_.data());
  }
}

std::string ShaHash::hex() {
  std::string end(1 + (119 - bytes_ % 64) % 64, '\0');
  end[0] = '\x80';
  for (int shift = 56; shift >= 0; shift -= 8) end += static_cast<char>((8 * bytes_) >> shift);
  add(end);
  std::string text;
  for (size_t i = 0; i < (kind_ == Sha::sha1 ? 5U : 8U); ++i) text += fmt::format("{:08x}", state_[i]);
  return text;
}

}  // namespace nf
