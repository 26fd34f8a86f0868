#include "server/http_mailbox.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <utility>

namespace espalier {

void HttpMailbox::Post(const HttpStrand& strand, std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  letters_.push_back({strand, std::move(task)});
  if (!delivering_) {
    delivering_ = true;
    boost::asio::post(io_, [self = shared_from_this()] { self->Deliver(); });
  }
}

// One round at a time, or two threads might overtake one another on the way to the same strand.
void HttpMailbox::Deliver() {
  while (true) {
    std::vector<Letter> letters;
    {
      const std::lock_guard lock(mutex_);
      letters.swap(letters_);
      if (letters.empty()) {
        delivering_ = false;
        return;
      }
    }
    for (Letter& letter : letters) {
      boost::asio::dispatch(letter.strand, std::move(letter.task));
    }
  }
}

}  // namespace espalier
