#include "profile/profile_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "model/fingerprint.h"
#include "profile/journal.h"

namespace espalier {
namespace {

constexpr uint64_t kMaxJournalBytes = 4 * kGiB;

std::string JournalPath(const std::string& path) { return path + ".journal"; }

Result<Profile> EmptyProfile(const Model& model) {
  Profile profile;
  ESPALIER_ASSIGN_OR_RETURN(profile.model_fingerprint, Fingerprint(model));
  profile.model_name = model.display_name();
  profile.quantization = model.quantization();
  profile.n_layer = model.n_layer();
  profile.n_embd = model.hparams().n_embd;
  return profile;
}

// PROFILE as far as it is there and sound.
struct Base {
  Profile profile;
  bool found = false;
  Status unreadable;  // a profile once, but nothing of it can be read
  bool damaged = false;
};

Result<Base> ReadBase(const std::string& path, Profile empty, RecoveryNotes* notes) {
  Base base;
  const auto file = File::Open(path);
  const bool missing = !file.ok() && file.status().code() == ErrorCode::kNotFound;
  if (!file.ok() && !missing) {
    return file.status();
  }
  // A file of no bytes is what mktemp makes: a place for a profile.
  if (missing || (*file)->size() == 0) {
    base.profile = std::move(empty);
    return base;
  }
  base.found = true;
  RecoveryNotes found_notes;
  auto parsed = ParseProfile(**file, &found_notes);
  if (!parsed.ok() && parsed.status().code() != ErrorCode::kCorrupt) {
    return parsed.status();
  }
  base.damaged = !parsed.ok() || !found_notes.empty();
  notes->insert(notes->end(), found_notes.begin(), found_notes.end());
  if (!parsed.ok()) {
    base.unreadable = parsed.status();
    base.profile = std::move(empty);
    return base;
  }
  if (parsed->model_fingerprint != empty.model_fingerprint) {
    return OfAnotherModel(path, {parsed->model_fingerprint, parsed->model_name}, empty);
  }
  base.profile = std::move(*parsed);
  if (base.profile.n_layer != empty.n_layer || base.profile.n_embd != empty.n_embd) {
    return Corrupt(fmt::format("{}: expected {} layers of width {} as the model has, found {} of width {}", path,
                               empty.n_layer, empty.n_embd, base.profile.n_layer, base.profile.n_embd));
  }
  return base;
}

Status CheckJournalSize(const std::string& path, uint64_t bytes) {
  return bytes <= kMaxJournalBytes ? Status::Ok()
                                   : InvalidArgument(fmt::format("{}: expected a journal of at most {}, found {}", path,
                                                                 FormatBytes(kMaxJournalBytes), FormatBytes(bytes)));
}

Result<std::vector<std::byte>> ReadBytes(const std::string& path) {
  ESPALIER_ASSIGN_OR_RETURN(const auto file, File::Open(path));
  ESPALIER_RETURN_IF_ERROR(CheckJournalSize(path, file->size()));
  std::vector<std::byte> bytes(file->size());
  ESPALIER_RETURN_IF_ERROR(file->ReadAt(0, bytes));
  return bytes;
}

// Keeps what `path` holds in PATH.damaged; in PATH.damaged.2 and so on where something else is kept there already.
Status KeepDamaged(const std::string& path, RecoveryNotes* notes) {
  ESPALIER_ASSIGN_OR_RETURN(const auto bytes, ReadBytes(path));
  constexpr int kMost = 100;
  for (int i = 1; i <= kMost; ++i) {
    const std::string kept = i == 1 ? path + ".damaged" : fmt::format("{}.damaged.{}", path, i);
    const auto there = ReadBytes(kept);
    if (there.ok() && *there == bytes) {
      return Status::Ok();
    }
    if (there.ok() || there.status().code() != ErrorCode::kNotFound) {
      continue;
    }
    const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    ESPALIER_RETURN_IF_ERROR(WriteWholeFile(kept, content));
    notes->push_back(fmt::format("{}: the damaged file is kept as {}", path, kept));
    return Status::Ok();
  }
  return IoError(fmt::format("{}: damaged, and {} earlier copies beside it; remove some", path, kMost));
}

// A rename reaches the disk with its folder. What is in the journal must not go before.
Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) {
    ::close(fd);
  }
  // Some file systems cannot sync folders, and say so.
  return synced || error == EINVAL ? Status::Ok()
                                   : IoError(fmt::format("{}: cannot sync: {}", folder, std::strerror(error)));
}

