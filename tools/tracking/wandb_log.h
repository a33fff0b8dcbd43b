// The container of a .wandb file: records in blocks of 32 KiB, as LevelDB's log has them
// (github.com/google/leveldb, doc/log_format.md), but with the checksum of zlib and, at the very start, seven
// bytes that say what it is.
//
// A record is cut into chunks that do not cross a block's end; each has a head: checksum of type and data
// (4 bytes), length (2), type (1): whole, first, middle or last.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace nf {

// The seven bytes.
std::string wandb_log_header();

// The bytes that add a record to a log which has `size` bytes already, the header included.
std::string wandb_log_record(std::string_view record, int64_t size);

// Calls visit(record, bytes of the log before it) for every whole record, until visit returns false or
// something is damaged or cut short. Returns the bytes of the log until there; 0 when it is no such log.
int64_t read_wandb_log(std::string_view log,
                       const std::function<bool(std::string_view record, int64_t before)>& visit);

}  // namespace nf
