#include "tools/trainer/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <system_error>

#include "nf/error.h"
#include "nf/json.h"
#include "tools/lora.h"

namespace nf {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kPartial = ".tmp";
constexpr std::string_view kAside = ".old.tmp";
constexpr const char* kManifest = "manifest.json";
constexpr const char* kModel = "model.safetensors";
constexpr const char* kModelIndex = "model.safetensors.index.json";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kConfig = "config.json";
constexpr const char* kState = "trainer_state.json";
constexpr const char* kBest = "best";
constexpr int kFormat = 1;
constexpr int64_t kMaxText = int64_t{1} << 28;  // of a JSON file

[[noreturn]] void fail_system(const fs::path& path, std::string_view what) {
  fail("{}: {}: {}", path.string(), what, std::generic_category().message(errno));
}

std::string folder_name(int64_t step) { return fmt::format("{}{}", kPrefix, step); }

// The step in "checkpoint-300" or "300"; none for any other name, so that nobody else's folder is taken for
// ours.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  const bool whole = error == std::errc() && end == name.data() + name.size();
  return whole && step >= 0 && std::to_string(step) == name ? std::optional(step) : std::nullopt;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

// A folder locked against clean_stale; the system releases the lock when the process ends, however it ends.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    locked_ = descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  bool locked() const { return locked_; }

 private:
  int descriptor_;
  bool locked_ = false;
};

// The .tmp folder of a checkpoint being written; disappears unless it was renamed.
class PartialFolder {
 public:
  explicit PartialFolder(fs::path path) : path_(create(std::move(path))), lock_(path_) {
    require(lock_.locked(), "{}: another process is writing this checkpoint", path_.string());
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;
  ~PartialFolder() {
    std::error_code ignored;
    if (lock_.locked()) fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }

  // Puts the folder at `target`. What was there takes the .tmp name in the same moment, and goes with this
  // object.
  void publish(const fs::path& target) {
    if (::rename(path_.c_str(), target.c_str()) == 0) return;
    if (errno != ENOTEMPTY && errno != EEXIST) fail_system(target, "cannot rename the finished checkpoint");
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
    // A file system that cannot exchange: the old one steps aside first.
    const fs::path aside = target.string() + std::string(kAside);
    if (::rename(target.c_str(), aside.c_str()) != 0)
      fail_system(target, "cannot set the old checkpoint aside");
    if (::rename(path_.c_str(), target.c_str()) != 0)
      fail_system(target, "cannot rename the finished checkpoint");
    std::error_code ignored;
    fs::remove_all(aside, ignored);
  }

 private:
  static fs::path create(fs::path path) {
    if (::mkdir(path.c_str(), 0755) != 0) fail_system(path, "cannot create folder");
    return path;
  }

  fs::path path_;
  FolderLock lock_;
};

// Writes the files of one checkpoint and notes what the manifest says about each.
class FolderWriter {
 public:
  explicit FolderWriter(fs::path folder) : folder_(std::move(folder)) {}

  void model(const std::vector<NamedTensor>& tensors, int64_t shard_bytes) {
    for (const auto& [name, written] : writer_of(tensors).write_model(folder_, shard_bytes))
      note(name, written);
  }

  void tensors(const char* name, const std::vector<NamedTensor>& tensors) {
    note(name, writer_of(tensors).write(folder_ / name));
  }

  void text(const std::string& name, std::string_view content) {
    require(is_plain_name(name) && !files_.contains(name) && name != kManifest,
            "checkpoint: file name '{}' is taken or not a plain name", printable(name));
    note(name, write_file(folder_ / name, content));
  }

  void manifest(int64_t step) {
    const json manifest = {{"format", kFormat}, {"step", step}, {"files", files_}};
    write_file(folder_ / kManifest, manifest.dump(2) + "\n");
  }

 private:
  static SafetensorsWriter writer_of(const std::vector<NamedTensor>& tensors) {
    SafetensorsWriter writer(Metadata{{"format", "pt"}});  // Hugging Face's loaders want this said
    for (const NamedTensor& tensor : tensors) writer.add(tensor);
    return writer;
  }

