#include "tools/data/source.h"

#include <doctest/doctest.h>
#include <nf/error.h>
#include <unistd.h>

#include <fstream>

#include "tests/data/packing.h"
#include "tests/support/folder.h"

using namespace nf;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> texts(const std::vector<std::string>& paths, const SourceOptions& options = {}) {
  std::vector<std::string> out;
  open_documents(paths, options)->visit([&](const Document& document) { out.emplace_back(document.text); });
  return out;
}

using Texts = std::vector<std::string>;

TEST_CASE("documents: files that are left out of a folder are named") {
  const Folder folder;
  folder.write("a.txt", "one");
  folder.write("jokes", "two\n%\nthree\n");
  folder.write("jokes.dat", "an index");
  CHECK(open_documents({folder.path.string()})->left_out().empty());
  const std::string letter = folder.write("letter.odt", "four");
  const std::string said = open_documents({folder.path.string()})->left_out();
  CHECK(said.find("data: left out " + letter + ", whose names") == 0);
  folder.write("settings.json", "{}");
  CHECK(open_documents({folder.path.string()})->left_out().find(letter + " and 1 more") != std::string::npos);
  CHECK(open_documents({letter})->left_out().empty());
}

}  // namespace

TEST_CASE("source: a text file is one document, byte for byte") {
  const Folder folder;
  CHECK(texts({folder.write("a.txt", "one\r\ntwo")}) == Texts{"one\r\ntwo"});  // no line end, CRLF
  CHECK(texts({folder.write("b.txt",
                            "\xEF\xBB\xBF"
                            "bom\n")}) == Texts{"bom\n"});  // byte order mark
  CHECK(texts({folder.write("c.txt", std::string("nul\0nul", 7))}) == Texts{std::string("nul\0nul", 7)});
  CHECK(texts({folder.write("d.txt", "a\n%\nb\n")}) == Texts{"a\n%\nb\n"});  // .txt is not a fortune file
  CHECK(texts({folder.write("notes", "no extension")}) == Texts{"no extension"});
  const std::string large(200'001, 'x');
  CHECK(texts({folder.write("e.txt", large)}) == Texts{large});
}

TEST_CASE("source: an empty file has no document") {
  const Folder folder;
  for (const char* name : {"a.txt", "a.jsonl", "fortune"}) {
    CHECK(texts({folder.write(name, "")}) == Texts{});
    CHECK(texts({folder.write(name, "\xEF\xBB\xBF")}) == Texts{});
  }
}

TEST_CASE("source: JSON lines") {
  const Folder folder;
  const auto file = folder.write("a.jsonl",
                                 "\xEF\xBB\xBF{\"text\": \"one\\n\\u20ac\", \"id\": 1}\r\n"
                                 "\n  \t\r\n"
                                 "{\"id\": 2, \"text\": \"\"}\n"
                                 "{\"text\": \"\\ud83d\\ude00\"}");  // no line end
  CHECK(texts({file}) == Texts{"one\n\xE2\x82\xAC", "\xF0\x9F\x98\x80"});

  std::vector<std::string> origins;
  open_documents({file})->visit([&](const Document& document) { origins.push_back(document.origin()); });
  CHECK(origins == Texts{file + ":1", file + ":5"});

  const auto other = folder.write("b.ndjson", R"({"text": 1, "content": "x"})");
  CHECK(texts({other}, {.text_field = "content"}) == Texts{"x"});
}

TEST_CASE("source: a .json file is an array of records or strings, or JSON lines") {
  const Folder folder;
  const auto array =
      folder.write("a.json", "\xEF\xBB\xBF [\n  {\"text\": \"one\", \"id\": 1},\n  {\"text\": \"two\"}]\n");
  CHECK(texts({array}) == Texts{"one", "two"});
  CHECK(texts({folder.write("b.json", R"(["one", "", "two"])")}) == Texts{"one", "two"});
  CHECK(texts({folder.write("c.json", "{\"story\": \"one\"}\n{\"story\": \"two\"}\n")}) ==
        Texts{"one", "two"});
  CHECK(texts({folder.write("d.json", "[]")}) == Texts{});
  folder.write("e.txt", "only this");
  CHECK(texts({folder.path.string()}) == Texts{"only this"});  // a folder's .json may be anything

  const auto refusal = [&](const std::string& content) {
    try {
      texts({folder.write("bad.json", content)});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refusal(R"([{"text": "a"}, 7])").find("bad.json: record 2: expected a JSON object") !=
        std::string::npos);
  CHECK(refusal(R"([{"text": "a"}, {"text": 7}])").find("record 2: field \"text\" is not a string") !=
        std::string::npos);
  CHECK(refusal("{\n  \"text\": \"a\"\n}\n").find("bad.json: an object over several lines") !=
        std::string::npos);
  CHECK(refusal(R"({"a": {"text": "b"}, "c": 1})").find("none of these is a string: a, c") !=
        std::string::npos);
  CHECK(refusal(R"([{"text": "a")").find("bad.json: not JSON") != std::string::npos);
  CHECK(refusal("[\"\xFF\"]").find("invalid UTF-8") != std::string::npos);
}

TEST_CASE("source: a bad JSON line is named") {
  const Folder folder;
  const struct {
    std::string line, message;
  } cases[] = {{"{\"text\": \"a\"", "not JSON"},
               {"{\"text\": \"a\"} x", "not JSON"},
               {"{\"text\": \"\\ud800\"}", "not JSON"},
               {"{\"text\": \"a\tb\"}", "not JSON"},
               {std::string(3000, '['), "not JSON"},
               {"[\"text\"]", "expected a JSON object"},
               {"\"text\"", "expected a JSON object"},
               {"{\"txt\": \"a\"}", "there is no field \"text\""},
               {"{\"text\": 3}", "field \"text\" is not a string"},
               {"{\"text\": null}", "field \"text\" is not a string"}};
  for (const auto& c : cases) {
    const auto file = folder.write("a.jsonl", "{\"text\": \"good\"}\n" + c.line + "\n");
    CHECK_THROWS_WITH_AS(texts({file}), doctest::Contains((file + ":2: " + c.message).c_str()), Error);
  }
}

TEST_CASE("source: fortune files") {
  const Folder folder;
  const std::string bytes = "one\ntwo\n%\n100%\n%%\n% \n%\n%\n\n%\nlast";
  const Texts entries = {"one\ntwo", "100%\n%%\n% ", "last"};
  CHECK(texts({folder.write("wisdom", bytes)}) == entries);
  CHECK(texts({folder.write("crlf", "a\r\nb\r\n%\r\nc\r\n%\r\n")}) == Texts{"a\r\nb", "c"});
  CHECK(texts({folder.write("starts", "%\na\n%")}) == Texts{"a"});

  folder.write("single.txt.dat", "index");
  CHECK(texts({folder.write("single.txt", "only one")}) == Texts{"only one"});
  CHECK(texts({folder.write("single.txt", "a\n%\nb\n")}) == Texts{"a", "b"});

  std::vector<int64_t> lines;
  open_documents({folder.write("wisdom", bytes)})->visit([&](const Document& d) { lines.push_back(d.line); });
  CHECK(lines == std::vector<int64_t>{1, 4, 11});
}

TEST_CASE("source: fortune indexes and links are left out, however they are reached") {
  const Folder folder;
  folder.write("jokes", "a\n%\nb\n");
  folder.write("jokes.dat", std::string("\0\0\0\2\xFF", 5));
  fs::create_symlink("jokes", folder.path / "jokes.u8");
  const std::string root = folder.path.string();
  CHECK(texts({root}) == Texts{"a", "b"});
  CHECK(texts({root + "/*"}) == Texts{"a", "b"});
  CHECK(texts({root + "/jokes", root + "/jokes.dat", root + "/jokes.u8"}) == Texts{"a", "b"});
}

TEST_CASE("source: folders are searched in sorted order, and only for what is text") {
  const Folder folder;
  folder.write("b.txt", "b");
  folder.write("a/z.txt", "az");
  folder.write("a/b/c.jsonl", "{\"text\":\"abc\"}");
  folder.write("a/fortune", "f\n%\ng\n");
  folder.write("a/README", "not a document");
  folder.write("a/picture.png", "\xFF");
  folder.write(".hidden.txt", "h");
  folder.write(".git/x.txt", "h");
  fs::create_directory_symlink(folder.path, folder.path / "a" / "loop");
  const std::string root = folder.path.string();
  CHECK(texts({root}) == Texts{"abc", "f", "g", "az", "b"});
  CHECK(texts({root + "/b.txt", root}) == Texts{"b", "abc", "f", "g", "az"});  // read once
  CHECK(texts({root + "/*.txt"}) == Texts{"b"});
  CHECK(texts({root + "/[ab]*"}) == Texts{"abc", "f", "g", "az", "b"});
  folder.write("odd[1].txt", "odd");
  CHECK(texts({root + "/odd[1].txt"}) == Texts{"odd"});  // a name before a pattern
}

TEST_CASE("source: packed files are read as what is inside") {
  const Folder folder;
  folder.write("a.txt.gz", gzip("text"));
  folder.write("b.jsonl.zst", zstd("{\"text\":\"one\"}\n{\"text\":\"two\"}\n"));
  folder.write("c.bin.gz", gzip("no text"));
  folder.write("fortune.gz", gzip("f\n%\ng\n"));
  CHECK(texts({folder.path.string()}) == Texts{"text", "one", "two", "f", "g"});
  CHECK(texts({folder.path.string() + "/c.bin.gz"}) == Texts{"no text"});
}

TEST_CASE("source: a long text comes in pieces, cut where tokens end") {
  const Folder folder;
  constexpr size_t kPiece = size_t{1} << 20;
  const auto check = [&](const std::string& text, std::string_view before, std::string_view after) {
    const std::string record = folder.write("a.jsonl", "{\"text\": \"" + text + "\"}\n");
    const std::string file = folder.write("a.txt", text);
    const bool lines = text.find('\n') != std::string::npos;  // which JSON would have to escape
    for (const std::string& path : lines ? Texts{file} : Texts{file, record}) {
      std::string joined;
      int64_t ends = 0;
      open_documents({path})->visit([&](const Document& document) {
        CHECK(document.text.size() <= kPiece);
        if (document.more) CHECK(document.text.size() >= kPiece / 2 - 3);
        if (document.more) CHECK(document.text.ends_with(before));
        if (!joined.empty()) CHECK(document.text.starts_with(after));
        joined += document.text;
        ends += document.more ? 0 : 1;
      });
      CHECK(joined == text);
      CHECK(ends == 1);
    }
  };
  const auto repeat = [](std::string_view piece, size_t size) {
    std::string text;
    while (text.size() < size) text += piece;
    return text;
  };
  check(repeat("word\n\nword\n word\nline\n\n", 3 * kPiece), "word\n", "line");
  check(repeat(" \n", 2 * kPiece), "\n", " ");
  check(repeat("\xE2\x82\xAC", 2 * kPiece + 1), "\x82\xAC", "\xE2");  // never inside a character
  check(std::string(kPiece, 'x'), "", "");
  check(std::string(kPiece + 1, 'x'), "x", "x");
}

TEST_CASE("source: the only string of a record is its text where nobody named another") {
  const Folder folder;
  const auto file =
      folder.write("a.jsonl", "{\"id\":1,\"body\":\"x\"}\n{\"id\":2,\"body\":\"y\",\"t\":\"z\"}\n");
  CHECK(texts({file}) == Texts{"x", "y"});
  CHECK_THROWS_WITH_AS(texts({file}, {.text_field = "content"}),
                       doctest::Contains("there is no field \"content\"; name one with --text-field: body"),
                       Error);
  CHECK_THROWS_WITH_AS(texts({folder.write("b.jsonl", "{\"a\":\"x\",\"b\":\"y\",\"c\":3}\n")}),
                       doctest::Contains("there is no field \"text\"; name one with --text-field: a, b"),
                       Error);
}

TEST_CASE("source: a forced format") {
  const Folder folder;
  const auto file = folder.write("a.txt",
                                 "\xEF\xBB\xBF"
                                 "x\r\n\ny");
  CHECK(texts({file}, {.format = DocumentFormat::lines}) == Texts{"x", "y"});
  CHECK(texts({folder.write("b.txt", "a\n%\nb")}, {.format = DocumentFormat::fortune}) == Texts{"a", "b"});
  CHECK(parse_document_format("auto") == DocumentFormat::automatic);
  CHECK(parse_document_format("lines") == DocumentFormat::lines);
  CHECK_THROWS_WITH_AS(parse_document_format("csv"),
                       doctest::Contains("auto, text, lines, jsonl, json, parquet, fortune"), Error);
}

TEST_CASE("source: invalid UTF-8 is named with its file and byte") {
  const Folder folder;
  const struct {
    std::string name, bytes, offset;
  } cases[] = {{"a.txt", "caf\xE9", "3"},
               {"a.txt",
                "\xEF\xBB\xBF"
                "ab\xFF",
                "5"},
               {"a.txt", "euro \xE2\x82", "5"},
               {"a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xE9\"}\n", "22"},
               {"a.jsonl", "\xEF\xBB\xBF \n\xE9", "5"},
               {"fortune",
                "\xEF\xBB\xBF"
                "a\n%\nb\nc\xE9\n",
                "10"}};
  for (const auto& c : cases) {
    const auto file = folder.write(c.name, c.bytes);
    const std::string message = "data: " + file + ": invalid UTF-8 at byte " + c.offset + " (0x";
    CHECK_THROWS_WITH_AS(texts({file}), doctest::Contains(message.c_str()), Error);
  }
}

TEST_CASE("source: paths that give nothing") {
  const Folder folder;
  const std::string root = folder.path.string();
  CHECK_THROWS_AS(open_documents({}), Error);
  CHECK_THROWS_WITH_AS(open_documents({root + "/no.txt"}), doctest::Contains("no.txt does not exist"), Error);
  CHECK_THROWS_WITH_AS(open_documents({root + "/*.txt"}), doctest::Contains("no file matches"), Error);
  CHECK_THROWS_WITH_AS(
      open_documents({root}),
      doctest::Contains("no .txt, .jsonl, .ndjson, .parquet (also .gz, .zst) or fortune file in"), Error);
  CHECK_THROWS_WITH_AS(open_documents({"/dev/null"}), doctest::Contains("neither a file nor a folder"),
                       Error);
  if (::geteuid() != 0) {  // root may read everything
    const auto file = folder.write("sub/secret.txt", "x");
    fs::permissions(file, fs::perms::none);
    CHECK_THROWS_WITH_AS(texts({file}), doctest::Contains("cannot open"), Error);
    fs::permissions(folder.path / "sub", fs::perms::none);
    CHECK_THROWS_WITH_AS(texts({root}), doctest::Contains("cannot read folder"), Error);
    fs::permissions(folder.path / "sub", fs::perms::owner_all);
  }
}

TEST_CASE("source: what a visitor throws passes through, and a source can be visited again") {
  const Folder folder;
  folder.write("a.txt", "a");
  folder.write("b.txt", "b");
  const auto source = open_documents({folder.path.string()});
  CHECK(source->description().starts_with("2 files, "));
  int visits = 0;
  CHECK_THROWS_AS(source->visit([&](const Document&) {
    if (++visits == 2) fail("stop");
  }),
                  Error);
  source->visit([&](const Document&) { ++visits; });
  CHECK(visits == 4);
}

TEST_CASE("source: the fortunes of the system, where they are installed") {
  const fs::path root = "/usr/share/games/fortunes";
  if (!fs::exists(root / "wisdom")) return;
  size_t entries = 0;
  open_documents({root.string()})->visit([&](const Document& document) {
    ++entries;
    CHECK(document.text.find("\n%\n") == std::string_view::npos);
  });
  CHECK(entries > 1000);
}
