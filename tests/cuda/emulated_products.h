// The products of a warpgroup (kernels/warpgroup.cuh) for the emulator: one warp's part of each, its operands
// decoded as the PTX manual says ("Asynchronous warpgroup level matrix multiply"). Strict where a GPU would
// be silently wrong: results are NaNs until they are waited for, and an Error is thrown when a product is
// begun without a fence, reads copies that no fence made known to it, or finds, when it is waited for, that
// its operands have changed.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <vector>

namespace nf::cuda {

// A block's dynamic shared memory, and when each 16 bytes of it were written by a copy.
struct SharedMemory {
  unsigned char* data = nullptr;
  std::vector<uint64_t> written;
  std::function<void(const void*, uint32_t)> read = {};  // tells that the current thread reads bytes there
};

// What one lane asks for.
struct ProductCall {
  float* sum = nullptr;                 // columns / 2 elements
  uint32_t columns = 0;                 // of the result
  const uint32_t* registers = nullptr;  // 4 of them, or null: `left` describes the factor
  uint64_t left = 0, right = 0;         // matrix descriptors
  bool right_by_rows = false;           // Major::row
  bool accumulate = false;
  uint64_t known = 0;  // the lane's last fence for shared memory: what was written later it does not see
};

class WarpProducts {
 public:
  void begin(uint32_t lane) { lanes_[lane].has_fence = true; }
  void multiply(const SharedMemory& shared, uint32_t warp, uint32_t lane, const ProductCall& call);
  void commit(uint32_t lane) { ++lanes_[lane].commits; }
  // Called when all lanes have come to wait.
  void wait(const SharedMemory& shared, uint32_t warp, uint32_t lane, uint64_t pending);

 private:
  struct Sum {
    float* to;
    std::vector<float> values;
    uint64_t group;  // the last that adds to it
  };
  struct Lane {
    bool has_fence = false;
    uint64_t commits = 0, calls = 0;
    std::list<Sum> sums;
  };
  struct Product {
    ProductCall call;
    uint64_t group = 0, operands = 0;
    uint32_t lanes = 0;
    std::array<std::array<uint32_t, 4>, 32> registers{};
    std::array<float*, 32> sums{};
  };

  static void compute(const SharedMemory& shared, uint32_t warp, Product& product);

  std::array<Lane, 32> lanes_;
  std::deque<Product> products_;  // under way
  uint64_t finished_ = 0;
};

}  // namespace nf::cuda
