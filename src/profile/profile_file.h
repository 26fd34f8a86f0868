// The profile on disk. Format and grammar: docs/formats/profile.md.
//
// Two files: PROFILE, a GGUF that is written whole or not at all, and PROFILE.journal, to which every measurement is
// appended the moment it is known. Killing the process at any point (kill -9, power) loses at most the measurement that
// was being made: what the journal holds is read back at the next opening, up to its last sound record.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "model/model.h"
#include "profile/profile.h"

namespace espalier {

// What was not sound, in sentences for people; empty if everything was.
using RecoveryNotes = std::vector<std::string>;

// Reads a profile's GGUF. A file cut short or damaged gives back what is sound (rows, rankings and sections that
// check out) and says in `notes` what was lost; kCorrupt only where not even the header with the model's fingerprint
// can be read. A newer format version: kUnsupported, naming both versions.
Result<Profile> ParseProfile(const ByteSource& source, RecoveryNotes* notes);

// Writes the GGUF atomically. Sections with a checksum each, so that damage stays local.
Status WriteProfile(const Profile& profile, const std::string& path);

// Reads PROFILE and replays PROFILE.journal over it, without changing either. For commands that use a profile.
// kInvalidArgument, naming both, if the profile belongs to another model. kNotFound if neither file exists.
Result<Profile> ReadProfile(const std::string& path, const Model& model, RecoveryNotes* notes);

// A profile open for writing: measurements go to the journal at once, the rest at Save().
// Thread rule: one thread at a time. One process at a time: a lock on the journal refuses the second (kIo).
class ProfileStore {
 public:
  // Opens or starts the profile at `path` for `model`. A profile of another model, or of a newer format, is refused
  // and stays untouched. A damaged one is kept beside as PATH.damaged before anything is written.
  static Result<std::unique_ptr<ProfileStore>> Open(const std::string& path, const Model& model, RecoveryNotes* notes);
  virtual ~ProfileStore() = default;

  // The state, changes by Append included. Change rankings, means and settings here, then Save().
  virtual Profile& profile() = 0;
  // Adds windows to profile() (Archive::Add) and to the journal, with one write() of a checksummed record. Reaches the
  // kernel before it returns (safe against kill -9); fdatasync'ed every few seconds (power).
  // kIo, naming the file, when the disk is full: the measurement is in profile() all the same.
  virtual Status Append(const MeasurementSet& set, const Plan& plan, int64_t first_window,
                        std::span<const WindowLoss> losses) = 0;
  // Writes the GGUF with everything in it (rows that are not whole included), then empties the journal.
  virtual Status Save() = 0;
};

}  // namespace espalier
