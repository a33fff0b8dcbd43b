#include "tools/tokenizer/bpe_tokenizer.h"

#include <nf/error.h>

#include <algorithm>

#include "tools/tokenizer/utf8.h"

namespace nf {

std::string DecodedStrip::apply(std::string_view text) const {
  for (int64_t i = 0; i < start && text.starts_with(character); ++i) text.remove_prefix(character.size());
  for (int64_t i = 0; i < stop && text.ends_with(character); ++i) text.remove_suffix(character.size());
  return std::string(text);
}

struct BpeTokenizer::Workspace {
  BpeModel::Cache cache;
  Regex::Matcher matcher;
  std::string normalized;
};

// A workspace for the time of one call.
class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    {
      const std::lock_guard lock(owner_.mutex_);
      if (!owner_.idle_.empty()) {
        held_ = std::move(owner_.idle_.back());
        owner_.idle_.pop_back();
      }
    }
    if (!held_) held_ = std::make_unique<Workspace>();
  }
  ~Lease() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(held_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Workspace& operator*() const { return *held_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Workspace> held_;
};

BpeTokenizer::BpeTokenizer(BpeTokenizerParts parts)
    : parts_(std::move(parts)), model_(std::move(parts_.model)) {
  std::vector<AddedToken> raw, normalized;
  Regex::Matcher matcher;
  std::string memory;
  for (const AddedToken& token : parts_.added) {
    any_ordinary_added_ |= !token.special;
    AddedToken wanted = token;
    if (token.normalized) wanted.content = parts_.normalizer.normalize(token.content, memory, matcher);
    if (!wanted.content.empty()) (token.normalized ? normalized : raw).push_back(std::move(wanted));
  }
  raw_added_ = AddedTokenFinder(std::move(raw));
  normalized_added_ = AddedTokenFinder(std::move(normalized));
}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  encode(text, false, ids);
}

void BpeTokenizer::encode_special(std::string_view text, std::vector<int32_t>& ids) const {
  encode(text, true, ids);
}

void BpeTokenizer::encode(std::string_view text, bool special, std::vector<int32_t>& ids) const {
  const Lease lease(*this);
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    const size_t valid = find_invalid_utf8(rest).value_or(rest.size());
    if (valid > 0) encode_valid(rest.substr(0, valid), at == 0, special, *lease, ids);
    at += valid;
    if (at == text.size()) break;
    const size_t length = first_character(text.substr(at)).length;
    encode_invalid(text.substr(at, length), at, *lease, ids);
    at += length;
  }
}

void BpeTokenizer::encode_valid(std::string_view text, bool at_start, bool special, Workspace& work,
                                std::vector<int32_t>& ids) const {
  const WordSink word = [&](std::string_view piece) { model_.encode(piece, work.cache, ids); };
  const auto encode_text = [&](std::string_view piece, bool first) {
    parts_.pre_tokenizer.split(piece, first, work.matcher, word);
  };
  const auto normalize_and_encode = [&](std::string_view raw) {
    const bool first = at_start && raw.data() == text.data();
    const std::string_view clean = parts_.normalizer.normalize(raw, work.normalized, work.matcher);
    if (normalized_added_.empty()) return encode_text(clean, first);
    normalized_added_.split(clean, special, [&](std::string_view piece, std::optional<int32_t> token) {
      if (token)
        ids.push_back(*token);
      else
        encode_text(piece, first && piece.data() == clean.data());
    });
  };
  if (!special && !any_ordinary_added_) return normalize_and_encode(text);
  raw_added_.split(text, special, [&](std::string_view piece, std::optional<int32_t> token) {
    if (token)
      ids.push_back(*token);
    else
      normalize_and_encode(piece);
  });
}

void BpeTokenizer::encode_invalid(std::string_view bytes, size_t place, Workspace& work,
                                  std::vector<int32_t>& ids) const {
  const BpeParts& model = model_.parts();
  require(model.bytes || !model.byte_fallback.empty(),
          "tokenizer: invalid UTF-8 at byte {}, and the vocabulary has no tokens of bytes", place);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (model.bytes)
      model_.encode(bytes.substr(i, 1), work.cache, ids);
    else
      ids.push_back(model.byte_fallback[static_cast<uint8_t>(bytes[i])]);
  }
}

size_t BpeTokenizer::check(int32_t id) const {
  require(id >= 0 && id < vocab_size(), "tokenizer: id {} is outside the vocabulary of {}", id, vocab_size());
  return static_cast<size_t>(id);
}

std::string BpeTokenizer::piece(int32_t id) const { return parts_.pieces[check(id)]; }

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  bool first = !parts_.first_pieces.empty();
  for (const int32_t id : ids) {
    const std::string& piece = first ? parts_.first_pieces[check(id)] : parts_.pieces[check(id)];
    text += piece;
    first = first && parts_.pieces[check(id)].empty();  // special tokens do not begin a text
  }
  for (const DecodedStrip& strip : parts_.strips) text = strip.apply(text);
  return text;
}

}  // namespace nf
