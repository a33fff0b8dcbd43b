#include "tools/data_flags.h"

#include <fmt/format.h>

#include <cstdio>

namespace nf {

std::unique_ptr<DocumentSource> Texts::open() const {
  auto source = open_documents(paths, options);
  static std::string said;  // once, however many runs of a comparison open the same texts
  if (const std::string note = source->left_out(); !note.empty() && note != said) {
    fmt::print(stderr, "{}\n", note);
    said = note;
  }
  return source;
}

void data_flags(FlagTable& flags, Texts& texts) {
  SourceOptions& o = texts.options;
  flags.texts(
      {.name = "data",
       .takes = "PATH",
       .help = "texts: files, folders, or a dataset of the Hugging Face hub as OWNER/NAME; repeatable"},
      texts.paths);
  flags.text({.name = "text-field", .takes = "NAME", .help = "field of the records that holds the text"},
             o.text_field);
  flags.text({.name = "subset",
              .takes = "NAME",
              .help = "subset of the dataset from the hub",
              .default_text = "the only one, or default"},
             o.hub.subset);
  flags.text({.name = "split", .takes = "NAME", .help = "split of the dataset from the hub"}, o.hub.split);
}

}  // namespace nf
