// Checks on the source tree itself: who includes whom, how long files are, what they must not hold.
//
// The floors, from the ground up (kFloors below is the rule, this is the idea): a file includes only from its
// own floor or below, and folders on the same floor do not know each other. A public header <nf/x.h> stands
// on the floor of the folder that implements it, engine/*/x.cpp, or, without one, on the highest floor that
// it includes itself; kHeaderFolders lists the exceptions.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

struct Floor {
  int level;      // where the folder stands
  int may_reach;  // it may include the folders below this level, and itself
};
const std::map<std::string, Floor> kFloors = {
    {"base", {0, 0}},       // types, errors, hashes, threads
    {"graph", {1, 1}},      // nodes and the op table
    {"autodiff", {2, 2}},   // gradients
    {"passes", {3, 3}},     // the compiler
    {"runtime", {4, 4}},    // what runs a plan
    {"reference", {5, 5}},  // the backends do not know each other
    {"cpu", {5, 5}},        // and the runtime knows none of them
    {"cuda", {5, 5}},       // but through its kernel tables
    {"optim", {6, 2}},      // builds graphs, nothing more
    {"io", {6, 1}},         // reads and writes files, knows no graph
};

// Public headers whose folder is not that of one x.cpp.
const std::map<std::string, std::string> kHeaderFolders = {
    {"nf/compile.h",
     "passes"},  // the plan and its options; plan() itself asks a device and lives in runtime/
    {"nf/device.h", "runtime"},  // the interface; every backend has a device.cpp
};

constexpr int kLongestFile = 700;

struct Source {
  std::string path;  // from the top of the repository, with forward slashes
  std::string text;
  std::vector<std::string> includes;  // as written, without brackets or quotes
};

fs::path repository() { return fs::path(NF_TESTS_DIR).parent_path(); }

std::vector<std::string> includes_of(const std::string& text) {
  static const std::regex pattern(R"re(^[ \t]*#[ \t]*include[ \t]*[<"]([^">]+)[">])re",
                                  std::regex::ECMAScript | std::regex::multiline);
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
    found.push_back((*it)[1]);
  return found;
}

std::vector<Source> read_sources() {
  std::vector<Source> sources;
  for (const char* folder : {"engine", "models", "tools", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(repository() / folder)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() || (extension != ".h" && extension != ".cpp" && extension != ".cu"))
        continue;
      std::ostringstream text;
      text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      sources.push_back({fs::relative(entry.path(), repository()).generic_string(), text.str(), {}});
      sources.back().includes = includes_of(sources.back().text);
    }
  }
  std::sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) { return a.path < b.path; });
  return sources;
}

const std::vector<Source>& sources() {
  static const std::vector<Source> all = read_sources();
  return all;
}

bool starts_with(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

std::string first_folder(const std::string& path) { return path.substr(0, path.find('/')); }

// "graph" for engine/graph/node.cpp, "" for a public header or anything outside the engine.
std::string engine_folder(const std::string& path) {
  if (!starts_with(path, "engine/") || starts_with(path, "engine/include/")) return "";
  return first_folder(path.substr(7));
}

// The folder on whose floor each public header stands.
class PublicHeaders {
 public:
  PublicHeaders() {
    for (const Source& source : sources()) {
      if (starts_with(source.path, "engine/include/")) headers_[source.path.substr(15)] = &source;
      const std::string folder = engine_folder(source.path);
      if (kFloors.contains(folder) && source.path.ends_with(".cpp"))
        folders_["nf/" + fs::path(source.path).stem().string() + ".h"] = folder;
    }
    for (const auto& [header, folder] : kHeaderFolders) folders_[header] = folder;
  }

  std::string folder_of(const std::string& header) {
    if (const auto known = folders_.find(header); known != folders_.end()) return known->second;
    folders_[header] = "base";  // ends a circle of includes, which has a test of its own
    std::string highest = "base";
    if (headers_.contains(header)) {
      for (const std::string& include : headers_.at(header)->includes) {
        if (!starts_with(include, "nf/")) continue;
        const std::string folder = folder_of(include);
        if (kFloors.at(folder).level > kFloors.at(highest).level) highest = folder;
      }
    }
    return folders_[header] = highest;
  }

 private:
  std::map<std::string, const Source*> headers_;
  std::map<std::string, std::string> folders_;
};

// Whether a folder of the engine may include this, given as written in the source.
bool engine_may_include(PublicHeaders& headers, const std::string& folder, const std::string& include) {
  const std::string target = starts_with(include, "nf/") ? headers.folder_of(include) : first_folder(include);
  if (target == "models" || target == "tools" || target == "tests") return false;
  if (!kFloors.contains(target)) return true;  // the system's
  return target == folder || kFloors.at(target).level < kFloors.at(folder).may_reach;
}

// The path in the repository that an include names, or "" for the system's.
std::string resolve(const std::string& include) {
  static const std::set<std::string> paths = [] {
    std::set<std::string> all;
    for (const Source& source : sources()) all.insert(source.path);
    return all;
  }();
  for (const char* root : {"engine/include/", "engine/", ""})
    if (paths.contains(root + include)) return root + include;
  return "";
}

// One line per #include that forms a cycle, found by walking depth first.
void find_cycles(const std::map<std::string, const Source*>& files, const std::string& path,
                 std::map<std::string, int>& state, std::vector<std::string>& found) {
  state[path] = 1;
  for (const std::string& include : files.at(path)->includes) {
    const std::string next = resolve(include);
    if (next.empty()) continue;
    if (state[next] == 1) found.push_back(path + " -> " + next);
    if (state[next] == 0) find_cycles(files, next, state, found);
  }
  state[path] = 2;
}

}  // namespace

