// nf-export: a model for other programs.
#include <cstdio>

#include "tools/arguments.h"
#include "tools/export/export.h"
#include "tools/output_paths.h"
#include "tools/program.h"
#include "tools/tracking/terminal.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string model, to, out, dtype = "f32";
  bool merge = false;
  int64_t shard_megabytes = SafetensorsWriter::kShardBytes / 1'000'000;
};

// False: --help was asked for, and printed.
bool read(Arguments& a, int argc, const char* const* argv) {
  FlagTable flags("nf-export", "the model is given with -m");
  flags.text({.name = "model",
              .takes = "DIR",
              .help = "a run of nf-train, a checkpoint's folder, or a folder of transformers",
              .letter = 'm'},
             a.model);
  flags.word({.name = "to",
              .takes = "hf|gguf",
              .help = "a folder that Hugging Face's transformers loads, or a file for llama.cpp"},
             a.to, {"hf", "gguf"});
  flags.text({.name = "out", .takes = "PATH", .help = "the folder or the .gguf file to write"}, a.out);
  flags.word({.name = "dtype", .takes = "f32|bf16|f16", .help = "of the weights"}, a.dtype,
             {"f32", "bf16", "f16"});
  flags.toggle({.name = "merge", .help = "of an adapter's folder: write its base with the adapter added"},
               a.merge);
  flags.whole({.name = "shard-mb", .takes = "N", .help = "hf: a weights file holds at most N megabytes"},
              a.shard_megabytes, 1, int64_t{1} << 40);
  if (!flags.parse(
          argc, argv,
          "nf-export writes a model as other programs read it. mha and gqa become LlamaForCausalLM (or "
          "Mistral, Qwen2 or Qwen3, as windows, biases and norms ask) or GGUF; diff becomes "
          "DiffLlamaForCausalLM, mla DeepseekV3ForCausalLM. A setting that the other program has no word for "
          "is refused by its name. Weights are read from safetensors only; a pytorch_model.bin is first "
          "saved anew with save_pretrained(DIR, safe_serialization=True).",
          "  nf-export -m runs/gqa --to hf --out gqa-hf --dtype bf16\n"
          "  nf-export -m runs/gqa --to gguf --out gqa.gguf\n"
          "  nf-export -m runs/adapter --merge --to hf --out merged"))
    return false;
  require(!a.model.empty(), "nf-export: give a model: -m DIR, a run of nf-train; see --help");
  require(!a.to.empty(), "nf-export: say what for: --to hf or --to gguf");
  require(!a.out.empty(), "nf-export: say where to: --out PATH");
  if (a.to == "gguf") {
    check_new_file(a.out, "--out");
  } else {
    check_output_folder(a.out, "--out");
    std::error_code ignored;
    require(!fs::exists(a.out, ignored) || fs::is_empty(a.out, ignored),
            "--out: {}: is not empty; nothing is overwritten", a.out);
  }
  check_dump_folder();
  return true;
}

int64_t bytes_at(const fs::path& path) {
  if (!fs::is_directory(path)) return static_cast<int64_t>(fs::file_size(path));
  int64_t total = 0;
  for (const auto& entry : fs::directory_iterator(path)) total += static_cast<int64_t>(entry.file_size());
  return total;
}

int run(int argc, char** argv) {
  Arguments a;
  if (!read(a, argc, argv)) return kExitDone;
  const LoadedModel model = load_model(a.model, cpu_device(0));
  require(!model.adapter || a.merge,
          "{}: is an adapter, in PEFT's layout already; --merge writes it and its base as one model",
          a.model);
  require(model.adapter || !a.merge, "--merge: {} is no adapter", a.model);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model.folder);
  export_model(model, *tokenizer, a.out,
               {.format = a.to == "gguf" ? ExportFormat::gguf : ExportFormat::hugging_face,
                .dtype = parse_dtype(a.dtype),
                .shard_bytes = a.shard_megabytes * 1'000'000});
  fmt::print("{} written, {}\n", a.out, format_bytes(bytes_at(a.out)));
  return kExitDone;
}

}  // namespace
}  // namespace nf

int main(int argc, char** argv) {
  return nf::run_program("nf-export", argc, argv, [&] { return nf::run(argc, argv); });
}
