#include "tools/program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <new>

namespace nf {
namespace {

void print_failure(std::string_view program, std::string_view message) {
  std::string line(message);
  // Some say the program's name, also with a word for what it does, as in "nf-tokenize train: …".
  const std::string_view place = message.substr(0, message.find(':'));
  if (place != program && !place.starts_with(std::string(program) + ' '))
    line.insert(0, std::string(program) + ": ");
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
