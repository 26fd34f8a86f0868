// PROFILE.journal: every measurement, appended the moment it is known. Format: docs/formats/profile.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/stopwatch.h"
#include "profile/profile.h"
#include "profile/profile_file.h"

namespace espalier {

// The error for a file that belongs to `found` instead of the model that `expected` is for.
struct ModelName {
  std::string fingerprint;
  std::string name;
};
Status OfAnotherModel(const std::string& file, const ModelName& found, const Profile& expected);

struct JournalReplay {
  uint64_t measurements = 0;  // records that were sound and found their place (or were in the profile already)
  uint64_t sound_bytes = 0;   // up to the end of the last sound record: what is behind it is torn
  bool damaged = false;       // more than a torn end: no sound header, or bytes in front of a sound record that are not
};

// Adds what `bytes`, a journal named `name`, holds to `profile`, whose model_fingerprint, model_name and n_layer say
// which model is expected. Skips what is not sound, and says so in `notes`; an empty journal is sound.
// kInvalidArgument, naming both, if it belongs to another model; kUnsupported if its format is newer. `profile` is then
// as it was.
Result<JournalReplay> ReplayJournal(std::span<const std::byte> bytes, const std::string& name, Profile* profile,
                                    RecoveryNotes* notes);

// The journal open for appending, locked against other processes. Thread rule: one thread at a time.
class Journal {
 public:
  // Opens or creates it; kIo, naming it, if another process has it open. Changes nothing in it.
  static Result<std::unique_ptr<Journal>> Open(const std::string& path);
  // What is left to be written goes to the disk.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::string& path() const { return path_; }

  // Makes it ready for Append: cuts off what is behind `sound_bytes`, and begins an empty one for `profile`'s model.
  Status Start(const Profile& profile, uint64_t sound_bytes);
  // Removes the file if Open created it: for one that was never started.
  void Discard();

  // One write() for one measurement. A record that could not be written (kIo, naming the file) is kept, and written
  // together with the next.
  Status Append(const MeasurementSet& set, const Plan& plan, int64_t first_window, std::span<const WindowLoss> losses);
  // Forgets all records, those not written yet included.
  Status Clear();

 private:
  Journal(std::string path, int fd, bool created) : path_(std::move(path)), fd_(fd), created_(created) {}

  Status WritePending();
  Status SyncNowAndThen();

  std::string path_;
  int fd_;
  bool created_;
  std::vector<std::byte> header_;
  uint64_t seed_ = 0;  // of the records' checksums
  uint64_t end_ = 0;   // where the next record goes
  std::vector<std::byte> pending_;
  std::set<std::string> declared_;  // keys of sets that the journal (or pending_) declares
  Stopwatch since_sync_;
  bool unsynced_ = false;
};

}  // namespace espalier
