#include "cuda/compiler.h"

#include <nvrtc.h>

#include <array>
#include <exception>
#include <memory>

#include "base/hash.h"
#include "base/parallel.h"
#include "cuda/cache.h"
#include "cuda/dynamic_library.h"
#include "cuda/kernel_files.h"

namespace nf::cuda {
namespace {

struct Nvrtc {
  decltype(&nvrtcVersion) version;
  decltype(&nvrtcCreateProgram) create;
  decltype(&nvrtcCompileProgram) compile;
  decltype(&nvrtcDestroyProgram) destroy;
  decltype(&nvrtcGetProgramLogSize) log_size;
  decltype(&nvrtcGetProgramLog) log;
  decltype(&nvrtcGetCUBINSize) cubin_size;
  decltype(&nvrtcGetCUBIN) cubin;
  decltype(&nvrtcGetErrorString) error_text;

  Nvrtc() {
    const DynamicLibrary library(NF_NVRTC);
    library.find("nvrtcVersion", version);
    library.find("nvrtcCreateProgram", create);
    library.find("nvrtcCompileProgram", compile);
    library.find("nvrtcDestroyProgram", destroy);
    library.find("nvrtcGetProgramLogSize", log_size);
    library.find("nvrtcGetProgramLog", log);
    library.find("nvrtcGetCUBINSize", cubin_size);
    library.find("nvrtcGetCUBIN", cubin);
    library.find("nvrtcGetErrorString", error_text);
    int major = 0, minor = 0;
    if (version(&major, &minor) == NVRTC_SUCCESS)
      library.open_companion(fmt::format("libnvrtc-builtins.so.{}.{}", major, minor));
  }
};

const Nvrtc& nvrtc() {
  static const Nvrtc library;
  return library;
}

void check(nvrtcResult result, const char* what) {
  if (result != NVRTC_SUCCESS) fail("cuda: NVRTC cannot {}: {}", what, nvrtc().error_text(result));
}

// Beside the architecture. What host and device share is not marked for the device.
constexpr std::array<const char*, 2> kOptions{"--std=c++17", "-default-device"};

struct Headers {
  std::vector<const char*> names, texts;

  Headers() {
    for (const KernelFile& file : kernel_files()) {
      names.push_back(file.name.data());  // literals: they end with a zero
      texts.push_back(file.text.data());
    }
  }
};

std::string log_of(nvrtcProgram program) {
  size_t size = 0;
  check(nvrtc().log_size(program, &size), "tell the size of its log");
  std::string log(size, '\0');
  check(nvrtc().log(program, log.data()), "give its log");
  return log.c_str();
}

std::string compile_kernel(const KernelSource& source, const std::string& architecture) {
  static const Headers headers;
  nvrtcProgram created = nullptr;
  check(nvrtc().create(&created, source.text.c_str(), source.name.c_str(),
                       static_cast<int>(headers.names.size()), headers.texts.data(), headers.names.data()),
        "begin a program");
  const std::shared_ptr<_nvrtcProgram> program(created, [](nvrtcProgram p) { nvrtc().destroy(&p); });
  const std::string target = "-arch=" + architecture;
  std::vector<const char*> options{target.c_str()};
  options.insert(options.end(), kOptions.begin(), kOptions.end());
  if (nvrtc().compile(program.get(), static_cast<int>(options.size()), options.data()) != NVRTC_SUCCESS)
    fail("cuda: the kernel {} does not compile:\n{}\n{}", source.name, log_of(program.get()), source.text);
  size_t size = 0;
  check(nvrtc().cubin_size(program.get(), &size), "tell the size of its code");
  std::string code(size, '\0');
  check(nvrtc().cubin(program.get(), code.data()), "give its code");
  return code;
}

// Of everything that decides the code but the kernel's own text.
uint64_t surroundings(const std::string& architecture) {
  int major = 0, minor = 0;
  check(nvrtc().version(&major, &minor), "tell its version");
  uint64_t seed = hash(fmt::format("{} {}.{}", architecture, major, minor));
  for (const char* option : kOptions) seed = hash(option, seed);
  for (const KernelFile& file : kernel_files()) seed = hash(file.text, hash(file.name, seed));
  return seed;
}

bool is_code(const std::string& text) {
  return text.starts_with(
      "\x7f"
      "ELF");
}

}  // namespace

std::vector<std::string> compile_kernels(std::span<const KernelSource> sources,
                                         const std::string& architecture) {
  const uint64_t seed = surroundings(architecture);
  std::vector<std::string> codes(sources.size());
  std::vector<std::exception_ptr> errors(sources.size());
  parallel_for(processor_count(), static_cast<int64_t>(sources.size()), [&](int64_t task) {
    const auto i = static_cast<size_t>(task);
    const std::string name = fmt::format("{}-{:016x}.cubin", sources[i].name, hash(sources[i].text, seed));
    codes[i] = read_cached(name);
    if (is_code(codes[i])) return;
    try {
      codes[i] = compile_kernel(sources[i], architecture);
      write_cached(name, codes[i]);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return codes;
}

}  // namespace nf::cuda