class FileStore final : public ProfileStore {
 public:
  FileStore(std::string path, Profile profile, std::unique_ptr<Journal> journal)
      : path_(std::move(path)), profile_(std::move(profile)), journal_(std::move(journal)) {}

  Profile& profile() override { return profile_; }

  Status Append(const MeasurementSet& set, const Plan& plan, int64_t first_window,
                std::span<const WindowLoss> losses) override {
    if (!profile_.ArchiveFor(set).Add(plan, first_window, losses)) {
      return InvalidArgument(fmt::format("{}: measurement of plan '{}': windows {} to {} do not follow what is there",
                                         path_, plan.ToText(), first_window,
                                         first_window + static_cast<int64_t>(losses.size())));
    }
    return journal_->Append(set, plan, first_window, losses);
  }

  Status Save() override {
    ESPALIER_RETURN_IF_ERROR(WriteProfile(profile_, path_));
    ESPALIER_RETURN_IF_ERROR(SyncFolderOf(path_));
    return journal_->Clear();
  }

 private:
  const std::string path_;
  Profile profile_;
  std::unique_ptr<Journal> journal_;
};

Result<std::unique_ptr<ProfileStore>> OpenWithJournal(const std::string& path, const Model& model,
                                                      std::unique_ptr<Journal>& journal, RecoveryNotes* notes) {
  ESPALIER_ASSIGN_OR_RETURN(Profile empty, EmptyProfile(model));
  ESPALIER_ASSIGN_OR_RETURN(Base base, ReadBase(path, std::move(empty), notes));
  ESPALIER_ASSIGN_OR_RETURN(const auto bytes, ReadBytes(journal->path()));
  ESPALIER_ASSIGN_OR_RETURN(const JournalReplay replay, ReplayJournal(bytes, journal->path(), &base.profile, notes));
  if (!base.unreadable.ok()) {
    notes->push_back(fmt::format("{}; it is begun anew", base.unreadable.message()));
  }
  if (base.damaged) {
    ESPALIER_RETURN_IF_ERROR(KeepDamaged(path, notes));
  }
  if (replay.damaged) {
    ESPALIER_RETURN_IF_ERROR(KeepDamaged(journal->path(), notes));
  }
  ESPALIER_RETURN_IF_ERROR(journal->Start(base.profile, replay.sound_bytes));
  return std::unique_ptr<ProfileStore>(std::make_unique<FileStore>(path, std::move(base.profile), std::move(journal)));
}

}  // namespace

Result<Profile> ReadProfile(const std::string& path, const Model& model, RecoveryNotes* notes) {
  ESPALIER_ASSIGN_OR_RETURN(Profile empty, EmptyProfile(model));
  ESPALIER_ASSIGN_OR_RETURN(Base base, ReadBase(path, std::move(empty), notes));
  const auto bytes = ReadBytes(JournalPath(path));
  if (!bytes.ok() && bytes.status().code() != ErrorCode::kNotFound) {
    return bytes.status();
  }
  if (!bytes.ok() && !base.found) {
    return NotFound(fmt::format("{}: no profile there; `espalier rank` makes one", path));
  }
  uint64_t measurements = 0;
  if (bytes.ok()) {
    ESPALIER_ASSIGN_OR_RETURN(const JournalReplay replay,
                              ReplayJournal(*bytes, JournalPath(path), &base.profile, notes));
    measurements = replay.measurements;
  }
  if (!base.unreadable.ok()) {
    if (measurements == 0) {
      return base.unreadable;
    }
    notes->push_back(base.unreadable.message());
  }
  return std::move(base.profile);
}

Result<std::unique_ptr<ProfileStore>> ProfileStore::Open(const std::string& path, const Model& model,
                                                         RecoveryNotes* notes) {
  ESPALIER_ASSIGN_OR_RETURN(auto journal, Journal::Open(JournalPath(path)));
  auto store = OpenWithJournal(path, model, journal, notes);
  if (!store.ok() && journal != nullptr) {
    journal->Discard();
  }
  return store;
}

}  // namespace espalier