  void note(const std::string& name, const WrittenFile& written) {
    files_[name] = {{"bytes", written.bytes}, {"xxh3", fmt::format("{:016x}", written.hash)}};
  }

  fs::path folder_;
  json files_ = json::object();
};

struct StepFolder {
  int64_t step;
  fs::path path;
};

// Checkpoints of a run, newest first, damaged ones included.
std::vector<StepFolder> list_checkpoints(const fs::path& run) {
  std::vector<StepFolder> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run, error))
    if (const auto step = step_of(entry.path().filename().string()); step && entry.is_directory(error))
      found.push_back({*step, entry.path()});
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

json read_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kManifest;
  const std::string text = read_file(path, kMaxText);
  check_json(text, path.string());
  json manifest = json::parse(text);
  require(manifest.is_object() && manifest.value("files", json()).is_object() &&
              manifest.value("step", json()).is_number_unsigned() &&
              manifest["step"].get<uint64_t>() <= INT64_MAX,
          "{}: expected 'step' and 'files'", path.string());
  require(manifest.value("format", json()) == kFormat, "{}: 'format' must be {}; written by another version",
          path.string(), kFormat);
  return manifest;
}

void check_file(const fs::path& checkpoint, const std::string& name, const json& noted) {
  require(is_plain_name(name), "{}: file '{}' is not a plain name", (checkpoint / kManifest).string(),
          printable(name));
  const fs::path path = checkpoint / name;
  require(noted.is_object() && noted.value("bytes", json()).is_number_unsigned() &&
              noted.value("xxh3", json()).is_string(),
          "{}: file '{}' needs 'bytes' and 'xxh3'", (checkpoint / kManifest).string(), printable(name));
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  require(!error, "{}: missing: {}", path.string(), error.message());
  require(bytes == noted["bytes"].get<uint64_t>(), "{}: {} bytes, the manifest says {}", path.string(), bytes,
          noted["bytes"].get<uint64_t>());
  require(fmt::format("{:016x}", hash_file(path)) == noted["xxh3"].get<std::string>(),
          "{}: its hash is not the manifest's; the file was altered or only partly written", path.string());
}

void check_checkpoint(const fs::path& checkpoint) {
  const json manifest = read_manifest(checkpoint);
  const json& files = manifest["files"];
  const bool other = files.contains(kModelIndex) || files.contains(kAdapterModel);
  for (const char* name : {other ? kOptimizer : kModel, kOptimizer, kConfig, kState})
    require(files.contains(name), "{}: lists no {}", (checkpoint / kManifest).string(), name);
  for (const auto& [name, noted] : files.items()) check_file(checkpoint, name, noted);
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run, int64_t step) { return run / folder_name(step); }

fs::path write_checkpoint(const fs::path& run, int64_t step, const CheckpointData& data) {
  require(step >= 0, "checkpoint: step {} is negative", step);
  std::error_code error;
  fs::create_directories(run, error);
  require(!error, "{}: cannot create folder: {}", run.string(), error.message());
  clean_stale(run);

  const fs::path target = checkpoint_folder(run, step);
  PartialFolder partial(target.string() + std::string(kPartial));
  FolderWriter writer(partial.path());
  if (data.adapter)
    writer.tensors(kAdapterModel, data.model);
  else
    writer.model(data.model, data.shard_bytes);
  writer.tensors(kOptimizer, data.optimizer);
  writer.text(kConfig, data.config_json);
  writer.text(kState, data.trainer_state_json);
  for (const auto& [name, content] : data.files) writer.text(name, content);
  writer.manifest(step);  // last: a folder with a manifest is complete
  sync_folder(partial.path());
  partial.publish(target);
  sync_folder(run);
  return target;
}

