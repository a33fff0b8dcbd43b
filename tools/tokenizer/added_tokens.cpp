#include "tools/tokenizer/added_tokens.h"

#include <algorithm>

#include "tools/tokenizer/utf8.h"

namespace nf {
namespace {

size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0U) == 0x80U) --at;
  return at;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1), begins_(256) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    insert(tokens_[i].content, static_cast<int32_t>(i));
    begins_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

int32_t AddedTokenFinder::child(int32_t node, uint8_t byte) const {
  int32_t next = nodes_[static_cast<size_t>(node)].child;
  while (next >= 0 && nodes_[static_cast<size_t>(next)].byte != byte)
    next = nodes_[static_cast<size_t>(next)].sibling;
  return next;
}

void AddedTokenFinder::insert(const std::string& content, int32_t token) {
  int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({.sibling = nodes_[static_cast<size_t>(node)].child, .byte = byte});
      nodes_[static_cast<size_t>(node)].child = next;
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].token = token;
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, size_t at) const {
  int32_t token = -1;
  for (int32_t node = 0; at < text.size(); ++at) {
    node = child(node, static_cast<uint8_t>(text[at]));
    if (node < 0) break;
    if (nodes_[static_cast<size_t>(node)].token >= 0) token = nodes_[static_cast<size_t>(node)].token;
  }
  return token < 0 ? nullptr : &tokens_[static_cast<size_t>(token)];
}

bool AddedTokenFinder::is(const Regex& kind, std::string_view character) {
  return Regex::Matcher().find(kind, character, 0).has_value();
}

bool AddedTokenFinder::stands_alone(std::string_view text, size_t begin, size_t end) const {
  const size_t before = begin == 0 ? 0 : last_character(text.substr(0, begin));
  if (begin > 0 && is(word_, text.substr(before, begin - before))) return false;
  return end == text.size() || !is(word_, text.substr(end, first_character(text.substr(end)).length));
}

size_t AddedTokenFinder::without_space_before(std::string_view text, size_t end) const {
  while (end > 0) {
    const size_t begin = last_character(text.substr(0, end));
    if (!is(space_, text.substr(begin, end - begin))) break;
    end = begin;
  }
  return end;
}

size_t AddedTokenFinder::behind_space(std::string_view text, size_t begin) const {
  while (begin < text.size()) {
    const size_t length = first_character(text.substr(begin)).length;
    if (!is(space_, text.substr(begin, length))) break;
    begin += length;
  }
  return begin;
}

void AddedTokenFinder::split(std::string_view text, bool special, const Part& part) const {
  size_t done = 0;
  for (size_t at = 0; !tokens_.empty() && at < text.size();) {
    const AddedToken* token = begins_[static_cast<uint8_t>(text[at])] ? longest_at(text, at) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->special && !special) continue;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = without_space_before(text, begin);
    if (token->rstrip) end = behind_space(text, end);
    begin = std::max(begin, done);  // the white space may have gone to the token before
    if (done < begin) part(text.substr(done, begin - done), std::nullopt);
    part({}, token->id);
    done = std::max(done, end);
  }
  if (done < text.size()) part(text.substr(done), std::nullopt);
}

}  // namespace nf
