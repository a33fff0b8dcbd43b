// The file formats behind open_documents(): each reader visits the documents of one file.
#pragma once

#include <filesystem>

#include "tools/data/source.h"

namespace nf {

void read_text(const std::filesystem::path& file, const SourceOptions& options,
               const DocumentVisitor& visitor);
void read_lines(const std::filesystem::path& file, const SourceOptions& options,
                const DocumentVisitor& visitor);
void read_jsonl(const std::filesystem::path& file, const SourceOptions& options,
                const DocumentVisitor& visitor);
void read_json(const std::filesystem::path& file, const SourceOptions& options,
               const DocumentVisitor& visitor);
void read_parquet(const std::filesystem::path& file, const SourceOptions& options,
                  const DocumentVisitor& visitor);
void read_fortune(const std::filesystem::path& file, const SourceOptions& options,
                  const DocumentVisitor& visitor);

// Calls the visitor for a text, in pieces when it is long; an empty one is skipped.
void visit_text(std::string_view text, const std::filesystem::path& file, int64_t line,
                const DocumentVisitor& visitor);

// Which of a record's `strings` holds the text; see source.h. `all` is what an Error about `where` lists.
std::string choose_text_field(const SourceOptions& options, const std::vector<std::string>& strings,
                              const std::vector<std::string>& all, std::string_view where);

// Whether a line that holds only "%" stands within the first MiB.
bool has_fortune_separator(const std::filesystem::path& file);

}  // namespace nf
