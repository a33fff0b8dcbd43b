#include "tools/tokenizer/hugging_face.h"

#include <doctest/doctest.h>
#include <nf/error.h>
#include <nf/file.h>

#include <nlohmann/json.hpp>

#include "tests/support/folder.h"
#include "tools/tokenizer/train_bpe.h"

using namespace nf;
using Json = nlohmann::json;

namespace {

// Vocabularies and files of tests/peers/tokenizer_cases.mjs, with what Hugging Face's library says.
const Json& golden() {
  static const Json json =
      Json::parse(read_file(std::filesystem::path(NF_TESTS_DIR) / "golden/tokenizer_cases.json"));
  return json;
}

Json file_of(const Json& entry) {
  Json file = entry["file"];
  file["model"]["vocab"] = golden()["vocabularies"][file["model"]["vocab"].get<size_t>()];
  return file;
}

Json file_named(const std::string& name) {
  for (const Json& entry : golden()["files"])
    if (entry["name"] == name) return file_of(entry);
  FAIL("no case of this name");
  return {};
}

std::unique_ptr<BpeTokenizer> parse(const Json& file) { return parse_hugging_face(file.dump(), "file"); }

std::string refusal(const Json& file) {
  try {
    parse(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

void check_refused(Json file, const char* pointer, const Json& value, const std::string& message) {
  file[Json::json_pointer(pointer)] = value;
  const std::string said = refusal(file);
  CAPTURE(said);
  CHECK(said.find("tokenizer: file: ") == 0);
  CHECK(said.find(message) != std::string::npos);
}

}  // namespace

TEST_CASE("tokenizer.json: ids and texts are those of Hugging Face's library") {
  int cases = 0;
  for (const Json& entry : golden()["files"]) {
    CAPTURE(entry["name"].get<std::string>());
    const auto tokenizer = parse(file_of(entry));
    for (const Json& expected : entry["cases"]) {
      const auto text = expected["text"].get<std::string>();
      CAPTURE(text);
      std::vector<int32_t> ids;
      tokenizer->encode_special(text, ids);
      CHECK(ids == expected["ids"].get<std::vector<int32_t>>());
      CHECK(tokenizer->decode(ids) == expected["decoded"].get<std::string>());
      ++cases;
    }
  }
  CHECK(cases > 250);
}

TEST_CASE("tokenizer.json: special tokens in a text are text, unless one asks for them") {
  const auto tokenizer = parse(file_named("added"));
  std::vector<int32_t> ids, special;
  tokenizer->encode("<s>the", ids);
  tokenizer->encode_special("<s>the", special);
  CHECK(tokenizer->decode(ids) == "<s>the");
  CHECK(ids.size() == 4);
  CHECK(special.size() == 2);
  CHECK(tokenizer->decode(special) == "the");
}

TEST_CASE("tokenizer.json: saved, it is the same file, and loads as any other") {
  const Folder folder;
  const std::string text = file_named("llama2").dump();
  folder.write("tokenizer.json", text);
  const auto tokenizer = make_tokenizer(folder.path.string());
  CHECK(tokenizer->name() == "bpe");
  tokenizer->save(folder.path / "again");
  CHECK(read_file(folder.path / "again" / "tokenizer.json") == text);
  CHECK(load_tokenizer(folder.path / "again")->fingerprint() == tokenizer->fingerprint());
}

TEST_CASE("tokenizer.json: what begins and ends documents") {
  Json file = file_named("llama2");
  CHECK_FALSE(parse(file)->bos_id());
  CHECK(parse(file)->piece(*parse(file)->eos_id()).empty());  // </s>, by its name
  const int32_t bos = file["added_tokens"][0]["id"], eos = file["added_tokens"][1]["id"];
  CHECK(parse(file)->eos_id() == eos);
  const auto piece = [](const char* kind, const char* id) {
    return Json{{kind, {{"id", id}, {"type_id", 0}}}};
  };
  Json form = {{"type", "TemplateProcessing"},
               {"single", {piece("SpecialToken", "<s>"), piece("Sequence", "A")}},
               {"pair", Json::array()},
               {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {bos}}, {"tokens", {"<s>"}}}}}}};
  file["post_processor"] = {{"type", "Sequence"}, {"processors", {form, {{"type", "ByteLevel"}}}}};
  CHECK(parse(file)->bos_id() == bos);
  CHECK(parse(file)->eos_id() == eos);
  file["padding"] = {{"pad_id", bos}};
  CHECK(parse(file)->pad_id() == bos);

  form["single"].push_back(piece("SpecialToken", "<s>"));
  file["post_processor"] = form;
  CHECK(parse(file)->eos_id() == bos);
  form["single"].push_back(piece("SpecialToken", "<s>"));
  check_refused(file, "/post_processor", form, "post_processor: more than one token on one side");
  form["single"] = {piece("SpecialToken", "<x>")};
  check_refused(file, "/post_processor", form, "post_processor: special token <x> must be an object");
}

