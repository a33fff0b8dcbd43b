// An HTTP server on the loopback interface, for tests of what fetches.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace nf {

struct ServedRequest {
  std::string path;                            // with what follows '?'
  std::map<std::string, std::string> headers;  // names in lower case
};

struct ServedResponse {
  int status = 200;
  std::string body = {};
  std::map<std::string, std::string> headers = {};
  size_t cut_after = std::string::npos;  // closes the connection after that many bytes of the body
};

// Answers one request per connection, one after another.
class TinyServer {
 public:
  using Answer = std::function<ServedResponse(const ServedRequest&)>;
  explicit TinyServer(Answer answer);
  ~TinyServer();
  TinyServer(const TinyServer&) = delete;
  TinyServer& operator=(const TinyServer&) = delete;

  std::string url() const;  // without a slash at its end
  std::vector<ServedRequest> requests() const;

 private:
  void serve();
  void answer(int connection);

  Answer answer_;
  int listener_ = -1, port_ = 0;
  mutable std::mutex mutex_;
  std::vector<ServedRequest> requests_;
  std::thread thread_;
};

}  // namespace nf
