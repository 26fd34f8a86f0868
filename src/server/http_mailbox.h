// Tasks for connections from a thread that is none of the server's. Internal, like http_connection.h.
//
// A step of the engine ends with a token for every stream. Posted one by one, they wake one thread after the other, and
// waking a thread costs more than all that it then has to do. So they are collected, and one thread goes round with
// what came until it is woken.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace espalier {

using HttpStrand = boost::asio::strand<boost::asio::io_context::executor_type>;

// Thread rule: any thread. Tasks of one strand run in the order in which they were posted.
class HttpMailbox : public std::enable_shared_from_this<HttpMailbox> {
 public:
  explicit HttpMailbox(boost::asio::io_context& io) : io_(io) {}

  // Runs `task` on the strand, on a thread of the io_context. Short ones only: the next in the round has to wait.
  void Post(const HttpStrand& strand, std::function<void()> task);

 private:
  struct Letter {
    HttpStrand strand;
    std::function<void()> task;
  };
  void Deliver();

  boost::asio::io_context& io_;
  std::mutex mutex_;
  // Guarded by mutex_:
  std::vector<Letter> letters_;
  bool delivering_ = false;
};

}  // namespace espalier