TEST_CASE("tokenizer.json: what is not supported is refused by name") {
  const Json file = file_named("gpt2");
  REQUIRE(refusal(file) == "accepted");
  const auto type = [](const char* name) { return Json{{"type", name}}; };
  const auto split = [](const Json& pattern, const char* behavior) {
    return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}};
  };
  check_refused(file, "/pre_tokenizer", type("Punctuation"),
                "pre_tokenizer type Punctuation is not supported");
  check_refused(file, "/pre_tokenizer",
                {{"type", "Sequence"}, {"pretokenizers", {type("ByteLevel"), type("Digits")}}},
                "pre_tokenizer: Digits after ByteLevel");
  check_refused(file, "/pre_tokenizer", split({{"Regex", "a\\h"}}, "Isolated"),
                "'a\\h': \\h is not supported");
  check_refused(file, "/pre_tokenizer", split({{"String", "a"}}, "Sideways"),
                "behavior Sideways is not supported");
  check_refused(file, "/pre_tokenizer", split({{"String", ""}}, "Isolated"), "pattern is empty");
  check_refused(file, "/pre_tokenizer", split("a", "Isolated"), "pattern must be");
  check_refused(file, "/normalizer", type("Lowercase"), "normalizer type Lowercase is not supported");
  check_refused(file, "/decoder", type("WordPiece"), "decoder type WordPiece is not supported");
  check_refused(file, "/post_processor", type("BertProcessing"),
                "post_processor type BertProcessing is not supported");
  check_refused(file, "/model/type", "Unigram", "model type Unigram is not supported");
  check_refused(file, "/model/dropout", 0.1, "model.dropout is not supported");
  check_refused(file, "/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix is not supported");
  check_refused(file, "/truncation", {{"max_length", 512}}, "truncation is not supported");
  check_refused(file, "/version", "2.0", "version 2.0 is not supported");
}

TEST_CASE("tokenizer.json: files that contradict themselves") {
  const Json file = file_named("gpt2");
  check_refused(file, "/model/vocab", Json::object(), "model.vocab must be an object");
  check_refused(file, "/model/vocab/x", 3, "id 3 is");
  check_refused(file, "/model/vocab/xyz", -1, "the id of 'xyz' must be a whole number");
  check_refused(file, "/model/vocab/xyz", int64_t{1} << 40, "must be a whole number from 0 to");
  check_refused(file, "/model/merges", {"a b c"}, "entry 0: 'a b c' is not two tokens");
  check_refused(file, "/model/merges", {"ab"}, "entry 0: 'ab' is not two tokens");
  check_refused(file, "/model/merges", {{"a", "b", "c"}}, "entry 0: neither a text nor a pair");
  check_refused(file, "/model/merges", {"a qqq"}, "'qqq' is not in the vocabulary");
  check_refused(file, "/model/merges", {"z z"}, "merge 0 gives 'zz', which is not in the vocabulary");
  check_refused(file, "/model/unk_token", "<unk>", "model.unk_token: '<unk>' is not in the vocabulary");
  check_refused(file, "/model/byte_fallback", true, "model.byte_fallback: '<0x00>' is not in the vocabulary");
  check_refused(file, "/model/ignore_merges", "yes", "'ignore_merges' must be true or false");
  check_refused(file, "/added_tokens", {{{"id", 3}, {"content", "<s>"}}},
                "'<s>' has id 3, elsewhere in the file");
  check_refused(file, "/added_tokens", {{{"id", 300}, {"content", ""}}}, "content is empty");
  check_refused(file, "/added_tokens", {{{"id", 1.5}, {"content", "x"}}}, "id must be a whole number");
  check_refused(file, "/padding", {{"pad_id", 9999}}, "padding.pad_id is not in the vocabulary");
}

TEST_CASE("tokenizer.json: what is trained here is read as it was made") {
  WordCounter counter{std::string(kGpt2Pattern)};
  counter.add(std::vector<std::string>{"low lower lowest", "newer \"quoted\" wider \xC3\xA9\n"}, 1);
  const auto trained =
      train_bpe(counter, {.vocab_size = 280, .min_count = 1, .special = {"<a>", "<|endoftext|>"}});
  const Json file = Json::parse(trained->to_json());
  const auto again = parse(file);
  CHECK(again->vocab_size() == 280);
  CHECK(again->eos_id() == 279);
  CHECK(again->model().parts().tokens == trained->model().parts().tokens);
  CHECK(again->model().parts().merges == trained->model().parts().merges);
  CHECK(file["model"]["vocab"]["!"] == 0);  // as in GPT-2's vocabulary
}
