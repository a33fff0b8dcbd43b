#include "tools/report/page.h"

#include <doctest/doctest.h>

#include <array>
#include <nlohmann/json.hpp>

#include "nf/file.h"
#include "tests/support/folder.h"
#include "tools/report/table.h"

using namespace nf;

namespace {

// The object that the page's script begins with.
nlohmann::json data_of(const std::string& html) {
  const std::string mark = "const data = ";
  const size_t begin = html.find(mark) + mark.size(), end = html.find("\n", begin);
  REQUIRE(begin > mark.size());
  return nlohmann::json::parse(html.substr(begin, end - begin - 1));  // without the semicolon
}

Page small_page(const RunHistory& history) {
  return {.title = "a </script> & <b>",
          .findings = {"one"},
          .runs = {{.facts = {.name = "gqa", .parameters = 7, .config_json = R"({"hidden_size":32})"},
                    .status = RunStatus::running,
                    .history = &history}}};
}

}  // namespace

TEST_CASE("page: holds the numbers, needs nothing else, and cannot be broken by names") {
  RunHistory history;
  history.log(1, std::array{Metric{"loss", 5.5}, Metric{"tokens", 64}, Metric{"seconds", 1}});
  history.log(2, std::array{Metric{"loss", std::numeric_limits<double>::quiet_NaN()}, Metric{"tokens", 128}});
  const std::string html = render(small_page(history));
  const nlohmann::json data = data_of(html);
  CHECK(data["title"] == "a </script> & <b>");
  CHECK(data["runs"][0]["name"] == "gqa");
  CHECK(data["runs"][0]["group"] == "gqa");
  CHECK(data["runs"][0]["status"] == "running");
  CHECK(data["runs"][0]["config"]["hidden_size"] == 32);
  CHECK(data["runs"][0]["train"]["loss"] == nlohmann::json::parse("[5.5,null]"));
  CHECK(data["runs"][0]["val"] == nlohmann::json::object());
  CHECK(html.find("<title>a &lt;/script> &amp; &lt;b></title>") != std::string::npos);
  size_t scripts = 0;
  for (size_t at = html.find("</script>"); at != std::string::npos; at = html.find("</script>", at + 1))
    ++scripts;
  CHECK(scripts == 1);
  // Nothing is fetched: no address but the name space of SVG, no import, no link.
  for (const char* word : {"src=", "href=", "@import", "url(http", "fetch(", "https://"})
    CHECK_MESSAGE(html.find(word) == std::string::npos, word);
}

TEST_CASE("page: the template is small") { CHECK(render({.title = ""}).size() < 30'000); }

TEST_CASE("page: is written as a whole, and not again at once") {
  const Folder folder;
  RunHistory history;
  PageWriter writer(folder.path / "report.html");
  CHECK(!writer.due(true));  // a run that has just begun is not held up
  writer.write(small_page(history));
  CHECK(!writer.due(false));
  CHECK(folder.names() == std::vector<std::string>{"report.html"});
  CHECK(read_file(folder.path / "report.html").ends_with("</html>\n"));
}

TEST_CASE("table: the best of each column is marked where there is one") {
  const Table table{.columns = {{"model"},
                                {"loss", "", Better::low},
                                {"speed", "", Better::high},
                                {"size", "", Better::low}},
                    .rows = {{"a", {{"a"}, {"1.5", 1.5}, {"10", 10}, {"3", 3}}},
                             {"bé", {{"bé"}, {"1.25", 1.25}, {"9", 9}, {"3", 3}}},
                             {"c", {{"c"}, {"–"}, {"–"}, {"–"}}}}};
  CHECK(to_text(table, false) ==
        "model   loss  speed  size\n"
        "a       1.5     10*     3\n"
        "bé     1.25*     9      3\n"
        "c         –      –      –\n");
  CHECK(to_text(table, true).find("\x1b[1;32m") != std::string::npos);
  const auto json = nlohmann::json::parse(to_json(table));
  CHECK(json["columns"][1]["better"] == "low");
  CHECK(json["rows"][1]["cells"][1]["value"] == 1.25);
  CHECK(json["rows"][2]["cells"][1]["value"].is_null());
  CHECK(json["rows"][1]["group"] == "bé");
}
