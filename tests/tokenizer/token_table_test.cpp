#include "tools/tokenizer/token_table.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>
#include <vector>

namespace nf {
namespace {

TEST_CASE("token table: finds what was added, grows, and keeps the first of equal names") {
  std::vector<std::string> names;
  for (int i = 0; i < 5000; ++i) names.push_back(fmt::format("token {}", i));
  for (const size_t expected : {size_t{0}, size_t{7}, names.size()}) {
    TokenTable table(expected);
    CHECK(!table.find("token 0"));
    for (size_t i = 0; i < names.size(); ++i) CHECK(table.add(names[i], static_cast<int32_t>(i)));
    CHECK(!table.add(names[3], 99));
    for (size_t i = 0; i < names.size(); ++i) CHECK(table.find(names[i]) == static_cast<int32_t>(i));
    CHECK(!table.find("token 5000"));
    CHECK(!table.find(""));
  }
}

}  // namespace
}  // namespace nf
