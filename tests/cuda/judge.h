// Finds races: what the emulator's threads read and write of shared and of global memory, word by word, and
// whether something orders it. Barriers do, of a block, a warp (__syncwarp; shuffles order nothing), part of
// a block, and phases that are waited for; the end of a launch orders all. Blocks of one launch are never
// ordered, only atomics may meet there. So a race is found in whatever order the threads happen to run,
// unless more than two warps read a word before another writes it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace nf::cuda {

enum class Access : uint8_t { read, write, atomic };

class Judge {
 public:
  void begin_launch();
  void begin_block(uint32_t threads);

  // What orders the threads.
  void barrier() { ++era_; }
  void sync_warp(uint32_t first, uint32_t lanes);
  // The thread gives what it knows to those who take it there later.
  void give(uint32_t thread, const void* where);
  void take(uint32_t thread, const void* where);
  void forget(const void* where) { given_.erase(where); }

  // What is wrong with that access, or nothing. Shared memory must have been written before it is read.
  const char* access(uint32_t thread, const void* address, uint32_t bytes, Access kind, bool is_shared);

 private:
  // Of a thread at a time of its own, since a block or its last barrier began.
  struct Moment {
    uint32_t era = 0;
    uint16_t thread = 0;
    uint16_t time = 0;
    bool operator==(const Moment&) const = default;
  };
  struct Word {
    Moment write, read, other_read;  // the last of each; other_read of another thread, rather of another warp
    // Bytes, a bit each: of the last write and the two reads; read in this launch by this block and by
    // earlier ones; of shared memory, what this block has written.
    uint8_t written = 0, were_read = 0, were_other_read = 0, read_here = 0, read_before = 0, filled = 0;
    bool is_atomic = false;  // the last write
  };
  static constexpr uintptr_t kPageBytes = 4096;
  using Page = std::array<Word, kPageBytes / 4>;
  using Clock = std::vector<uint16_t>;  // by thread: what it has done until then is known

  Word& word(uintptr_t address);
  bool is_ordered(uint32_t thread, const Moment& before, bool is_shared) const;
  void begin_word(Word& word, bool is_shared) const;
  static void note_read(Word& word, const Moment& now, uint8_t bytes);
  const char* access_word(Word& word, const Moment& now, uint8_t bytes, Access kind, bool is_shared);
  Clock knowledge(uint32_t thread) const;
  void learn(uint32_t thread, const Clock& clock);
  void advance(uint32_t thread);

  uint32_t era_ = 0, launch_era_ = 0, block_era_ = 0;
  std::vector<uint16_t> time_, warp_time_;        // by thread: now, and at its warp's last barrier
  std::vector<Clock> known_;                      // by thread: of other warps; empty as long as it is nothing
  std::unordered_map<const void*, Clock> given_;  // since the block began
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  struct Recent {
    uintptr_t number = ~uintptr_t{0};
    Page* page = nullptr;
  };
  std::array<Recent, 256> recent_{};
};

}  // namespace nf::cuda