TEST_CASE("architecture: the source tree is read") {
  CHECK(sources().size() > 10);
  CHECK(resolve("nf/shape.h") == "engine/include/nf/shape.h");
  CHECK(resolve("base/hash.h") == "engine/base/hash.h");
  CHECK(includes_of("#include <a/b.h>\n  #  include \"c.h\"\n// #include <no.h>\n") ==
        std::vector<std::string>{"a/b.h", "c.h"});
}

TEST_CASE("architecture: the rule of the floors refuses what it should") {
  PublicHeaders headers;
  CHECK(engine_may_include(headers, "passes", "graph/node.h"));
  CHECK(engine_may_include(headers, "cpu", "base/parallel.h"));
  CHECK(engine_may_include(headers, "base", "nf/shape.h"));
  CHECK_FALSE(engine_may_include(headers, "graph", "passes/plan.h"));
  CHECK_FALSE(engine_may_include(headers, "cpu", "reference/interpreter.h"));
  CHECK_FALSE(engine_may_include(headers, "optim", "runtime/device.h"));
  CHECK_FALSE(engine_may_include(headers, "io", "graph/node.h"));
  CHECK_FALSE(engine_may_include(headers, "io", "nf/graph.h"));
  CHECK_FALSE(engine_may_include(headers, "passes", "nf/device.h"));
  CHECK_FALSE(engine_may_include(headers, "base", "nf/ops.h"));
  CHECK_FALSE(engine_may_include(headers, "base", "models/config.h"));
}

TEST_CASE("architecture: the engine includes only from its own floor or below") {
  PublicHeaders headers;
  for (const Source& source : sources()) {
    const std::string folder = engine_folder(source.path);
    if (folder.empty()) continue;
    REQUIRE_MESSAGE(kFloors.contains(folder), source.path << " is in a folder without a floor in kFloors");
    for (const std::string& include : source.includes)
      CHECK_MESSAGE(engine_may_include(headers, folder, include), source.path << " includes " << include);
  }
}

TEST_CASE("architecture: public headers include public headers only") {
  for (const Source& source : sources()) {
    if (!starts_with(source.path, "engine/include/")) continue;
    for (const std::string& include : source.includes) {
      const std::string path = resolve(include);
      CHECK_MESSAGE((path.empty() || starts_with(path, "engine/include/")),
                    source.path << " includes " << include);
    }
  }
}

TEST_CASE("architecture: nothing outside the engine sees its insides, and models do not see tools") {
  for (const Source& source : sources()) {
    const std::string top = first_folder(source.path);
    if (top != "models" && top != "tools") continue;
    for (const std::string& include : source.includes) {
      const std::string path = resolve(include);
      const bool allowed = path.empty() || starts_with(path, "engine/include/") ||
                           starts_with(path, "models/") || (top == "tools" && starts_with(path, "tools/"));
      CHECK_MESSAGE(allowed, source.path << " includes " << include);
    }
  }
}

TEST_CASE("architecture: no include is relative to its file or goes in a circle") {
  std::map<std::string, const Source*> files;
  for (const Source& source : sources()) {
    files[source.path] = &source;
    for (const std::string& include : source.includes)
      CHECK_MESSAGE(include.find("..") == std::string::npos, source.path << " includes " << include);
  }
  std::map<std::string, int> state;
  std::vector<std::string> cycles;
  for (const auto& [path, source] : files)
    if (state[path] == 0) find_cycles(files, path, state, cycles);
  for (const std::string& cycle : cycles) FAIL_CHECK("a circle of includes: " << cycle);
}

TEST_CASE("architecture: files are short, headers are guarded, nothing is left to do") {
  static const std::regex unfinished(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X|HA"
      "CK)\\b");
  for (const Source& source : sources()) {
    const auto lines = std::count(source.text.begin(), source.text.end(), '\n');
    CHECK_MESSAGE(lines <= kLongestFile, source.path << " has " << lines << " lines");
    CHECK_MESSAGE(!std::regex_search(source.text, unfinished),
                  source.path << " holds a note of unfinished work");
    if (!source.path.ends_with(".h")) continue;
    // A Highway "-inl.h" is included once per instruction set and guards itself by toggling a macro.
    const char* guard = source.path.ends_with("-inl.h") ? "_TOGGLE" : "#pragma once";
    CHECK_MESSAGE(source.text.find(guard) != std::string::npos, source.path << " lacks " << guard);
  }
}

TEST_CASE("architecture: the engine neither ends nor prints to its host program") {
  static const std::regex forbidden(
      R"(\b(abort|exit|_Exit|quick_exit|printf|puts)\s*\(|std::(cout|cerr|terminate)\b)");
  for (const Source& source : sources()) {
    if (!starts_with(source.path, "engine/")) continue;
    std::istringstream lines(source.text);
    int number = 0;
    for (std::string line; std::getline(lines, line);) {
      ++number;
      const std::string code = line.substr(0, line.find("//"));
      CHECK_MESSAGE(!std::regex_search(code, forbidden), source.path << ":" << number << ": " << line);
    }
  }
}
