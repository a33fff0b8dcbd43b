#include "tools/data/parquet_format.h"

#include <array>

#include "tools/data/parquet_thrift.h"

namespace nf::parquet {
namespace {

using Type = CompactReader::Type;

constexpr int32_t kByteArray = 6;  // the physical type
constexpr int32_t kConvertedUtf8 = 0, kConvertedEnum = 4, kConvertedJson = 19;
constexpr int kLogicalString = 1, kLogicalEnum = 4, kLogicalJson = 12;

struct SchemaElement {
  std::string name;
  int32_t type = -1, repetition = 0, children = 0;
  bool text = false;
};

SchemaElement parse_schema_element(CompactReader& in) {
  SchemaElement element;
  in.structure([&](int id, Type type) {
    switch (id) {
      case 1: element.type = in.small(type); break;
      case 3: element.repetition = in.small(type); break;
      case 4: element.name = in.text(type); break;
      case 5: element.children = in.small(type); break;
      case 6: {
        const int32_t meaning = in.small(type);
        element.text |= meaning == kConvertedUtf8 || meaning == kConvertedEnum || meaning == kConvertedJson;
        break;
      }
      case 10:
        require(type == Type::structure, "a struct is expected");
        in.structure([&](int meaning, Type inner) {
          element.text |= meaning == kLogicalString || meaning == kLogicalEnum || meaning == kLogicalJson;
          in.skip(inner);
        });
        break;
      default: in.skip(type);
    }
  });
  require(element.children >= 0 && element.repetition >= 0 && element.repetition <= 2,
          "an impossible schema element '{}'", element.name);
  return element;
}

// The schema is a tree in depth-first order; the first element is its root.
void fill_columns(const std::vector<SchemaElement>& schema, FileMetadata& file) {
  require(!schema.empty() && schema[0].children > 0, "the schema has no columns");
  size_t at = 1;
  for (int32_t i = 0; i < schema[0].children; ++i) {
    require(at < schema.size(), "the schema is cut short");
    const SchemaElement& top = schema[at];
    file.columns.push_back({.name = top.name,
                            .nested = top.children > 0 || top.repetition == 2,
                            .binary = top.children == 0 && top.type == kByteArray,
                            .text = top.children == 0 && top.type == kByteArray && top.text,
                            .optional = top.repetition == 1,
                            .leaf = file.leaves});
    for (int64_t open = 1; open > 0; --open) {
      require(at < schema.size(), "the schema is cut short");
      if (schema[at].children == 0) ++file.leaves;
      open += schema[at++].children;
    }
  }
  require(at == schema.size(), "the schema has elements that belong to no column");
}

void parse_chunk_metadata(CompactReader& in, Chunk& chunk) {
  int64_t data = 0, dictionary = 0;
  in.structure([&](int id, Type type) {
    switch (id) {
      case 4: chunk.codec = in.small(type); break;
      case 5: chunk.values = in.integer(type); break;
      case 7: chunk.size = in.integer(type); break;
      case 9: data = in.integer(type); break;
      case 11: dictionary = in.integer(type); break;
      default: in.skip(type);
    }
  });
  chunk.begin = dictionary > 0 && dictionary < data ? dictionary : data;
}

Chunk parse_chunk(CompactReader& in) {
  Chunk chunk;
  bool known = false;
  in.structure([&](int id, Type type) {
    if (id == 1) {
      chunk.elsewhere |= !in.text(type).empty();
    } else if (id == 3) {
      require(type == Type::structure, "a struct is expected");
      parse_chunk_metadata(in, chunk);
      known = true;
    } else {
      chunk.elsewhere |= id == 8 || id == 9;
      in.skip(type);
    }
  });
  chunk.elsewhere |= !known;
  return chunk;
}

RowGroup parse_row_group(CompactReader& in) {
  RowGroup group;
  in.structure([&](int id, Type type) {
    if (id == 1) {
      in.list(type, [&](Type inner) {
        require(inner == Type::structure, "a struct is expected");
        group.chunks.push_back(parse_chunk(in));
      });
    } else if (id == 3) {
      group.rows = in.integer(type);
    } else {
      in.skip(type);
    }
  });
  return group;
}

void parse_data_page(CompactReader& in, PageHeader& page) {
  in.structure([&](int id, Type type) {
    switch (id) {
      case 1: page.values = in.small(type); break;
      case 2: page.encoding = in.small(type); break;
      case 3:
        if (page.kind == PageKind::data)
          page.level_encoding = in.small(type);
        else
          in.skip(type);
        break;
      default: in.skip(type);
    }
  });
}

void parse_data_page_v2(CompactReader& in, PageHeader& page) {
  in.structure([&](int id, Type type) {
    switch (id) {
      case 1: page.values = in.small(type); break;
      case 4: page.encoding = in.small(type); break;
      case 5: page.definition_bytes = in.small(type); break;
      case 6: page.repetition_bytes = in.small(type); break;
      case 7: page.packed_values = in.boolean(type); break;
      default: in.skip(type);
    }
  });
}

}  // namespace

FileMetadata parse_file_metadata(std::string_view footer) {
  CompactReader in(footer);
  FileMetadata file;
  std::vector<SchemaElement> schema;
  in.structure([&](int id, Type type) {
    if (id == 2) {
      in.list(type, [&](Type inner) {
        require(inner == Type::structure, "a struct is expected");
        schema.push_back(parse_schema_element(in));
      });
    } else if (id == 3) {
      file.rows = in.integer(type);
    } else if (id == 4) {
      in.list(type, [&](Type inner) {
        require(inner == Type::structure, "a struct is expected");
        file.row_groups.push_back(parse_row_group(in));
      });
    } else {
      require(id != 8, "its columns are encrypted");
      in.skip(type);
    }
  });
  fill_columns(schema, file);
  int64_t left = file.rows;
  for (const RowGroup& group : file.row_groups) {
    require(group.chunks.size() == file.leaves, "a row group has {} columns, the schema {}",
            group.chunks.size(), file.leaves);
    require(group.rows >= 0 && group.rows <= left, "its row groups do not have {} rows together", file.rows);
    left -= group.rows;
  }
  require(left == 0, "its row groups do not have {} rows together", file.rows);
  return file;
}

PageHeader parse_page_header(std::string_view bytes) {
  CompactReader in(bytes);
  PageHeader page;
  in.structure([&](int id, Type type) {
    switch (id) {
      case 1: {
        const int32_t kind = in.small(type);
        require(kind >= 0 && kind <= 3, "there is no page type {}", kind);
        page.kind = static_cast<PageKind>(kind);
        break;
      }
      case 2: page.unpacked_size = in.small(type); break;
      case 3: page.packed_size = in.small(type); break;
      case 4: page.crc = static_cast<uint32_t>(in.small(type)); break;
      case 5:
      case 7:
        require(type == Type::structure, "a struct is expected");
        parse_data_page(in, page);
        break;
      case 8:
        require(type == Type::structure, "a struct is expected");
        parse_data_page_v2(in, page);
        break;
      default: in.skip(type);
    }
  });
  page.bytes = in.used();
  return page;
}

std::string_view codec_name(int32_t codec) {
  constexpr std::array<std::string_view, 8> kNames = {"none",   "snappy", "gzip", "LZO",
                                                      "Brotli", "LZ4",    "zstd", "raw LZ4"};
  return codec >= 0 && codec < static_cast<int32_t>(kNames.size()) ? kNames[static_cast<size_t>(codec)]
                                                                   : "unknown";
}

std::string_view encoding_name(int32_t encoding) {
  constexpr std::array<std::string_view, 10> kNames = {"PLAIN",
                                                       "unknown",
                                                       "PLAIN_DICTIONARY",
                                                       "RLE",
                                                       "BIT_PACKED",
                                                       "DELTA_BINARY_PACKED",
                                                       "DELTA_LENGTH_BYTE_ARRAY",
                                                       "DELTA_BYTE_ARRAY",
                                                       "RLE_DICTIONARY",
                                                       "BYTE_STREAM_SPLIT"};
  return encoding >= 0 && encoding < static_cast<int32_t>(kNames.size())
             ? kNames[static_cast<size_t>(encoding)]
             : "unknown";
}

}  // namespace nf::parquet
