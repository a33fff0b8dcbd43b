#include "tools/program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <new>

namespace nf {
namespace {

void print_failure(std::string_view program, std::string_view message) {
  const std::string prefix = std::string(program) + ": ";
  if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  std::string line = prefix + std::string(message);
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace

void run_accepted(const std::function<void()>& body) {
  try {
    body();
  } catch (const RunFailed&) {
    throw;
  } catch (const Error& error) {
    throw RunFailed(error.what());
  }
}

std::string sibling_program(std::string_view name) {
  std::string called;  // up to the first zero byte: this program's own name
  std::getline(std::ifstream("/proc/self/cmdline"), called, '\0');
  const size_t slash = called.rfind('/');
  return (slash == std::string::npos ? "" : called.substr(0, slash + 1)) + std::string(name);
}

int run_program(std::string_view name, int argc, const char* const* argv, const std::function<int()>& body) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f` fails in its write, which is reported
  try {
    const bool asks_version = std::count(argv, argv + argc, std::string_view("--version")) > 0;
    if (asks_version) fmt::print("{} {}, {}\n", name, NF_VERSION, NF_BACKENDS);
    const int status = asks_version ? kExitDone : body();
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
    print_failure(name, "standard output cannot be written");
  } catch (const RunFailed& error) {
    print_failure(name, error.what());
  } catch (const Error& error) {
    print_failure(name, error.what());
    return kExitBadInput;
  } catch (const std::bad_alloc&) {
    print_failure(name, "not enough memory");
  } catch (const std::exception& error) {
    print_failure(name, error.what());
  }
  return kExitFailed;
}

}  // namespace nf