void mark_best(const fs::path& run, int64_t step) {
  const std::string target = folder_name(step);
  std::error_code ignored;
  require(fs::is_directory(run / target, ignored), "{}: no such checkpoint to mark as best",
          (run / target).string());
  const fs::path link = run / kBest;
  const fs::path fresh = run / fmt::format(".{}.{}{}", kBest, ::getpid(), kPartial);
  ::unlink(fresh.c_str());
  if (::symlink(target.c_str(), fresh.c_str()) != 0) fail_system(link, "cannot create link");
  if (::rename(fresh.c_str(), link.c_str()) != 0) {
    const int reason = errno;
    ::unlink(fresh.c_str());
    errno = reason;
    fail_system(link, "cannot replace link");
  }
  sync_folder(run);
}

std::vector<fs::path> prune_checkpoints(const fs::path& run, int64_t keep) {
  require(keep >= 1, "checkpoint: must keep at least 1, not {}", keep);
  std::error_code error;
  const std::string best =
      fs::read_symlink(run / kBest, error).filename().string();  // empty when there is none
  std::vector<fs::path> removed;
  int64_t kept = 0;
  for (const StepFolder& checkpoint : list_checkpoints(run)) {
    if (kept++ < keep || checkpoint.path.filename() == best) continue;
    // The manifest goes first: a half removed checkpoint must not pass for a whole one.
    fs::remove(checkpoint.path / kManifest, error);
    fs::remove_all(checkpoint.path, error);
    require(!error, "{}: cannot remove: {}", checkpoint.path.string(), error.message());
    removed.push_back(checkpoint.path);
  }
  return removed;
}

void clean_stale(const fs::path& run) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(run, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kPartial) && entry.is_directory(error))
      stale.push_back(entry.path());
  }
  for (const fs::path& folder : stale) {
    const FolderLock lock(folder);
    if (!lock.locked()) continue;
    // One that was set aside and whose successor never came goes back to its place.
    const std::string name = folder.string();
    const fs::path place = name.ends_with(kAside) ? name.substr(0, name.size() - kAside.size()) : name;
    if (place != folder && !fs::exists(place, error))
      fs::rename(folder, place, error);
    else
      fs::remove_all(folder, error);
  }
}

std::optional<std::string> find_damage(const fs::path& checkpoint) {
  try {
    check_checkpoint(checkpoint);
  } catch (const Error& error) {
    return error.what();
  }
  return std::nullopt;
}

FoundCheckpoint latest_valid(const fs::path& run) {
  FoundCheckpoint found;
  for (const StepFolder& checkpoint : list_checkpoints(run)) {
    if (const auto damage = find_damage(checkpoint.path)) {
      found.messages.push_back(fmt::format("passing over {}: {}", checkpoint.path.string(), *damage));
      continue;
    }
    found.folder = checkpoint.path;
    found.step = checkpoint.step;
    break;
  }
  return found;
}

FoundCheckpoint find_checkpoint(const fs::path& folder) {
  std::error_code error;
  require(fs::is_directory(folder, error), "{}: no such folder to resume from", folder.string());
  if (fs::exists(folder / kManifest, error) || step_of(folder.filename().string())) {
    if (const auto damage = find_damage(folder))
      fail("{}; resume from the run's folder to use the one before", *damage);
    return {.folder = folder, .step = read_manifest(folder)["step"].get<int64_t>(), .messages = {}};
  }
  FoundCheckpoint found = latest_valid(folder);
  if (!found.folder && !found.messages.empty())
    fail("{}: no whole checkpoint to resume from ({})", folder.string(), found.messages.front());
  require(found.folder.has_value(), "{}: no checkpoint to resume from", folder.string());
  return found;
}

Checkpoint open_checkpoint(const fs::path& folder) {
  Checkpoint checkpoint;
  checkpoint.folder = folder;
  checkpoint.step = read_manifest(folder)["step"].get<int64_t>();
  checkpoint.model = SafetensorsFile::open(is_adapter(folder) ? folder / kAdapterModel : folder);
  checkpoint.optimizer = SafetensorsFile::open(folder / kOptimizer);
  checkpoint.config_json = read_file(folder / kConfig, kMaxText);
  checkpoint.trainer_state_json = read_file(folder / kState, kMaxText);
  return checkpoint;
}

}  // namespace nf
