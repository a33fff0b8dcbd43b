// Ids by name: a hash table that is filled once and then asked many times. Open addressing over a power of
// two of small slots, of which a lookup touches one or two; std::unordered_map follows pointers.
#pragma once

#include <xxhash.h>

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace nf {

class TokenTable {
 public:
  // For that many names.
  explicit TokenTable(size_t names = 0) { resize(names); }

  // False, and nothing changes, when the name is there. The table keeps the view.
  bool add(std::string_view name, int32_t id) {
    if (2 * (entries_.size() + 1) > slots_.size()) resize(2 * entries_.size() + 1);
    const uint64_t hash = hash_of(name);
    Slot* const slot = slot_of(name, hash);
    if (slot->entry != kEmpty) return false;
    *slot = {static_cast<uint32_t>(hash), static_cast<uint32_t>(entries_.size())};
    entries_.push_back({name, id});
    return true;
  }

  std::optional<int32_t> find(std::string_view name) const {
    const Slot* const slot = slot_of(name, hash_of(name));
    return slot->entry == kEmpty ? std::nullopt : std::optional(entries_[slot->entry].id);
  }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  struct Slot {
    uint32_t hash = 0, entry = kEmpty;
  };
  struct Entry {
    std::string_view name;
    int32_t id;
  };

  static uint64_t hash_of(std::string_view name) { return XXH3_64bits(name.data(), name.size()); }

  // Where the name is, or would be. The slot's place comes from the upper half of the hash, the lower is
  // compared.
  const Slot* slot_of(std::string_view name, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = (hash >> 32) & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.entry == kEmpty) return &slot;
      if (slot.hash == static_cast<uint32_t>(hash) && entries_[slot.entry].name == name) return &slot;
    }
  }
  Slot* slot_of(std::string_view name, uint64_t hash) {
    return const_cast<Slot*>(static_cast<const TokenTable*>(this)->slot_of(name, hash));
  }

  // At most half of the slots are full.
  void resize(size_t names) {
    slots_.assign(std::bit_ceil(2 * names + 2), {});
    entries_.reserve(names);
    for (uint32_t i = 0; i < entries_.size(); ++i) {
      const uint64_t hash = hash_of(entries_[i].name);
      *slot_of(entries_[i].name, hash) = {static_cast<uint32_t>(hash), i};
    }
  }

  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
};

}  // namespace nf
