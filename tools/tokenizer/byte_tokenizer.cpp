#include "tools/tokenizer/byte_tokenizer.h"

#include <nf/error.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace nf {

void ByteTokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  ids.resize(before + text.size());
  std::transform(text.begin(), text.end(), ids.begin() + static_cast<ptrdiff_t>(before),
                 [](char c) { return static_cast<int32_t>(static_cast<uint8_t>(c)); });
}

std::string ByteTokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  bytes.reserve(ids.size());
  for (const int32_t id : ids) {
    require(id >= 0 && id <= kEndOfText, "tokenizer: id {} is outside the byte vocabulary of {}", id,
            vocab_size());
    if (id != kEndOfText) bytes += static_cast<char>(id);
  }
  return bytes;
}

std::string ByteTokenizer::to_json() const {
  return nlohmann::ordered_json{{"format", "nanoformer-tokenizer"}, {"version", 1}, {"kind", "byte"}}.dump(
             1) +
         "\n";
}

}  // namespace nf
