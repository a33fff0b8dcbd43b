#include "tools/data_flags.h"

namespace nf {

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
