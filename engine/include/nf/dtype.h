// Element types of tensors.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace nf {

enum class DType : uint8_t { f32, bf16, f16, f64, i32, i64, u8, boolean };

// Bytes of one element.
constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::u8:
    case DType::boolean: return 1;
  }
  return 0;
}

constexpr bool is_float(DType dtype) { return dtype <= DType::f64; }

// "f32", "bf16", … as in text dumps, flags and messages.
std::string_view name(DType dtype);

// The inverse of name(); throws Error that lists the known names.
DType parse_dtype(std::string_view name);

// A bfloat16 in memory: the upper half of an IEEE single.
struct bf16 {
  uint16_t bits;
};

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
constexpr bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

constexpr float to_float(bf16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

// An IEEE half in memory.
struct f16 {
  uint16_t bits;
};

f16 to_f16(float value);  // rounds to nearest, ties to even
float to_float(f16 value);

}  // namespace nf
