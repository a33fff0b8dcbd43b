#include "tools/tracking/wandb_log.h"

#include <zlib.h>

#include <algorithm>

#include "tools/tracking/protobuf.h"

namespace nf {
namespace {

constexpr size_t kBlock = 32 * 1024, kHead = 7;
constexpr uint64_t kMagic = 0xBEE1, kVersion = 0;
enum ChunkType : uint8_t { kWhole = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

uint64_t checksum(std::string_view bytes) {
  return ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

size_t left_in_block(size_t at) { return kBlock - at % kBlock; }

void append_chunk(std::string& out, ChunkType type, std::string_view data) {
  const std::string checked = static_cast<char>(type) + std::string(data);
  append_fixed(out, checksum(checked), 4);
  append_fixed(out, data.size(), 2);
  out += checked;
}

}  // namespace

std::string wandb_log_header() {
  std::string header = ":W&B";
  append_fixed(header, kMagic, 2);
  append_fixed(header, kVersion, 1);
  return header;
}

std::string wandb_log_record(std::string_view record, int64_t size) {
  std::string out;
  const auto begin = static_cast<size_t>(size);
  // A block's end that has no room for a head stays empty.
  if (left_in_block(begin) < kHead) out.append(left_in_block(begin), '\0');
  bool first = true;
  do {
    const size_t room = left_in_block(begin + out.size()) - kHead, taken = std::min(room, record.size());
    const bool last = taken == record.size();
    append_chunk(out, first ? (last ? kWhole : kFirst) : (last ? kLast : kMiddle), record.substr(0, taken));
    record.remove_prefix(taken);
    first = false;
    if (last) return out;
  } while (true);
}

int64_t read_wandb_log(std::string_view log,
                       const std::function<bool(std::string_view record, int64_t before)>& visit) {
  if (!log.starts_with(wandb_log_header())) return 0;
  size_t whole = kHead;  // bytes until the end of the last whole record
  std::string record;
  for (size_t at = whole; at < log.size();) {
    if (left_in_block(at) < kHead) {
      at += left_in_block(at);
      continue;
    }
    if (log.size() - at < kHead) break;
    const uint64_t length = read_fixed(log, at + 4, 2);
    if (length > log.size() - at - kHead || length > left_in_block(at) - kHead) break;
    const std::string_view checked = log.substr(at + kHead - 1, length + 1);
    const auto type = static_cast<uint8_t>(checked[0]);
    const bool begins = type == kWhole || type == kFirst, goes_on = type == kMiddle || type == kLast;
    if (read_fixed(log, at, 4) != checksum(checked) || (!begins && !goes_on) || goes_on == record.empty())
      break;
    record += checked;  // with a byte for the type, so that it is not empty once begun
    record.erase(record.size() - checked.size(), goes_on ? 1 : 0);
    at += kHead + length;
    if (type != kWhole && type != kLast) continue;
    if (!visit(std::string_view(record).substr(1), static_cast<int64_t>(whole))) break;
    whole = at;
    record.clear();
  }
  return static_cast<int64_t>(whole);
}

}  // namespace nf
