#include "tests/data/tiny_server.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <sstream>

namespace nf {

TinyServer::TinyServer(Answer answer)
    : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(listener_ >= 0);
  REQUIRE(::bind(listener_, generic, size) == 0);
  REQUIRE(::listen(listener_, 16) == 0);
  REQUIRE(::getsockname(listener_, generic, &size) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

TinyServer::~TinyServer() {
  ::shutdown(listener_, SHUT_RDWR);
  thread_.join();
  ::close(listener_);
}

std::string TinyServer::url() const { return "http://127.0.0.1:" + std::to_string(port_); }

std::vector<ServedRequest> TinyServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void TinyServer::serve() {
  for (int connection; (connection = ::accept(listener_, nullptr, nullptr)) >= 0;) {
    answer(connection);
    ::close(connection);
  }
}

void TinyServer::answer(int connection) {
  std::string text;
  char block[4096];
  while (text.find("\r\n\r\n") == std::string::npos) {
    const ssize_t count = ::recv(connection, block, sizeof block, 0);
    if (count <= 0) return;
    text.append(block, static_cast<size_t>(count));
  }
  ServedRequest request;
  std::istringstream lines(text);
  std::string method, line;
  lines >> method >> request.path;
  std::getline(lines, line);
  while (std::getline(lines, line) && line != "\r") {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    request.headers[name] = line.substr(colon + 2, line.size() - colon - 3);
  }
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
  }
  const ServedResponse response = answer_(request);
  std::string out = "HTTP/1.1 " + std::to_string(response.status) + " Answer\r\nConnection: close\r\n";
  for (const auto& [name, value] : response.headers) out += name + ": " + value + "\r\n";
  out += "Content-Length: " + std::to_string(response.body.size()) + "\r\n\r\n" +
         response.body.substr(0, response.cut_after);
  for (size_t sent = 0; sent < out.size();) {
    const ssize_t count = ::send(connection, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return;
    sent += static_cast<size_t>(count);
  }
}

}  // namespace nf
