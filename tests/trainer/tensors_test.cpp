#include "tools/trainer/tensors.h"

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <map>

#include "nf/error.h"
#include "tests/trainer/training_support.h"
#include "tools/load_model.h"

using namespace nf;

namespace {

// A session whose weights are known, and copies of them to write to files.
struct Source {
  Folder folder;
  TrainSettings settings = small_settings(folder.write("a.txt", small_text(200)));
  TrainingData data = load_training_data(settings);
  TrainingSession session{with_vocabulary(small_model(), *data.tokenizer), settings, false,
                          open_device(settings)};
  std::map<std::string, std::vector<float>> values;

  Source() {
    session.initialize();
    for (const NamedTensor& tensor : weights()) {
      std::vector<float>& copy = values[tensor.name];
      copy.resize(tensor.bytes.size() / sizeof(float));
      std::memcpy(copy.data(), tensor.bytes.data(), tensor.bytes.size());
    }
  }

  std::vector<NamedTensor> weights() {
    std::vector<Buffer> none;  // the CPU's memory is the host's
    return tensors_of(session.state(), weight_names(session.parameters()), none);
  }

  // Writes the weights, except one that `change` may alter or drop (by clearing its name).
  std::filesystem::path write(const std::string& which = "",
                              const std::function<void(NamedTensor&)>& change = {}) {
    SafetensorsWriter writer;
    for (NamedTensor tensor : weights()) {
      if (tensor.name == which) change(tensor);
      if (!tensor.name.empty()) writer.add(tensor);
    }
    writer.write(folder.path / "model.safetensors");
    return folder.path;
  }

  std::string refusal() {
    try {
      load_weights(session.state(), session.parameters(), SafetensorsFile::open(find_weights(folder.path)));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

const std::string kDown = "model.layers.0.mlp.down_proj.weight";

}  // namespace

TEST_CASE("tensors: weights come back as they were; nothing else is in the weights") {
  Source source;
  source.write();
  const std::vector<float> before = weights_of(source.session);
  source.settings.seed = 2;
  for (const Parameter& parameter : source.session.parameters())
    fill_constant(source.session.state(), parameter.name, 7);
  CHECK(weights_of(source.session) != before);
  CHECK(source.refusal() == "");
  CHECK(weights_of(source.session) == before);

  const State& state = source.session.state();
  const auto optimizer = optimizer_names(state, source.session.parameters());
  CHECK(optimizer.size() == 2 * source.session.parameters().size());  // AdamW's two moments
  for (const std::string& name : optimizer) {
    CHECK(!name.starts_with("grad/"));
    CHECK(state.type(name).dtype == DType::f32);
  }
}

TEST_CASE("tensors: narrow weights are widened exactly") {
  Source source;
  const std::vector<float>& wide = source.values.at(kDown);
  std::vector<uint16_t> narrow;
  for (const float value : wide) narrow.push_back(to_bf16(value).bits);
  source.write(kDown, [&](NamedTensor& tensor) {
    tensor.dtype = DType::bf16;
    tensor.bytes = std::as_bytes(std::span(narrow));
  });
  CHECK(source.refusal() == "");
  std::vector<float> loaded(wide.size());
  source.session.state().read(kDown, std::as_writable_bytes(std::span(loaded)));
  for (size_t i = 0; i < wide.size(); ++i) CHECK(loaded[i] == to_float(bf16{narrow[i]}));
}

TEST_CASE("tensors: weights of another model are refused by the tensor's name") {
  Source source;
  const std::vector<float> before = weights_of(source.session);
  source.write(kDown, [](NamedTensor& tensor) { tensor.name.clear(); });
  CHECK(source.refusal().find("has no tensor '" + kDown + "'") != std::string::npos);
  source.write(kDown, [](NamedTensor& tensor) { tensor.shape = {tensor.shape[1], tensor.shape[0]}; });
  CHECK(source.refusal().find("tensor '" + kDown + "' has shape [64, 32], this model needs [32, 64]") !=
        std::string::npos);
  std::vector<int32_t> whole(source.values.at(kDown).size());
  source.write(kDown, [&](NamedTensor& tensor) {
    tensor.dtype = DType::i32;
    tensor.bytes = std::as_bytes(std::span(whole));
  });
  CHECK(source.refusal().find("tensor '" + kDown + "' is i32, not floating point") != std::string::npos);

  SafetensorsWriter writer;
  for (const NamedTensor& tensor : source.weights()) writer.add(tensor);
  const float extra = 0;
  writer.add({"model.layers.2.mlp.up_proj.weight", DType::f32, {1}, std::as_bytes(std::span(&extra, 1))});
  writer.write(source.folder.path / "model.safetensors");
  CHECK(source.refusal().find("this model has no tensor 'model.layers.2.mlp.up_proj.weight'") !=
        std::string::npos);
}

TEST_CASE("tensors: weights are looked for where they are") {
  Folder folder;
  CHECK_THROWS_WITH_AS(find_weights(folder.path / "none"), doctest::Contains("no such file or folder"),
                       Error);
  CHECK_THROWS_WITH_AS(find_weights(folder.path), doctest::Contains("nor a checkpoint"), Error);
  folder.write("best/model.safetensors", "");
  CHECK(find_weights(folder.path) == folder.path / "best");
  folder.write("model.safetensors", "");
  CHECK(find_weights(folder.path) == folder.path);
}
