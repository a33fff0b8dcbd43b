// Datasets of the Hugging Face hub, fetched into the cache that its own libraries use.
//
//     const std::vector<std::filesystem::path> files = fetch_dataset("roneneldan/TinyStories@main", {});
//
// An id is OWNER/NAME, with @REVISION (a branch, tag or commit) behind it where not the newest is
// wanted. Without a revision the hub's own conversion to Parquet is read, which has folders for subsets and
// splits; else, or where that holds only part of the data, the repository's files, whose splits are told by
// their names as the library `datasets` tells them (train, validation, test, and what it takes for these).
//
// Files lie in HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub, under
// datasets--OWNER--NAME/{refs,blobs,snapshots}, and are shared with the hub's libraries both ways. They are
// downloaded once, resumed where a connection broke off, and taken only when size and hash (SHA-256, or git's
// of small files) are right. Where the hub does not answer, one line says so and what the cache holds is
// used. Other variables of these libraries that count here: HF_ENDPOINT, HF_HUB_OFFLINE=1 (the cache alone),
// HF_TOKEN, HF_TOKEN_PATH (else HF_HOME/token holds it). The token goes to the endpoint alone, never where
// that redirects to.
//
// Throws Error that names the dataset and what to do.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

struct HubChoice {
  std::string subset;           // empty: the only one, or "default"
  std::string split = "train";  // also the only one, where there is no "train"
};

// Whether a name that is no path could be a dataset's: one slash, no extension of a data file, and no folder
// of the owner's name.
bool looks_like_dataset(std::string_view name);

// The local files, in the order of their names.
std::vector<std::filesystem::path> fetch_dataset(std::string_view id, const HubChoice& choice);

// --- the parts, for tests

// Of the paths in a repository, those of the chosen subset and split. `converted`: they are laid out as
// SUBSET/SPLIT/*.parquet. Error that lists what there is.
std::vector<std::string> choose_dataset_files(const std::vector<std::string>& paths, bool converted,
                                              const HubChoice& choice, std::string_view dataset);

}  // namespace nf
