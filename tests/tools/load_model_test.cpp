// Model folders that are not as they should be: one clear Error each.
#include "tools/load_model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "nf/safetensors.h"
#include "tests/support/folder.h"
#include "tools/generate.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

fs::path golden() { return fs::path(NF_TESTS_DIR) / "golden" / "gqa"; }

using Change = std::function<void(std::vector<NamedTensor>&)>;

// The golden model with its tensors changed.
void write_model(const Folder& folder, const Change& change) {
  fs::copy_file(golden() / "config.json", folder.path / "config.json");
  const SafetensorsFile file = SafetensorsFile::open(golden() / "model.safetensors");
  std::vector<NamedTensor> tensors = file.tensors();
  change(tensors);
  SafetensorsWriter writer;
  for (NamedTensor& tensor : tensors) writer.add(tensor);
  writer.write(folder.path / "model.safetensors");
}

NamedTensor& find(std::vector<NamedTensor>& tensors, std::string_view name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == name; });
}

constexpr std::string_view kNorm = "model.norm.weight";

void check_error(const Folder& folder, const char* part) {
  CHECK_THROWS_WITH_AS(load_model(folder.path, cpu_device(1)), doctest::Contains(part), Error);
}

TEST_CASE("an unchanged copy loads") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>&) {});
  const LoadedModel model = load_model(folder.path, cpu_device(1));
  CHECK(model.folder == folder.path);
  CHECK(model.parameters.size() == SafetensorsFile::open(golden() / "model.safetensors").tensors().size());
}

TEST_CASE("a model for one compute type holds what its graphs read") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>&) {});
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  const auto logits = [&](LoadedModel& model, DType compute) {
    Generator generator(model, compute, 8);
    const std::span<const float> result = generator.append(ids);
    return std::vector<float>(result.begin(), result.end());
  };
  for (const DType compute : {DType::f32, DType::bf16}) {
    LoadedModel all = load_model(folder.path, cpu_device(1)),
                one = load_model(folder.path, cpu_device(1), compute);
    CHECK(logits(one, compute) == logits(all, compute));
    for (const Parameter& p : one.parameters) {
      CAPTURE(p.name);
      CHECK(one.state->contains(p.name) == (compute == DType::f32 || p.used_wide));
      CHECK(one.state->contains(narrow_name(p.name)) == (compute == DType::bf16 && p.used_narrow));
    }
  }
}

TEST_CASE("bf16, f16 and f64 weights are widened or narrowed to f32") {
  const std::vector<double> doubles(24, 1.5);
  const std::vector<bf16> narrow(24, to_bf16(1.5F));
  const std::vector<f16> halves(24, to_f16(1.5F));
  const auto load = [&](DType dtype, std::span<const std::byte> bytes) {
    const Folder folder;
    write_model(folder, [&](std::vector<NamedTensor>& tensors) {
      find(tensors, kNorm).dtype = dtype;
      find(tensors, kNorm).bytes = bytes;
    });
    LoadedModel model = load_model(folder.path, cpu_device(1));
    std::vector<float> values(24);
    model.state->read(std::string(kNorm), std::as_writable_bytes(std::span(values)));
    return values;
  };
  const std::vector<float> expected(24, 1.5F);
  CHECK(load(DType::f64, std::as_bytes(std::span(doubles))) == expected);
  CHECK(load(DType::bf16, std::as_bytes(std::span(narrow))) == expected);
  CHECK(load(DType::f16, std::as_bytes(std::span(halves))) == expected);
}

TEST_CASE("a missing tensor") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>& tensors) {
    std::erase_if(tensors, [](const NamedTensor& t) { return t.name == kNorm; });
  });
  check_error(folder, "model.norm.weight");
}

TEST_CASE("a tensor too many") {
  const Folder folder;
  const std::vector<float> values(4, 0.0F);
  write_model(folder, [&](std::vector<NamedTensor>& tensors) {
    tensors.push_back({"model.layers.9.extra", DType::f32, {4}, std::as_bytes(std::span(values))});
  });
  check_error(folder, "this model has no tensor 'model.layers.9.extra'");
}

TEST_CASE("a tensor of another shape") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>& tensors) { find(tensors, kNorm).shape = {2, 12}; });
  check_error(folder, "'model.norm.weight' has shape [2, 12], this model needs [24]");
}

TEST_CASE("a tensor of integers") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>& tensors) { find(tensors, kNorm).dtype = DType::i32; });
  check_error(folder, "'model.norm.weight' is i32, not floating point");
}

TEST_CASE("weights that are not finite") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> values(24, 1.0F);
    values[5] = bad;
    const Folder folder;
    write_model(folder, [&](std::vector<NamedTensor>& tensors) {
      find(tensors, kNorm).bytes = std::as_bytes(std::span(values));
    });
    check_error(folder, "'model.norm.weight' holds a value that is not finite at element 5");
  }
}

TEST_CASE("a truncated file, at any place") {
  for (const double part : {0.0, 0.0001, 0.02, 0.5, 0.999}) {
    const Folder folder;
    write_model(folder, [](std::vector<NamedTensor>&) {});
    const fs::path file = folder.path / "model.safetensors";
    fs::resize_file(file, static_cast<uintmax_t>(part * static_cast<double>(fs::file_size(file))));
    check_error(folder, "model.safetensors");
  }
}

TEST_CASE("folders that hold no model") {
  const Folder folder;
  check_error(folder, "neither model.safetensors nor a checkpoint");
  CHECK_THROWS_WITH_AS(load_model(folder.path / "nowhere", cpu_device(1)),
                       doctest::Contains("no such folder; -m takes a run of nf-train"), Error);
  CHECK_THROWS_WITH_AS(load_model(folder.write("text", "x"), cpu_device(1)), doctest::Contains("is a file"),
                       Error);
  CHECK_THROWS_WITH_AS(load_model("gqa", cpu_device(1)), doctest::Contains("train it with nf-train -m gqa"),
                       Error);
  write_model(folder, [](std::vector<NamedTensor>&) {});
  fs::remove(folder.path / "config.json");
  check_error(folder, "config.json is missing beside the weights");
  folder.write("config.json", "{ not json");
  check_error(folder, "config.json");
  folder.write("config.json", "");
  check_error(folder, "config.json: the file is empty");
  const Folder pickled;
  pickled.write("pytorch_model.bin", "PK");
  check_error(pickled, "pytorch_model.bin is not read, a pickle runs the code it holds; convert it");
  const Folder run;
  run.write("checkpoint-5/model.safetensors", "torn");
  check_error(run, "has no whole checkpoint (passing over");
}

TEST_CASE("a config without vocabulary") {
  const Folder folder;
  write_model(folder, [](std::vector<NamedTensor>&) {});
  folder.write("config.json", R"({"attention_type": "gqa", "hidden_size": 24, "num_attention_heads": 2})");
  check_error(folder, "vocab_size is missing");
}

TEST_CASE("a run's best checkpoint is found") {
  const Folder folder;
  fs::create_directories(folder.path / "best");
  for (const char* name : {"config.json", "model.safetensors"})
    fs::copy_file(golden() / name, folder.path / "best" / name);
  CHECK(load_model(folder.path, cpu_device(1)).folder == folder.path / "best");
}

}  // namespace
}  // namespace nf
