// Checkpoints of a training run: complete and verified, or not there at all.
//
//     RUN/checkpoint-300/     model.safetensors (beyond 5 GB in shards, with model.safetensors.index.json)
//                             optimizer.safetensors  config.json  trainer_state.json,
//                             generation_config.json  tokenizer.json  tokenizer_config.json,
//                             and written last: manifest.json, size and XXH3 of every file
//                             (of an adapter adapter_model.safetensors takes the model's place; see
//                             tools/lora.h)
//     RUN/best                a relative symbolic link to the checkpoint with the best validation loss
//     RUN/checkpoint-400.tmp  being written and locked; the next writer removes what a dead one left
//
// A checkpoint is written as a .tmp folder, synced, and renamed. Whatever stops the writer, the checkpoints
// before it stay as they were. One process writes a run; any number may read it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nf/device.h"
#include "nf/safetensors.h"

namespace nf {

struct CheckpointData {
  std::vector<NamedTensor> model;      // parameters: model.safetensors or its shards
  std::vector<NamedTensor> optimizer;  // moments, counters, averages: optimizer.safetensors
  std::vector<Buffer> copies = {};     // that the tensors' bytes are in; none: they are the State's own
  std::string config_json;
  std::string trainer_state_json;
  std::vector<std::pair<std::string, std::string>> files;  // (plain name, content): the tokenizer's
  bool adapter = false;                                    // the model's tensors are an adapter's
  int64_t shard_bytes = SafetensorsWriter::kShardBytes;    // the model's; see SafetensorsWriter
};

// RUN/checkpoint-STEP.
std::filesystem::path checkpoint_folder(const std::filesystem::path& run, int64_t step);

// Writes RUN/checkpoint-STEP (creating RUN) and returns its path; an existing one of that step is replaced.
// Error when anything cannot be written, a full disk above all: then the .tmp folder is gone and nothing else
// has changed.
std::filesystem::path write_checkpoint(const std::filesystem::path& run, int64_t step,
                                       const CheckpointData& data);

// Points RUN/best at RUN/checkpoint-STEP, atomically.
void mark_best(const std::filesystem::path& run, int64_t step);

// Removes all but the newest `keep` (>= 1) checkpoints and the one that RUN/best points at; returns what it
// removed.
std::vector<std::filesystem::path> prune_checkpoints(const std::filesystem::path& run, int64_t keep);

// Removes .tmp folders whose writer is gone. write_checkpoint does this too.
void clean_stale(const std::filesystem::path& run);

// Why a checkpoint folder cannot be trusted, in one line; none when every file has the size and hash of the
// manifest.
std::optional<std::string> find_damage(const std::filesystem::path& checkpoint);

struct FoundCheckpoint {
  std::optional<std::filesystem::path> folder;  // none: no valid checkpoint
  int64_t step = 0;
  std::vector<std::string> messages;  // one line for every damaged checkpoint that was passed over
};

// The newest checkpoint of a run whose files are whole. A run that does not exist has none.
FoundCheckpoint latest_valid(const std::filesystem::path& run);

// What `--resume DIR` means: a checkpoint folder (Error when it is damaged), or a run, whose latest_valid is
// taken (Error when it has none).
FoundCheckpoint find_checkpoint(const std::filesystem::path& folder);

// An opened checkpoint. Does not verify hashes: call find_damage first, or take a folder from the functions
// above.
struct Checkpoint {
  std::filesystem::path folder;
  int64_t step = 0;
  SafetensorsFile model;
  SafetensorsFile optimizer;
  std::string config_json;
  std::string trainer_state_json;
};
Checkpoint open_checkpoint(const std::filesystem::path& folder);

}  // namespace nf
