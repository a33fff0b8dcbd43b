// The compiled graphs of a training run: one set per batch length, over one State and one arena.
//
// Only one of them runs at a time, so all share the arena; it is planned for the longest batches before
// anything is allocated. Other lengths are compiled when they first occur.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "models/training_step.h"
#include "tools/settings.h"

namespace nf {

struct ExecutablesOptions {
  int64_t batch = 1;
  int64_t longest = 1;  // batches are at most so long
  DType compute = DType::f32;
  bool documents = false;
  bool accumulates = false;  // steps have more than one micro-batch
  bool evaluates = false;
  Recompute recompute = {};
  OptimizerOptions optimizer = {};
};

class Executables {
 public:
  // Compiles what the longest batches need, which creates every tensor of the State.
  Executables(const ModelConfig& model, const ExecutablesOptions& options, std::shared_ptr<State> state);

  // Forward and backward; `accumulate`: gradients are added to those of the micro-batch before;
  // `head_similarity`: its loss counts.
  Executable& micro(int64_t length, bool accumulate, bool head_similarity);
  Executable& eval(int64_t length);
  Executable& update() { return *update_; }

  int64_t arena_bytes() const { return arena_bytes_; }
  std::vector<const Executable*> all() const;
  void set_profiling(bool on);

 private:
  enum class Kind : uint8_t { first, accumulate, first_similar, accumulate_similar, eval };
  using Key = std::pair<int64_t, Kind>;  // length, what for

  static Kind micro_kind(bool accumulate, bool head_similarity);
  Plan plan_step(Key key) const;
  std::unique_ptr<Executable> bind(Plan plan, std::string name);
  Executable& find(Key key);

  ModelConfig model_;
  ExecutablesOptions options_;
  std::shared_ptr<State> state_;
  Buffer arena_;
  int64_t arena_bytes_ = 0;
  bool profiling_ = false;
  std::map<Key, std::unique_ptr<Executable>> steps_;
  std::unique_ptr<Executable> update_;
};

}  // namespace nf
