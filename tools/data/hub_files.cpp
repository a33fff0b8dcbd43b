// Which files of a dataset's repository hold which subset and split.
#include <nf/error.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <set>

#include "tools/data/byte_stream.h"
#include "tools/data/hub.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartial = "partial-";  // before the split, where only part is converted

struct Keyword {
  std::string_view word, split;
};
// As `datasets` has them (data_files.py, SPLIT_KEYWORDS).
constexpr auto kKeywords = std::to_array<Keyword>({{"train", "train"},
                                                   {"training", "train"},
                                                   {"validation", "validation"},
                                                   {"valid", "validation"},
                                                   {"dev", "validation"},
                                                   {"val", "validation"},
                                                   {"test", "test"},
                                                   {"testing", "test"},
                                                   {"eval", "test"},
                                                   {"evaluation", "test"}});

bool is_data_file(const fs::path& path) {
  const std::string extension = unpacked_name(path).extension().string();
  return extension == ".parquet" || extension == ".jsonl" || extension == ".ndjson" || extension == ".txt";
}

// Whether the word stands in the name between its ends, digits, or one of - . _ and blank.
bool has_word(std::string_view name, std::string_view word) {
  const auto is_border = [&](size_t at) {
    return at >= name.size() || std::isdigit(static_cast<unsigned char>(name[at])) != 0 ||
           std::string_view("-._ ").find(name[at]) != std::string_view::npos;
  };
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1))
    if ((at == 0 || is_border(at - 1)) && is_border(at + word.size())) return true;
  return false;
}

std::optional<std::string> keyword_split(std::string_view name) {
  for (const Keyword& keyword : kKeywords)
    if (has_word(name, keyword.word)) return std::string(keyword.split);
  return std::nullopt;
}

// NAME of "NAME-00003-of-00017.parquet".
std::optional<std::string> sharded_split(const std::string& name) {
  const size_t of = name.find("-of-");
  if (of == std::string::npos || of < 7 || name[of - 6] != '-') return std::nullopt;
  const bool digits =
      std::all_of(name.begin() + static_cast<ptrdiff_t>(of) - 5, name.begin() + static_cast<ptrdiff_t>(of),
                  [](unsigned char letter) { return std::isdigit(letter) != 0; });
  return digits ? std::optional(name.substr(0, of - 6)) : std::nullopt;
}

// The file's own name counts before its folders.
std::optional<std::string> split_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (auto split = keyword_split(name)) return split;
  if (auto split = sharded_split(name)) return split;
  std::optional<std::string> found;
  for (const fs::path& folder : path.parent_path())
    if (auto split = keyword_split(folder.string())) found = std::move(split);
  return found;
}

template <typename Map>
std::string listed(const Map& map) {
  std::string names;
  for (const auto& [name, value] : map) names += (names.empty() ? "" : ", ") + name;
  return names;
}

using Files = std::vector<std::string>;

// One of several by its name; else the only one, or the usual one.
const Files& choose(const std::map<std::string, Files>& all, const std::string& wanted,
                    std::string_view usual, bool must, std::string_view what, std::string_view dataset) {
  if (const auto found = all.find(wanted); found != all.end()) return found->second;
  require(!must, "hub: {} has no {} '{}'; there is: {}", dataset, what, wanted, listed(all));
  if (all.size() == 1) return all.begin()->second;
  const auto found = all.find(std::string(usual));
  require(found != all.end(), "hub: {} has several {}s; choose one with --{}: {}", dataset, what, what,
          listed(all));
  return found->second;
}

Files choose_converted(const Files& paths, const HubChoice& choice, std::string_view dataset) {
  std::map<std::string, Files> subsets;
  for (const std::string& path : paths) {
    const size_t first = path.find('/'), second = path.find('/', first + 1);
    if (second == std::string::npos || !path.ends_with(".parquet")) continue;
    subsets[path.substr(0, first)].push_back(path);
  }
  require(!subsets.empty(), "hub: {} has no Parquet files", dataset);
  std::map<std::string, Files> splits;
  for (const std::string& path :
       choose(subsets, choice.subset, "default", !choice.subset.empty(), "subset", dataset)) {
    const size_t first = path.find('/');
    splits[path.substr(first + 1, path.find('/', first + 1) - first - 1)].push_back(path);
  }
  if (const auto part = splits.find(std::string(kPartial) + choice.split); part != splits.end())
    fail("hub: of split '{}' of {} only a part is converted to Parquet", choice.split, dataset);
  return choose(splits, choice.split, "train", choice.split != HubChoice().split, "split", dataset);
}

Files choose_repository(const Files& paths, const HubChoice& choice, std::string_view dataset) {
  Files data;
  for (const std::string& path : paths) {
    const fs::path file = path;
    const bool hidden = path.front() == '.' || path.find("/.") != std::string::npos;
    const bool described = file.filename() == "README.txt" || file.filename() == "LICENSE.txt" ||
                           file.filename() == "requirements.txt";
    if (!is_data_file(file) || hidden || described) continue;
    const fs::path folders = file.parent_path();
    if (choice.subset.empty() || std::find(folders.begin(), folders.end(), choice.subset) != folders.end())
      data.push_back(path);
  }
  require(!data.empty(), "hub: {} has no .parquet, .jsonl or .txt files{}", dataset,
          choice.subset.empty() ? "" : " in a folder " + choice.subset);
  std::map<std::string, Files> splits;
  for (const std::string& path : data)
    if (auto split = split_of(path)) splits[*split].push_back(path);
  if (splits.empty()) splits["train"] = data;
  return choose(splits, choice.split, "train", choice.split != HubChoice().split, "split", dataset);
}

}  // namespace

bool looks_like_dataset(std::string_view name) {
  const std::string_view id = name.substr(0, name.find('@'));
  const size_t slash = id.find('/');
  if (id.empty() || id.front() == '.' || id.back() == '/' || slash == 0) return false;
  if (slash != std::string_view::npos && id.find('/', slash + 1) != std::string_view::npos) return false;
  if (!std::all_of(id.begin(), id.end(), [](unsigned char letter) {
        return std::isalnum(letter) != 0 ||
               std::string_view("/-_.").find(static_cast<char>(letter)) != std::string_view::npos;
      }))
    return false;
  std::error_code ignored;
  return slash != std::string_view::npos && !is_data_file(id) &&
         unpacked_name(fs::path(id)) == fs::path(id) && !fs::exists(fs::path(id).parent_path(), ignored);
}

std::vector<std::string> choose_dataset_files(const std::vector<std::string>& paths, bool converted,
                                              const HubChoice& choice, std::string_view dataset) {
  Files files =
      converted ? choose_converted(paths, choice, dataset) : choose_repository(paths, choice, dataset);
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace nf
