// Command lines of the programs that describe their flags with CLI11.
#pragma once

namespace CLI {
class App;
}

namespace nf {

// Reads the command line into the app's variables. False: --help was asked for and has been printed, the
// program is done. Throws Error, one line, for flags and values that do not fit.
bool parse_arguments(CLI::App& app, int argc, char** argv);

}  // namespace nf
