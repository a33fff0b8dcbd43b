#include "tools/arguments.h"

#include <CLI/CLI.hpp>

#include "nf/error.h"

namespace nf {

bool parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return false;
  } catch (const CLI::ParseError& error) {
    fail("{}", error.what());
  }
  return true;
}

}  // namespace nf
