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
void read_fortune(const std::filesystem::path& file, const SourceOptions& options,
                  const DocumentVisitor& visitor);

// Whether a line that holds only "%" stands within the first MiB.
bool has_fortune_separator(const std::filesystem::path& file);

}  // namespace nf
