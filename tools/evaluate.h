// Loss, logits and gradients of a model on given token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "tools/data/batches.h"
#include "tools/load_model.h"

namespace nf {

// Rows of equal length, row-major.
struct IdTable {
  int64_t rows = 0, columns = 0;
  std::vector<int32_t> values;
};

// A JSON list of lists of integers, equally long. `limit`: values must be below it (0: any). Throws Error
// naming the file.
IdTable read_id_table(const std::filesystem::path& file, int64_t limit);

struct EvaluationInput {
  IdTable ids;                       // [B, T + 1]: predicts ids[:, 1:] from ids[:, :-1]
  std::optional<IdTable> targets;    // [B, T] instead of ids[:, 1:]; kIgnoreIndex where there is none
  std::optional<IdTable> documents;  // [B, T]
};

struct Evaluation {
  double loss = 0;  // mean over targets of the training loss: cross entropy, z-loss, weighted head similarity
  int64_t tokens = 0;  // targets
};

// Forward only; with `gradients` also the backward pass, which leaves the gradient of the mean loss in
// grad/NAME.
Evaluation evaluate(LoadedModel& model, const EvaluationInput& input, DType compute, bool gradients);

// Called after every batch: how many are done, and the mean so far.
using EvaluationWatch = std::function<void(int64_t done, const Evaluation& so_far)>;

// Mean cross entropy over the next `count` batches, all of one length.
Evaluation mean_loss(LoadedModel& model, Batches& batches, int64_t count, DType compute,
                     const EvaluationWatch& watch = {});

// Logits of all T + 1 positions, f32 [B, T + 1, V]. With documents the last position is one of its own.
std::vector<float> logits(LoadedModel& model, const EvaluationInput& input, DType compute);

}  // namespace nf
