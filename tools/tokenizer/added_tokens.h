// The added tokens of a tokenizer.json, found in text before anything else is done to it: special ones
// ("<|endoftext|>") and others that are never cut.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/tokenizer/regex.h"

namespace nf {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // not empty, valid UTF-8
  bool special = false;      // has no text of its own
  bool single_word = false;  // only between characters that belong to no word
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // looked for in the normalized text
};

// Where added tokens are in a text, as Hugging Face's library finds them: the leftmost match, the longest of
// those that begin there, then on behind it. Immutable.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // Cuts `text` (valid UTF-8) into added tokens and what lies between, which is never empty, in order.
  // Special tokens are passed over as ordinary text unless `special` is set.
  using Part = std::function<void(std::string_view text, std::optional<int32_t> token)>;
  void split(std::string_view text, bool special, const Part& part) const;

 private:
  // Nodes of a tree of bytes; the children of a node are a chain of siblings.
  struct Node {
    int32_t child = -1, sibling = -1, token = -1;
    uint8_t byte = 0;
  };
  void insert(const std::string& content, int32_t token);
  int32_t child(int32_t node, uint8_t byte) const;
  const AddedToken* longest_at(std::string_view text, size_t at) const;
  static bool is(const Regex& kind, std::string_view character);
  bool stands_alone(std::string_view text, size_t begin, size_t end) const;
  size_t without_space_before(std::string_view text, size_t end) const;
  size_t behind_space(std::string_view text, size_t begin) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::vector<bool> begins_;  // by first byte
  Regex word_{"\\w"}, space_{"\\s"};
};

}  // namespace nf
