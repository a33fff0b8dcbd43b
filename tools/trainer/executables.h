// The compiled graphs of a training run: one set per batch length, over one State and one arena.
//
// Only one of them runs at a time, so all share the arena; it is planned for the longest batches before
// anything is allocated. Other lengths are compiled when they first occur.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "tools/trainer/plans.h"

namespace nf {

class Executables {
 public:
  // Compiles what the longest batches need, which creates every tensor of the State. Throws Error before
  // anything is allocated when this machine has too little memory for it.
  Executables(const ModelConfig& model, const PlanOptions& options, std::shared_ptr<State> state);

  // Forward and backward; `accumulate`: gradients are added to those of the micro-batch before;
  // `head_similarity`: its loss counts.
  Executable& micro(int64_t length, bool accumulate, bool head_similarity);
  Executable& eval(int64_t length);
  Executable& update() { return *update_; }

  int64_t arena_bytes() const { return arena_bytes_; }
  std::vector<const Executable*> all() const;
  void set_profiling(bool on);

 private:
  using Key = std::pair<int64_t, StepKind>;  // length, what for

  std::unique_ptr<Executable> bind(Plan plan, std::string name);
  Executable& find(Key key);

  ModelConfig model_;
  PlanOptions options_;
  std::shared_ptr<State> state_;
  Buffer arena_;
  int64_t arena_bytes_ = 0;
  bool profiling_ = false;
  std::map<Key, std::unique_ptr<Executable>> steps_;
  std::unique_ptr<Executable> update_;
};

}  // namespace nf
