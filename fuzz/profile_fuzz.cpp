// Any bytes as a profile, or as its journal: the readers must answer with one line or with something that can be
// written and read again.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/check.h"
#include "base/file.h"
#include "profile/journal.h"
#include "profile/profile_file.h"

namespace {

using namespace espalier;  // NOLINT: a fuzz target is about one library

void CheckLine(const std::string& text) {
  ESPALIER_CHECK(!text.empty());
  ESPALIER_CHECK(text.find('\n') == std::string::npos);
}

void CheckNotes(const RecoveryNotes& notes) {
  for (const std::string& note : notes) {
    CheckLine(note);
  }
}

// In memory where the system has such a folder: every write is synced.
std::string Scratch() {
  const char* folder = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
  return std::string(folder) + "/espalier-profile-fuzz-" + std::to_string(::getpid());
}

void CheckArchives(const Profile& profile) {
  for (const Archive& archive : profile.archives) {
    for (const ArchiveRow& row : archive.rows()) {
      ESPALIER_CHECK(row.plan.n_layer() == profile.n_layer);
      ESPALIER_CHECK(static_cast<int64_t>(row.windows.size()) <= archive.set().n_windows);
      ESPALIER_CHECK(archive.Find(row.plan) == &row);
    }
  }
}

// What was accepted must survive being written.
void CheckWritable(const Profile& profile) {
  const std::string path = Scratch();
  ESPALIER_CHECK(WriteProfile(profile, path).ok());
  const auto content = ReadWholeFile(path, uint64_t{1} << 30);
  std::filesystem::remove(path);
  ESPALIER_CHECK(content.ok());
  RecoveryNotes notes;
  const auto again = ParseProfile(MemorySource(std::as_bytes(std::span(*content)), "again"), &notes);
  ESPALIER_CHECK(again.ok() && notes.empty());
  ESPALIER_CHECK(again->rankings.size() == profile.rankings.size() && again->texts == profile.texts);
  ESPALIER_CHECK(again->archives.size() == profile.archives.size());
}

void TryProfile(std::span<const std::byte> bytes) {
  RecoveryNotes notes;
  const auto profile = ParseProfile(MemorySource(bytes), &notes);
  CheckNotes(notes);
  if (!profile.ok()) {
    CheckLine(profile.status().message());
    return;
  }
  CheckArchives(*profile);
  CheckWritable(*profile);
}

void TryJournal(std::span<const std::byte> bytes) {
  Profile profile;
  profile.model_fingerprint = "00112233445566778899aabbccddeeff";
  profile.model_name = "a model";
  profile.n_layer = 3;
  profile.n_embd = 4;
  RecoveryNotes notes;
  const auto replay = ReplayJournal(bytes, "journal", &profile, &notes);
  CheckNotes(notes);
  if (!replay.ok()) {
    CheckLine(replay.status().message());
    return;
  }
  ESPALIER_CHECK(replay->sound_bytes <= bytes.size());
  CheckArchives(profile);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  TryProfile(bytes);
  TryJournal(bytes);
  return 0;
}
