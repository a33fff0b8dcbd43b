#include "tools/data/encode.h"

#include <nf/error.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace nf {
namespace {

// Documents and pieces of such that one thread encodes together.
struct Chunk {
  struct Piece {
    size_t text_end, ids_end;
    const std::filesystem::path* file;
    int64_t line;
    bool more;
  };
  std::string text;
  std::vector<Piece> pieces;
  std::vector<int32_t> ids;
  std::exception_ptr error;  // of the piece behind the encoded ones
  bool done = false;

  void clear() {
    text.clear();
    pieces.clear();
    ids.clear();
    error = nullptr;
    done = false;
  }
};

constexpr size_t kChunkBytes = size_t{1} << 18, kChunkPieces = 4096;

void encode(Chunk& chunk, const Tokenizer& tokenizer, bool special) {
  size_t begin = 0;
  for (Chunk::Piece& piece : chunk.pieces) {
    const std::string_view text = std::string_view(chunk.text).substr(begin, piece.text_end - begin);
    try {
      if (special)
        tokenizer.encode_special(text, chunk.ids);
      else
        tokenizer.encode(text, chunk.ids);
    } catch (const Error& error) {
      const Document document{text, *piece.file, piece.line};
      chunk.error =
          std::make_exception_ptr(Error(fmt::format("data: {}: {}", document.origin(), error.what())));
    } catch (...) {
      chunk.error = std::current_exception();
    }
    if (chunk.error) return;
    piece.ids_end = chunk.ids.size();
    begin = piece.text_end;
  }
}

// A bounded queue in which chunks are encoded in any order and leave in the one they came in. All but the
// encoding happens on the thread that owns it.
class Pipeline {
 public:
  Pipeline(const Tokenizer& tokenizer, bool special, int threads, const EncodedSink& sink)
      : tokenizer_(tokenizer), special_(special), sink_(sink), most_(2 * static_cast<size_t>(threads) + 1) {
    if (threads == 1) return;
    for (int i = 0; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  ~Pipeline() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void add(const Document& document) {
    if (!filling_) {
      filling_ = take_empty();
    }
    Chunk& chunk = *filling_;
    chunk.text += document.text;
    chunk.pieces.push_back({chunk.text.size(), 0, &document.file, document.line, document.more});
    if (chunk.text.size() >= kChunkBytes || chunk.pieces.size() >= kChunkPieces) submit();
  }

  void finish() {
    if (filling_) submit();
    while (!queue_.empty()) hand_over_front();
  }

 private:
  void submit() {
    while (queue_.size() >= most_) hand_over_front();
    if (workers_.empty()) {
      encode(*filling_, tokenizer_, special_);
      filling_->done = true;
    } else {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(filling_.get());
    }
    arrived_.notify_one();
    queue_.push_back(std::move(filling_));
  }

  // Waits for the oldest chunk, hands it over, and keeps its memory for another.
  void hand_over_front() {
    std::unique_ptr<Chunk> chunk = std::move(queue_.front());
    queue_.pop_front();
    {
      std::unique_lock lock(mutex_);
      encoded_.wait(lock, [&] { return chunk->done; });
    }
    const std::string_view text = chunk->text;
    const std::span<const int32_t> ids = chunk->ids;
    size_t text_begin = 0, ids_begin = 0;
    for (const Chunk::Piece& piece : chunk->pieces) {
      if (chunk->error && piece.ids_end == 0) break;
      const Document document{text.substr(text_begin, piece.text_end - text_begin), *piece.file, piece.line,
                              piece.more};
      sink_(document, ids.subspan(ids_begin, piece.ids_end - ids_begin));
      text_begin = piece.text_end;
      ids_begin = piece.ids_end;
    }
    if (chunk->error) std::rethrow_exception(chunk->error);
    chunk->clear();
    empty_.push_back(std::move(chunk));
  }

  std::unique_ptr<Chunk> take_empty() {
    if (empty_.empty()) return std::make_unique<Chunk>();
    std::unique_ptr<Chunk> chunk = std::move(empty_.back());
    empty_.pop_back();
    return chunk;
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      arrived_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      Chunk* const chunk = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      encode(*chunk, tokenizer_, special_);
      lock.lock();
      chunk->done = true;
      encoded_.notify_one();
    }
  }

  const Tokenizer& tokenizer_;
  const bool special_;
  const EncodedSink& sink_;
  const size_t most_;
  std::unique_ptr<Chunk> filling_;
  std::deque<std::unique_ptr<Chunk>> queue_;
  std::vector<std::unique_ptr<Chunk>> empty_;

  std::mutex mutex_;
  std::condition_variable arrived_, encoded_;
  std::deque<Chunk*> waiting_;  // for a worker; owned by queue_
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace

void encode_documents(const DocumentSource& source, const Tokenizer& tokenizer, const EncodeOptions& options,
                      const EncodedSink& sink) {
  const int threads = options.threads > 0
                          ? options.threads
                          : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  Pipeline pipeline(tokenizer, options.special, threads, sink);
  source.visit([&](const Document& document) { pipeline.add(document); });
  pipeline.finish();
}

}  // namespace nf
