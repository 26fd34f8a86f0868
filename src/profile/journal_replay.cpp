#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "model/quote.h"
#include "profile/journal.h"
#include "profile/journal_records.h"

namespace espalier {
namespace {

using Bytes = std::span<const std::byte>;

class Replay {
 public:
  Replay(Bytes bytes, std::string name, Profile* profile, RecoveryNotes* notes)
      : bytes_(bytes), name_(std::move(name)), profile_(profile), notes_(notes) {}

  Result<JournalReplay> Run() {
    const auto header = DecodeJournalHeader(bytes_);
    size_t at = 0;
    if (header) {
      ESPALIER_RETURN_IF_ERROR(CheckHeader(*header));
      at = header->bytes;
      result_.sound_bytes = at;
    }
    header_is_sound_ = header.has_value();
    for (const Archive& archive : profile_->archives) {
      sets_.emplace(SetId(archive.set()), archive.set());
    }
    ReadRecords(at);
    TellWhatWasLost();
    return result_;
  }

 private:
  Status CheckHeader(const JournalHeader& header) const {
    if (header.version > kJournalVersion) {
      return Unsupported(fmt::format("{}: journal of format version {}: this Espalier reads up to version {}", name_,
                                     header.version, kJournalVersion));
    }
    if (header.fingerprint != profile_->model_fingerprint) {
      return OfAnotherModel(name_, {header.fingerprint, header.model_name}, *profile_);
    }
    return Status::Ok();
  }

  void ReadRecords(size_t at) {
    const uint64_t seed = JournalSeed(profile_->model_fingerprint);
    while (at < bytes_.size()) {
      const auto record = DecodeRecord(bytes_.subspan(at), seed);
      if (!record) {
        at = FindRecordStart(bytes_, at + 1);
        continue;
      }
      result_.damaged = result_.damaged || at > result_.sound_bytes;
      damaged_bytes_ += at - result_.sound_bytes;
      at += record->bytes;
      result_.sound_bytes = at;
      Apply(*record);
    }
  }

  void Apply(const RecordView& record) {
    if (record.type == static_cast<uint32_t>(RecordType::kSet)) {
      if (const auto set = DecodeSet(record.payload)) {
        sets_.emplace(SetId(*set), *set);
      }
    } else if (record.type == static_cast<uint32_t>(RecordType::kWindows)) {
      const auto windows = DecodeWindows(record.payload, profile_->n_layer);
      const auto set = windows ? sets_.find(windows->set_id) : sets_.end();
      const bool placed = set != sets_.end() &&
                          profile_->ArchiveFor(set->second).Add(windows->plan, windows->first_window, windows->losses);
      ++(placed ? result_.measurements : homeless_);
    }
  }

  void TellWhatWasLost() {
    const uint64_t torn = bytes_.size() - result_.sound_bytes;
    if (!header_is_sound_ && !bytes_.empty()) {
      result_.damaged = true;
      notes_->push_back(fmt::format("{}: expected the header of a journal, found something else", name_));
    }
    if (damaged_bytes_ > 0) {
      notes_->push_back(
          fmt::format("{}: {} bytes are damaged; the measurements in them are lost", name_, damaged_bytes_));
    }
    if (homeless_ > 0) {
      notes_->push_back(fmt::format("{}: {} measurements are lost because what they follow is lost", name_, homeless_));
    }
    if (torn > 0) {
      notes_->push_back(
          fmt::format("{}: the last {} bytes are no whole record: what was being written when it ended", name_, torn));
    }
  }

  const Bytes bytes_;
  const std::string name_;
  Profile* profile_;
  RecoveryNotes* notes_;
  std::map<uint64_t, MeasurementSet> sets_;
  JournalReplay result_;
  bool header_is_sound_ = false;
  uint64_t damaged_bytes_ = 0;
  uint64_t homeless_ = 0;
};

}  // namespace

Status OfAnotherModel(const std::string& file, const ModelName& found, const Profile& expected) {
  return InvalidArgument(fmt::format("{}: belongs to another model: expected {} ({}), found {} ({})", file,
                                     Quote(expected.model_name), expected.model_fingerprint, Quote(found.name),
                                     Printable(found.fingerprint)));
}

Result<JournalReplay> ReplayJournal(std::span<const std::byte> bytes, const std::string& name, Profile* profile,
                                    RecoveryNotes* notes) {
  return Replay(bytes, name, profile, notes).Run();
}

}  // namespace espalier
