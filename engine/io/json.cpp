#include "nf/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "nf/error.h"

namespace nf {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxPrinted = 120;

// "line 3, column 7" of a byte position.
std::string place(std::string_view text, size_t position) {
  const std::string_view before = text.substr(0, std::min(position, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t newline = before.rfind('\n');
  const size_t column = newline == std::string_view::npos ? before.size() : before.size() - newline - 1;
  return fmt::format("line {}, column {}", line, std::max<size_t>(column, 1));
}

// Walks the text event by event and keeps only the keys of the objects that are open.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  Checker(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(); }
  bool end_array() override { return close(); }

  bool key(string_t& key) override {
    if (keys_.back().insert(key).second) return true;
    fail("{}: key '{}' is given twice in one object; keep one of them", source_, printable(key));
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // The parser's text is "[json.exception.…] parse error at line 1, column 2: what": the place is said
    // once, by us.
    std::string_view what = error.what();
    if (const size_t colon = what.find(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    fail("{}: {}: not valid JSON, {}", source_, place(text_, position), printable(what));
  }

 private:
  bool open() {
    require(keys_.size() < kMaxDepth, "{}: JSON nested deeper than {} levels", source_, kMaxDepth);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::string_view text_;
  std::string_view source_;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

void check_json(std::string_view text, std::string_view source) {
  Checker checker(text, source);
  nlohmann::json::sax_parse(text, &checker);
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kMaxPrinted)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  if (text.size() > kMaxPrinted) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80U) != 0)
      out.pop_back();  // no half characters
    out += "…";
  }
  return out;
}

}  // namespace nf
