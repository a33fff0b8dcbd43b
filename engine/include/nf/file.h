// Files as the engine reads and writes them: checked, synced, and replaced as a whole or not at all.
//
// Every function throws Error that names the file and the system's reason. All of them may run in several
// threads on different files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace nf {

struct WrittenFile {
  int64_t bytes = 0;
  uint64_t hash = 0;  // XXH3-64 of the content, equal to hash_file() of the file
};

// The whole content; Error when it has more than max_bytes.
std::string read_file(const std::filesystem::path& path, int64_t max_bytes = int64_t{1} << 30);

// XXH3-64 of the content.
uint64_t hash_file(const std::filesystem::path& path);

// Writes the pieces one after another into a file beside `path`, syncs it, renames it to `path` and syncs the
// folder. On any failure (a full disk, say) the partial file is removed, what was at `path` is untouched, and
// Error is thrown.
WrittenFile write_file(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces);
WrittenFile write_file(const std::filesystem::path& path, std::string_view text);

// Makes creations, renames and removals in a folder durable.
void sync_folder(const std::filesystem::path& folder);

}  // namespace nf
