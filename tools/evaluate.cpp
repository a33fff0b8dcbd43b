#include "tools/evaluate.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/training_step.h"

namespace nf {
namespace {

IdTable columns(const IdTable& table, int64_t first, int64_t count) {
  IdTable result{table.rows, count, {}};
  for (int64_t row = 0; row < table.rows; ++row)
    for (int64_t column = first; column < first + count; ++column)
      result.values.push_back(table.values[static_cast<size_t>(row * table.columns + column)]);
  return result;
}

void divide(State& state, const std::string& name, double divisor) {
  std::vector<float> values(static_cast<size_t>(state.type(name).shape.elements()));
  state.read(name, std::as_writable_bytes(std::span(values)));
  for (float& value : values) value = static_cast<float>(value / divisor);
  state.write(name, std::as_bytes(std::span(values)));
}

// Documents of T positions as those of T + 1, the last a document of its own.
std::vector<int32_t> with_last_alone(const IdTable& documents) {
  std::vector<int32_t> result;
  for (auto row = documents.values.begin(); row != documents.values.end(); row += documents.columns) {
    result.insert(result.end(), row, row + documents.columns);
    result.push_back(result.back() + 1);
  }
  return result;
}

}  // namespace

IdTable read_id_table(const std::filesystem::path& file, int64_t limit) {
  std::ifstream stream(file);
  require(stream.good(), "{}: cannot be read", file.string());
  const nlohmann::json json = nlohmann::json::parse(stream, nullptr, false);
  require(json.is_array() && !json.empty(), "{}: expected a list of lists of token ids", file.string());
  IdTable table;
  for (const nlohmann::json& row : json) {
    require(row.is_array() && !row.empty(), "{}: row {} is no list of token ids", file.string(), table.rows);
    if (table.rows == 0) table.columns = static_cast<int64_t>(row.size());
    require(static_cast<int64_t>(row.size()) == table.columns, "{}: row {} has {} ids, row 0 has {}",
            file.string(), table.rows, row.size(), table.columns);
    for (const nlohmann::json& id : row) {
      require(id.is_number_integer(), "{}: row {} holds something that is no integer", file.string(),
              table.rows);
      const auto value = id.get<int64_t>();
      require(limit == 0 || (value >= 0 && value < limit), "{}: id {} in row {} is not in [0, {})",
              file.string(), value, table.rows, limit);
      table.values.push_back(static_cast<int32_t>(value));
    }
    ++table.rows;
  }
  return table;
}

Evaluation evaluate(LoadedModel& model, const EvaluationInput& input, DType compute, bool gradients) {
  const int64_t length = input.ids.columns - 1;
  require(length >= 1, "evaluation: rows need at least two ids");
  const IdTable ids = columns(input.ids, 0, length);
  const IdTable targets = input.targets.value_or(columns(input.ids, 1, length));
  const auto check = [&](const IdTable& table, const char* what) {
    require(table.rows == ids.rows && table.columns == length, "evaluation: {} are [{}, {}], not [{}, {}]",
            what, table.rows, table.columns, ids.rows, length);
  };
  check(targets, "targets");

  MicroStepOptions options;
  options.model = {.batch = ids.rows,
                   .length = length,
                   .compute = compute,
                   .documents = input.documents.has_value(),
                   .head_similarity = model.config.head_sim_loss};
  options.head_sim_weight = model.config.head_sim_loss_weight;
  const std::unique_ptr<Graph> graph = micro_step(model.config, options, gradients);
  const std::unique_ptr<Executable> step = compile(*graph, model.state, {.name = "evaluate"});
  step->set<int32_t>("ids", ids.values);
  step->set<int32_t>("targets", targets.values);
  if (input.documents) {
    check(*input.documents, "documents");
    step->set<int32_t>("documents", input.documents->values);
  }
  step->run();

  Evaluation result;
  result.tokens = std::count_if(targets.values.begin(), targets.values.end(),
                                [](int32_t target) { return target != kIgnoreIndex; });
  require(result.tokens > 0, "evaluation: there are no targets");
  result.loss = static_cast<double>(step->scalar("loss_sum")) / static_cast<double>(result.tokens);
  if (gradients)
    for (const Parameter& p : model.parameters) {
      if (!p.trained) continue;
      divide(*model.state, gradient_name(p.name), static_cast<double>(result.tokens));
    }
  return result;
}

Evaluation mean_loss(LoadedModel& model, Batches& batches, int64_t count, DType compute,
                     const EvaluationWatch& watch) {
  Batch batch;
  std::unique_ptr<Executable> step;
  Evaluation result;
  double sum = 0;
  for (int64_t done = 1; done <= count; ++done) {
    batches.next(batch);
    if (!step)
      step = compile(
          *eval_step(model.config,
                     {.batch = batch.batch, .length = batch.length, .compute = compute, .documents = true}),
          model.state, {.name = "evaluate"});
    step->set<int32_t>("ids", batch.ids);
    step->set<int32_t>("targets", batch.targets);
    step->set<int32_t>("documents", batch.documents);
    step->run();
    sum += static_cast<double>(step->scalar("loss_sum"));
    result.tokens += batch.real_target_tokens;
    result.loss = sum / static_cast<double>(std::max<int64_t>(1, result.tokens));
    if (watch) watch(done, result);
  }
  require(result.tokens > 0, "evaluation: there are no targets");
  return result;
}

std::vector<float> logits(LoadedModel& model, const EvaluationInput& input, DType compute) {
  const IdTable& ids = input.ids;
  const std::unique_ptr<Graph> graph = logits_step(model.config, {.batch = ids.rows,
                                                                  .length = ids.columns,
                                                                  .compute = compute,
                                                                  .documents = input.documents.has_value()});
  const std::unique_ptr<Executable> step = compile(*graph, model.state, {.name = "logits"});
  step->set<int32_t>("ids", ids.values);
  if (input.documents) step->set<int32_t>("documents", with_last_alone(*input.documents));
  step->run();
  std::vector<float> result(static_cast<size_t>(ids.rows * ids.columns * model.config.vocab_size));
  step->get_bytes("logits", std::as_writable_bytes(std::span(result)));
  return result;
}

}  // namespace nf
