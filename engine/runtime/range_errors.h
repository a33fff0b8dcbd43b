// What every backend says of numbers that a graph is given and cannot use.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace nf {

// `scope`: of the node. An id of a gather of `rows` rows.
inline std::string bad_id(std::string_view scope, int64_t position, int32_t id, int64_t rows) {
  return fmt::format("engine: gather in {}: id {} at position {} is not in [0, {})", scope, id, position,
                     rows);
}

// The offset of an assign_slice of `entries` entries to a state of `capacity`.
inline std::string bad_offset(std::string_view scope, int32_t offset, int64_t entries, int64_t capacity) {
  return fmt::format("engine: assign_slice in {}: {} entries from {} on do not fit in {}", scope, entries,
                     offset, capacity);
}

}  // namespace nf
