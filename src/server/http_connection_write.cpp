// A connection's answers: what is taken from the answering side becomes bytes, and those go out together.
#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "server/http_connection.h"
#include "server/http_head.h"

namespace espalier {

namespace asio = boost::asio;
using boost::system::error_code;

// What a task wrote goes out as soon as it is through: a second round through the strand would cost each token as much
// as making its text.
void HttpConnection::RunTask(const std::function<void()>& task) {
  in_task_ = true;
  task();
  in_task_ = false;
  if (std::exchange(woken_, false)) {
    OnWake();
  }
}

void HttpConnection::Wake() {
  if (socket_.get_executor().running_in_this_thread() && in_task_) {
    woken_ = true;
  } else {
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->OnWake(); });
  }
}

void HttpConnection::OnWake() {
  if (phase_ != Phase::kAnswering || !answer_) {
    return;
  }
  if (answer_->broken()) {
    return Close(true);
  }
  Pump();
}

// While a write is under way nothing is taken, and the answerer's parts pile up without waking anybody.
void HttpConnection::Pump() {
  if (writing_) {
    return;
  }
  Enqueue(answer_->Take());
  if (!queue_.empty()) {
    StartWriting();
  } else if (complete_) {
    FinishAnswer();
  }
}

void HttpConnection::Enqueue(HttpAnswer::Output output) {
  if (output.head) {
    HttpHeadForm form;
    form.http10 = http10_;
    form.length = output.body.size();
    if (!output.sized) {
      form.body = http10_ ? HttpHeadForm::Body::kUntilClose : HttpHeadForm::Body::kChunked;
      chunked_ = !http10_;
      keep_alive_ = keep_alive_ && chunked_;
    }
    keep_alive_ = keep_alive_ && !core_->draining;
    form.keep_alive = keep_alive_;
    head_only_ = head_only_ || !HttpStatusHasBody(output.head->status);
    queue_.push_back(FormatHttpHead(*output.head, form));
  }
  if (!output.body.empty() && !head_only_) {
    if (chunked_) {
      queue_.push_back(fmt::format("{:x}\r\n", output.body.size()));
    }
    queue_.push_back(std::move(output.body));
    if (chunked_) {
      queue_.emplace_back("\r\n");
    }
  }
  complete_ = output.complete;
  if (complete_ && chunked_ && !head_only_) {
    queue_.emplace_back("0\r\n\r\n");
  }
}

void HttpConnection::StartWriting() {
  if (writing_) {
    return;
  }
  writing_ = true;
  flight_ = std::exchange(queue_, {});
  flight_index_ = 0;
  flight_offset_ = 0;
  flight_bytes_ = 0;
  for (const std::string& piece : flight_) {
    flight_bytes_ += piece.size();
  }
  if (writing_at_once_) {
    return WriteLater();
  }
  // The socket nearly always takes a token at once; by way of the queue of operations that would take twice the time.
  // Once only: whoever writes faster than the socket takes must not keep this thread from other connections.
  writing_at_once_ = true;
  error_code error;
  const size_t bytes = socket_.write_some(Gather(), error);
  if (error == asio::error::would_block || error == asio::error::try_again) {
    WriteLater();
  } else {
    OnWritten(error, bytes);
  }
  writing_at_once_ = false;
}

HttpConnection::Buffers HttpConnection::Gather() const {
  Buffers buffers;
  for (size_t i = 0; i < buffers.size() && flight_index_ + i < flight_.size(); ++i) {
    const std::string& piece = flight_[flight_index_ + i];
    const size_t skip = i == 0 ? flight_offset_ : 0;
    buffers[i] = asio::const_buffer(piece.data() + skip, piece.size() - skip);
  }
  return buffers;
}

void HttpConnection::WriteLater() {
  write_deadline_ = After(core_->options.write_seconds);
  WatchTime();
  socket_.async_write_some(
      Gather(), [self = shared_from_this()](const error_code& error, size_t bytes) { self->OnWritten(error, bytes); });
}

void HttpConnection::OnWritten(const error_code& error, size_t bytes) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (error) {
    return Close(true);
  }
  flight_bytes_ -= bytes;
  if (answer_) {
    answer_->SetInFlight(flight_bytes_);
  }
  flight_offset_ += bytes;
  while (flight_index_ < flight_.size() && flight_offset_ >= flight_[flight_index_].size()) {
    flight_offset_ -= flight_[flight_index_].size();
    ++flight_index_;
  }
  if (flight_bytes_ > 0) {
    return WriteLater();
  }
  writing_ = false;
  flight_.clear();
  write_deadline_ = Clock::time_point::max();
  if (!queue_.empty()) {
    StartWriting();
  } else if (phase_ == Phase::kParting) {
    Part();
  } else if (phase_ == Phase::kAnswering && complete_) {
    FinishAnswer();
  } else if (phase_ == Phase::kAnswering) {
    Pump();
  }
}

}  // namespace espalier
