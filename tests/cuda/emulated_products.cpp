#include "tests/cuda/emulated_products.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>

#include "base/hash.h"
#include "nf/error.h"

namespace nf::cuda {
namespace {

constexpr uint32_t kInner = 16, kWarpRows = 16, kPiece = 8;  // elements
constexpr uint32_t kRowBytes = 128;                          // of the only swizzle that kernels use

// A matrix descriptor, taken apart; addresses are relative to the block's dynamic shared memory.
struct Matrix {
  uint64_t start, leading_bytes, stride_bytes;

  explicit Matrix(uint64_t descriptor) {
    const auto bytes = [&](int bit) { return (descriptor >> bit & 0x3FFF) << 4; };
    start = bytes(0);
    leading_bytes = bytes(16);
    stride_bytes = bytes(32);
    require((descriptor >> 49 & 7) == 0 && descriptor >> 62 == 1,
            "emulator: a matrix descriptor {:016x}, not of a swizzle of 128 bytes", descriptor);
  }
};

using Elements = std::vector<uint16_t>;

// 16 bytes from shared memory, where the swizzle has put those of `address`.
void read_piece(const SharedMemory& shared, uint64_t known, uint64_t address, uint16_t* to) {
  address ^= (address >> 7 & 7) << 4;
  require(address / 16 < shared.written.size(), "emulator: a product reads past the end of shared memory");
  require(shared.written[address / 16] <= known, "emulator: a product reads copies that no fence showed it");
  shared.read(shared.data + address, 16);
  std::memcpy(to, shared.data + address, 16);
}

// Rows of 16 elements, from row `first` on, of a matrix that is contiguous along the inner dimension.
Elements read_rows(const SharedMemory& shared, uint64_t known, const Matrix& matrix, uint32_t first,
                   uint32_t rows) {
  Elements result(size_t{rows} * kInner);
  for (uint32_t i = 0; i < rows; ++i)
    for (uint32_t piece = 0; piece < kInner / kPiece; ++piece) {
      const uint32_t row = first + i;
      read_piece(shared, known,
                 matrix.start + row / 8 * matrix.stride_bytes + row % 8 * kRowBytes + piece * 16,
                 &result[size_t{i} * kInner + size_t{piece} * kPiece]);
    }
  return result;
}

// [16, columns] of one that is contiguous along the other.
Elements read_columns(const SharedMemory& shared, uint64_t known, const Matrix& matrix, uint32_t columns) {
  Elements result(size_t{kInner} * columns);
  for (uint32_t k = 0; k < kInner; ++k)
    for (uint32_t piece = 0; piece < columns / kPiece; ++piece)
      read_piece(shared, known,
                 matrix.start + piece / 8 * matrix.leading_bytes + piece % 8 * 16 +
                     k / 8 * matrix.stride_bytes + k % 8 * kRowBytes,
                 &result[size_t{k} * columns + size_t{piece} * kPiece]);
  return result;
}

float to_float(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

struct Operands {
  Elements left;   // [16, 16], empty when it is in registers
  Elements right;  // [columns, 16], or [16, columns] by rows

  Operands(const SharedMemory& shared, uint32_t warp, const ProductCall& call) {
    if (call.registers == nullptr)
      left = read_rows(shared, call.known, Matrix(call.left), warp % 4 * kWarpRows, kWarpRows);
    right = call.right_by_rows ? read_columns(shared, call.known, Matrix(call.right), call.columns)
                               : read_rows(shared, call.known, Matrix(call.right), 0, call.columns);
  }

  uint64_t hash() const {
    const auto bytes = [](const Elements& x) {
      return std::string_view(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(uint16_t));
    };
    return nf::hash(bytes(left), nf::hash(bytes(right)));
  }
};

}  // namespace

void WarpProducts::multiply(const SharedMemory& shared, uint32_t warp, uint32_t lane,
                            const ProductCall& call) {
  Lane& me = lanes_[lane];
  require(me.has_fence, "emulator: a product of registers that no fence came after");
  const uint64_t at = me.calls++ - finished_;
  if (at == products_.size()) products_.push_back({.call = call, .group = me.commits});
  Product& product = products_[at];
  require(product.call.left == call.left && product.call.right == call.right,
          "emulator: the lanes of a warp multiply different matrices");
  product.call.known = std::min(product.call.known, call.known);
  if (call.registers != nullptr) std::copy_n(call.registers, 4, product.registers[lane].begin());

  const uint32_t count = call.columns / 2;
  auto sum = std::find_if(me.sums.begin(), me.sums.end(), [&](const Sum& s) { return s.to == call.sum; });
  if (sum == me.sums.end()) {
    sum = me.sums.insert(sum, {call.sum, std::vector<float>(call.sum, call.sum + count), 0});
    std::fill_n(call.sum, count, std::numeric_limits<float>::quiet_NaN());
  }
  sum->group = me.commits;
  product.sums[lane] = sum->values.data();
  if (++product.lanes == 32) compute(shared, warp, product);
}

void WarpProducts::compute(const SharedMemory& shared, uint32_t warp, Product& product) {
  const ProductCall& call = product.call;
  const Operands operands(shared, warp, call);
  product.operands = operands.hash();
  const auto left = [&](uint32_t row, uint32_t k) {
    if (call.registers == nullptr) return to_float(operands.left[size_t{row} * kInner + k]);
    const uint32_t pair = product.registers[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
    return to_float(k % 2 == 0 ? pair & 0xFFFF : pair >> 16);
  };
  std::vector<float> right(size_t{kInner} * call.columns);  // by rows
  for (uint32_t k = 0; k < kInner; ++k)
    for (uint32_t j = 0; j < call.columns; ++j)
      right[size_t{k} * call.columns + j] = to_float(
          operands.right[call.right_by_rows ? size_t{k} * call.columns + j : size_t{j} * kInner + k]);
  std::vector<float> sums(call.columns);
  for (uint32_t row = 0; row < kWarpRows; ++row) {
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (uint32_t k = 0; k < kInner; ++k) {
      const float factor = left(row, k);
      for (uint32_t j = 0; j < call.columns; ++j) sums[j] += factor * right[size_t{k} * call.columns + j];
    }
    for (uint32_t j = 0; j < call.columns; ++j) {
      float& to = product.sums[row % 8 * 4 + j % 8 / 2][j / 8 * 4 + row / 8 * 2 + j % 2];
      to = call.accumulate ? to + sums[j] : sums[j];
    }
  }
}

void WarpProducts::wait(const SharedMemory& shared, uint32_t warp, uint32_t lane, uint64_t pending) {
  Lane& me = lanes_[lane];
  const auto is_over = [&](uint64_t group) { return group + pending < me.commits; };
  me.has_fence = false;
  me.sums.remove_if([&](const Sum& sum) {
    if (is_over(sum.group)) std::copy(sum.values.begin(), sum.values.end(), sum.to);
    return is_over(sum.group);
  });
  if (lane != 0) return;  // one looks after the warp's
  for (; !products_.empty() && is_over(products_.front().group); products_.pop_front(), ++finished_)
    require(products_.front().operands == Operands(shared, warp, products_.front().call).hash(),
            "emulator: a product's operands were overwritten before it was waited for");
}

}  // namespace nf::cuda
