// Small readers around a config: where its file is, what a mistyped word meant, and sizes in bytes.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "models/config.h"
#include "nf/error.h"
#include "nf/json.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

// Folders that may hold shipped configs, best first.
std::vector<fs::path> config_folders() {
  std::vector<fs::path> folders;
  std::error_code none;
  const fs::path program = fs::read_symlink("/proc/self/exe", none);
  if (!none) {
    const fs::path bin = program.parent_path();
    folders = {bin / "models/configs", bin / "../models/configs", bin / "../../models/configs",
               bin / "../share/nanoformer/configs"};
  }
#ifdef NF_CONFIG_DIR
  folders.emplace_back(NF_CONFIG_DIR);
#endif
  return folders;
}

// Number of edits that turn a into b: insert, delete, replace, swap of neighbours. Letters' case counts for
// nothing.
size_t edit_distance(std::string_view a, std::string_view b) {
  const auto same = [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  };
  const size_t width = b.size() + 1;
  std::vector<size_t> table((a.size() + 1) * width);
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      size_t& cell = table[i * width + j];
      if (i == 0 || j == 0) {
        cell = i + j;
        continue;
      }
      const size_t replaced = table[(i - 1) * width + j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1);
      cell = std::min({table[(i - 1) * width + j] + 1, table[i * width + j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]);
      if (swapped) cell = std::min(cell, table[(i - 2) * width + j - 2] + 1);
    }
  }
  return table.back();
}

struct Unit {
  std::string_view suffix;
  double bytes;
};
constexpr std::array<Unit, 10> kUnits = {{{"", 1},
                                          {"B", 1},
                                          {"KB", 1e3},
                                          {"MB", 1e6},
                                          {"GB", 1e9},
                                          {"TB", 1e12},
                                          {"KiB", 1024.0},
                                          {"MiB", 1048576.0},
                                          {"GiB", 1073741824.0},
                                          {"TiB", 1099511627776.0}}};

}  // namespace

std::string_view nearest(std::string_view word, std::span<const std::string_view> known) {
  constexpr size_t kLongest = 64;  // nothing so long is a slip of a key, and the table stays small
  if (word.empty() || word.size() > kLongest) return {};
  std::string_view best;
  size_t least = std::max<size_t>(2, word.size() / 2) + 1;
  for (const std::string_view candidate : known) {
    const size_t distance = edit_distance(word, candidate);
    const bool alike = 2 * distance <= std::max(word.size(), candidate.size());  // half the letters stay
    if (alike && distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

fs::path find_config(std::string_view name) {
  require(!name.empty(), "config: no name given");
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) return name;
  std::set<std::string> shipped;
  for (const fs::path& folder : config_folders()) {
    for (const fs::path& file : {folder / name, folder / (std::string(name) + ".json")})
      if (fs::is_regular_file(file, ignored)) return file.lexically_normal();
    for (const auto& entry : fs::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".json") shipped.insert(entry.path().stem().string());
  }
  if (shipped.empty()) fail("config: no file '{}', and no shipped configs were found", printable(name));
  fail("config: no file '{}', and no shipped config of that name; shipped are {}", printable(name),
       fmt::join(shipped, ", "));
}

GradientCheckpointing parse_gradient_checkpointing(std::string_view text, std::string_view source) {
  using Mode = GradientCheckpointing::Mode;
  if (text == "none") return {};
  if (text == "layer") return {.mode = Mode::layer};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view suffix(end, static_cast<size_t>(text.data() + text.size() - end));
  while (suffix.starts_with(' ')) suffix.remove_prefix(1);
  const auto unit =
      std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.suffix == suffix; });
  const double bytes = unit == kUnits.end() ? 0 : number * unit->bytes;
  require(error == std::errc() && bytes >= 1 && bytes < 0x1p62,
          "{}: expected none, layer or bytes (6GiB, 512MiB, 2GB, 1000000), not '{}'", source,
          printable(text));
  return {.mode = Mode::bytes, .bytes = static_cast<int64_t>(bytes)};
}

std::string to_string(const GradientCheckpointing& checkpointing) {
  switch (checkpointing.mode) {
    case GradientCheckpointing::Mode::none: return "none";
    case GradientCheckpointing::Mode::layer: return "layer";
    case GradientCheckpointing::Mode::bytes: return std::to_string(checkpointing.bytes);
  }
  return "";
}

}  // namespace nf
