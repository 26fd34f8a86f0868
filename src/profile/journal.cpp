#include "profile/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "profile/journal_records.h"

namespace espalier {
namespace {

constexpr double kSyncMilliseconds = 5000;

}  // namespace

Result<std::unique_ptr<Journal>> Journal::Open(const std::string& path) {
  bool created = true;
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 && errno == EEXIST) {
    created = false;
    fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  }
  if (fd < 0) {
    return IoError(fmt::format("{}: cannot open for writing: {}", path, std::strerror(errno)));
  }
  std::unique_ptr<Journal> journal(new Journal(path, fd, created));
  struct stat info = {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return IoError(fmt::format("{}: expected a regular file", path));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return IoError(errno == EWOULDBLOCK
                       ? fmt::format("{}: another process is writing to this profile; expected to be alone", path)
                       : fmt::format("{}: cannot lock: {}", path, std::strerror(errno)));
  }
  return journal;
}

Journal::~Journal() {
  if (unsynced_) {
    ::fdatasync(fd_);
  }
  ::close(fd_);
}

Status Journal::Start(const Profile& profile, uint64_t sound_bytes) {
  header_ = EncodeJournalHeader(profile);
  seed_ = JournalSeed(profile.model_fingerprint);
  end_ = sound_bytes;
  if (::ftruncate(fd_, static_cast<off_t>(sound_bytes)) != 0) {
    return IoError(fmt::format("{}: cannot cut off what is torn: {}", path_, std::strerror(errno)));
  }
  if (end_ == 0) {
    pending_ = header_;
    return WritePending();
  }
  return Status::Ok();
}

void Journal::Discard() {
  if (created_) {
    ::unlink(path_.c_str());
  }
}

Status Journal::Append(const MeasurementSet& set, const Plan& plan, int64_t first_window,
                       std::span<const WindowLoss> losses) {
  if (declared_.insert(set.Key()).second) {
    AppendSetRecord(pending_, seed_, set);
  }
  AppendWindowRecords(pending_, seed_, {&set, &plan, first_window, losses});
  return WritePending();
}

Status Journal::Clear() {
  pending_.clear();
  declared_.clear();
  end_ = 0;
  if (::ftruncate(fd_, 0) != 0) {
    return IoError(fmt::format("{}: cannot be emptied: {}", path_, std::strerror(errno)));
  }
  pending_ = header_;
  return WritePending();
}

Status Journal::WritePending() {
  size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t n = ::pwrite(fd_, pending_.data() + done, pending_.size() - done, static_cast<off_t>(end_ + done));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      const std::string why = n < 0 ? std::strerror(errno) : "nothing was written";
      // Half a record must not lie in front of later ones. Where even this fails, the next write goes over it.
      (void)!::ftruncate(fd_, static_cast<off_t>(end_));
      return IoError(fmt::format("{}: writing a measurement failed after {} bytes: {}", path_, end_ + done, why));
    }
    done += static_cast<size_t>(n);
  }
  end_ += done;
  pending_.clear();
  unsynced_ = unsynced_ || done > 0;
  return SyncNowAndThen();
}

Status Journal::SyncNowAndThen() {
  if (!unsynced_ || since_sync_.Milliseconds() < kSyncMilliseconds) {
    return Status::Ok();
  }
  since_sync_ = Stopwatch();
  unsynced_ = false;
  if (::fdatasync(fd_) != 0) {
    return IoError(fmt::format("{}: writing failed: {}", path_, std::strerror(errno)));
  }
  return Status::Ok();
}

}  // namespace espalier
