#include "tests/cuda/judge.h"

#include <algorithm>

#include "nf/error.h"

namespace nf::cuda {
namespace {

constexpr uint32_t kWarp = 32;
constexpr size_t kMostPages = 1 << 14;  // of 4 KiB each, 10 times that with what is noted of them

void keep_later(std::vector<uint16_t>& clock, const std::vector<uint16_t>& other) {
  for (size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

}  // namespace

void Judge::begin_launch() {
  launch_era_ = ++era_;
  if (pages_.size() < kMostPages) return;
  pages_.clear();
  recent_.fill({});
}

void Judge::begin_block(uint32_t threads) {
  block_era_ = ++era_;
  time_.assign(threads, 1);
  warp_time_.assign(threads, 0);
  known_.assign(threads, {});
  given_.clear();
}

// ---- what orders the threads

Judge::Clock Judge::knowledge(uint32_t thread) const {
  Clock clock = known_[thread];
  clock.resize(time_.size());
  const uint32_t first = thread / kWarp * kWarp;
  for (uint32_t lane = first; lane < std::min<size_t>(first + kWarp, time_.size()); ++lane)
    clock[lane] = std::max(clock[lane], warp_time_[lane]);
  clock[thread] = time_[thread];
  return clock;
}

void Judge::advance(uint32_t thread) {
  require(++time_[thread] != 0,
          "emulator: a thread of a block meets others too often for the judge's clocks");
}

void Judge::learn(uint32_t thread, const Clock& clock) {
  known_[thread].resize(time_.size());
  keep_later(known_[thread], clock);
}

void Judge::sync_warp(uint32_t first, uint32_t lanes) {
  Clock all;
  for (uint32_t thread = first; thread < first + lanes; ++thread) {
    warp_time_[thread] = time_[thread];
    advance(thread);
    if (known_[thread].empty()) continue;
    all.resize(time_.size());
    keep_later(all, known_[thread]);
  }
  if (all.empty()) return;
  for (uint32_t thread = first; thread < first + lanes; ++thread) known_[thread] = all;
}

void Judge::give(uint32_t thread, const void* where) {
  Clock& clock = given_[where];
  clock.resize(time_.size());
  keep_later(clock, knowledge(thread));
  advance(thread);
}

void Judge::take(uint32_t thread, const void* where) {
  const auto found = given_.find(where);
  if (found != given_.end()) learn(thread, found->second);
}

bool Judge::is_ordered(uint32_t thread, const Moment& before, bool is_shared) const {
  if (before.era < (is_shared ? block_era_ : launch_era_)) return true;
  if (before.era < block_era_) return false;
  if (before.era < era_ || before.thread == thread) return true;
  if (before.thread / kWarp == thread / kWarp && before.time <= warp_time_[before.thread]) return true;
  const Clock& known = known_[thread];
  return !known.empty() && before.time <= known[before.thread];
}

// ---- words

Judge::Word& Judge::word(uintptr_t address) {
  const uintptr_t number = address / kPageBytes;
  Recent& recent = recent_[number % recent_.size()];
  if (recent.number != number) {
    std::unique_ptr<Page>& page = pages_[number];
    if (!page) page = std::make_unique<Page>();
    recent = {number, page.get()};
  }
  return (*recent.page)[address % kPageBytes / 4];
}

// Forgets what no longer matters, and makes reads of the block before reads of an earlier one.
void Judge::begin_word(Word& word, bool is_shared) const {
  if (word.write.era < block_era_) word.filled = 0;
  if (word.read.era >= block_era_) return;
  word.read_before = is_shared || word.read.era < launch_era_ ? 0 : word.read_before | word.read_here;
  word.read_here = 0;
}

void Judge::note_read(Word& word, const Moment& now, uint8_t bytes) {
  const bool is_other = word.read.thread != now.thread && word.read.era == now.era;
  if (is_other && (word.other_read.era != now.era || word.other_read.thread / kWarp == now.thread / kWarp)) {
    word.other_read = word.read;
    word.were_other_read = word.were_read;
  }
  word.were_read = word.read == now ? word.were_read | bytes : bytes;
  word.read = now;
  word.read_here |= bytes;
}

const char* Judge::access_word(Word& word, const Moment& now, uint8_t bytes, Access kind, bool is_shared) {
  if (kind == Access::read && word.read == now && (bytes & ~word.were_read) == 0) return nullptr;
  begin_word(word, is_shared);
  const auto meets = [&](const Moment& before, uint8_t touched) {
    return (touched & bytes) != 0 && !is_ordered(now.thread, before, is_shared);
  };
  if (is_shared && kind != Access::write && (bytes & ~word.filled) != 0) return "that nobody has written";
  if (!(kind == Access::atomic && word.is_atomic) && meets(word.write, word.written))
    return "that another thread writes, with nothing between to order them";
  if (kind == Access::read) {
    note_read(word, now, bytes);
    return nullptr;
  }
  if (meets(word.read, word.were_read) || meets(word.other_read, word.were_other_read) ||
      (word.read_before & bytes) != 0)
    return "that another thread reads, with nothing between to order them";
  word.write = now;
  word.written = bytes;
  word.filled |= bytes;
  word.is_atomic = kind == Access::atomic;
  return nullptr;
}

const char* Judge::access(uint32_t thread, const void* address, uint32_t bytes, Access kind, bool is_shared) {
  const Moment now{era_, static_cast<uint16_t>(thread), time_[thread]};
  const auto first = reinterpret_cast<uintptr_t>(address), last = first + bytes;
  for (uintptr_t at = first / 4 * 4; at < last; at += 4) {
    uint32_t mask = 0xF;
    if (at < first) mask &= 0xFU << (first - at);
    if (last < at + 4) mask &= 0xFU >> (at + 4 - last);
    if (const char* wrong = access_word(word(at), now, static_cast<uint8_t>(mask & 0xF), kind, is_shared))
      return wrong;
  }
  return nullptr;
}

}  // namespace nf::cuda
