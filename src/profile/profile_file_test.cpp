// A profile open for writing: nothing that was measured is lost, whatever happens to the process, the disk or the file.
#include "profile/profile_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/file_size_limit_for_test.h"
#include "base/hash.h"
#include "model/fingerprint.h"
#include "profile/journal.h"
#include "profile/journal_records.h"
#include "profile/profile_for_test.h"
#include "support/gguf_bytes.h"

namespace espalier {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

// Three layers; models of another `n_ctx` are other models.
std::shared_ptr<const Model> SomeModel(uint32_t n_ctx = 64) {
  GgufBytes file = TinyLlama();
  file.Set("general.name", Str("tiny " + std::to_string(n_ctx)));
  file.Set("llama.block_count", U32(3));
  file.Set("llama.context_length", U32(n_ctx));
  const auto first_layer = file.tensors;
  for (const char* layer : {"blk.1.", "blk.2."}) {
    for (RawTensor tensor : first_layer) {
      if (tensor.name.starts_with("blk.0.")) {
        tensor.name.replace(0, 6, layer);
        file.tensors.push_back(tensor);
      }
    }
  }
  auto gguf = GgufFile::Parse(Source(file.Build()));
  EXPECT_TRUE(gguf.ok()) << gguf.status().message();
  auto model = Model::FromGguf(*gguf);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return *model;
}

class ProfileFile : public ProfileFolderTest {
 protected:
  std::unique_ptr<ProfileStore> Open(const std::string& path) {
    notes_.clear();
    auto store = ProfileStore::Open(path, *model_, &notes_);
    EXPECT_TRUE(store.ok()) << store.status().message();
    return store.ok() ? std::move(*store) : nullptr;
  }
  std::unique_ptr<ProfileStore> Open() { return Open(Path()); }

  Profile Read() {
    notes_.clear();
    auto profile = ReadProfile(Path(), *model_, &notes_);
    EXPECT_TRUE(profile.ok()) << profile.status().message();
    return profile.ok() ? *profile : Profile();
  }

  // Measurement number `i`: a window of one of 8 plans of two sets; windows of a plan come in order.
  struct Measurement {
    MeasurementSet set;
    Plan plan;
    int64_t first;
    std::vector<WindowLoss> losses;
  };
  static Measurement MeasurementNumber(int i) {
    const int plan = i % 8;
    const int window = i / 8;
    const MeasurementSet set = plan % 2 == 0 ? SomeSet("aa", 1 << 20) : SomeSet("bb", 1 << 20);
    return {set, PlanOfMask(static_cast<unsigned>(plan)), window, SomeLosses(plan, 1, window)};
  }
  static Status Append(ProfileStore& store, int i) {
    const Measurement m = MeasurementNumber(i);
    return store.Append(m.set, m.plan, m.first, m.losses);
  }
  // How many measurements are there. Those that are must be right, and none of number < `at_least` may be missing.
  static int CountMeasurements(const Profile& profile, int at_least) {
    for (int i = 0; i < at_least; ++i) {
      const Measurement m = MeasurementNumber(i);
      const Archive* archive = profile.FindArchive(m.set);
      const ArchiveRow* row = archive == nullptr ? nullptr : archive->Find(m.plan);
      EXPECT_TRUE(row != nullptr && static_cast<int64_t>(row->windows.size()) > m.first) << "lost: number " << i;
    }
    int count = 0;
    for (const Archive& archive : profile.archives) {
      for (const ArchiveRow& row : archive.rows()) {
        for (size_t window = 0; window < row.windows.size(); ++window, ++count) {
          int plan = 0;
          for (const BlockId block : row.plan.dropped()) {
            plan += 1 << block.index;
          }
          EXPECT_EQ(row.windows[window], SomeLosses(plan, 1, static_cast<int>(window)).front());
        }
      }
    }
    return count;
  }

  static std::string JournalOf(const std::string& path) { return path + ".journal"; }
  std::string JournalPath() const { return JournalOf(Path()); }

  std::shared_ptr<const Model> model_ = SomeModel();
  RecoveryNotes notes_;
};

TEST_F(ProfileFile, StartsEmptyForTheModel) {
  const auto store = Open();
  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(notes_.empty());
  EXPECT_EQ(store->profile().model_fingerprint, *Fingerprint(*model_));
  EXPECT_EQ(store->profile().model_name, "tiny 64");
  EXPECT_EQ(store->profile().n_layer, 3);
  EXPECT_EQ(store->profile().n_embd, 8);
  EXPECT_FALSE(std::filesystem::exists(Path())) << "nothing to save yet";
}

TEST_F(ProfileFile, WhatWasAppendedIsThereWithoutSave) {
  {
    const auto store = Open();
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(Append(*store, i).ok());
    }
    EXPECT_EQ(CountMeasurements(store->profile(), 100), 100);
  }
  EXPECT_EQ(CountMeasurements(Read(), 100), 100);
  EXPECT_TRUE(notes_.empty()) << notes_.front();
  const auto again = Open();
  EXPECT_EQ(CountMeasurements(again->profile(), 100), 100);
  ASSERT_TRUE(Append(*again, 100).ok());
  EXPECT_EQ(CountMeasurements(Read(), 101), 101);
}

TEST_F(ProfileFile, SaveMovesTheJournalIntoTheProfile) {
  {
    const auto store = Open();
    const auto empty_journal = std::filesystem::file_size(JournalPath());
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(Append(*store, i).ok());
    }
    store->profile().Put({.method = "random", .seed = 3, .drop_order = {{5}, {0}, {4}, {1}, {3}, {2}}});
    ASSERT_TRUE(store->Save().ok());
    EXPECT_EQ(std::filesystem::file_size(JournalPath()), empty_journal);
    ASSERT_TRUE(Append(*store, 50).ok());
    EXPECT_TRUE(SameProfile(Read(), store->profile()));
  }
  std::filesystem::remove(JournalPath());
  EXPECT_EQ(CountMeasurements(Read(), 50), 50);
  EXPECT_EQ(Read().rankings.size(), 1u);
}

TEST_F(ProfileFile, CrashBetweenWritingAndEmptyingTheJournalIsHarmless) {
  const auto store = Open();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(Append(*store, i).ok());
  }
  const std::string journal = Content(JournalPath());
  ASSERT_TRUE(store->Save().ok());
  ASSERT_TRUE(WriteWholeFile(JournalPath(), journal).ok());
  EXPECT_TRUE(SameProfile(Read(), store->profile()));
  EXPECT_TRUE(notes_.empty());
}

TEST_F(ProfileFile, KillLosesNothingThatWasAppended) {
  for (int round = 0; round < 5; ++round) {
    const std::string path = Path("kill" + std::to_string(round));
    int report[2];
    ASSERT_EQ(::pipe(report), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      RecoveryNotes notes;
      auto store = ProfileStore::Open(path, *model_, &notes);
      for (int i = 0; store.ok() && Append(**store, i).ok(); ++i) {
        if (i % 500 == 499 && !(*store)->Save().ok()) {
          break;
        }
        if (::write(report[1], "x", 1) != 1) {
          break;
        }
      }
      ::_exit(1);
    }
    ::close(report[1]);
    int appended = 0;
    char byte = 0;
    while (appended < 100 + 700 * round && ::read(report[0], &byte, 1) == 1) {
      ++appended;
    }
    ::kill(child, SIGKILL);
    while (::read(report[0], &byte, 1) == 1) {
      ++appended;
    }
    ::close(report[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child gave up by itself";
    const auto store = Open(path);
    ASSERT_NE(store, nullptr);
    EXPECT_LE(CountMeasurements(store->profile(), appended), appended + 1);
    ASSERT_TRUE(Append(*store, CountMeasurements(store->profile(), 0)).ok());
  }
}

TEST_F(ProfileFile, JournalCutAnywhereGivesWhatIsInFrontAndGoesOn) {
  constexpr int kCount = 12;
  {
    const auto store = Open();
    for (int i = 0; i < kCount; ++i) {
      ASSERT_TRUE(Append(*store, i).ok());
    }
  }
  const std::string whole = Content(JournalPath());
  int before = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    std::ofstream(JournalPath(), std::ios::binary).write(whole.data(), static_cast<std::streamsize>(size));
    const int count = CountMeasurements(Read(), 0);
    EXPECT_GE(count, before) << size;
    EXPECT_LE(count, kCount);
    before = count;
    const auto store = Open();
    ASSERT_NE(store, nullptr) << size;
    ASSERT_EQ(CountMeasurements(store->profile(), count), count) << size;
    ASSERT_TRUE(Append(*store, count).ok()) << size;
    ASSERT_EQ(CountMeasurements(Read(), count + 1), count + 1) << size;
    EXPECT_TRUE(notes_.empty()) << size << ": the torn end is gone; " << notes_.front();
  }
  EXPECT_GE(before, kCount - 1);
}

TEST_F(ProfileFile, JournalWithFlippedBitsKeepsTheRest) {
  constexpr int kCount = 12;
  {
    const auto store = Open();
    for (int i = 0; i < kCount; ++i) {
      ASSERT_TRUE(Append(*store, i).ok());
    }
  }
  const std::string whole = Content(JournalPath());
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    std::ofstream(JournalPath(), std::ios::binary) << damaged;
    const Profile profile = Read();
    // A set's declaration costs its measurements: half of them.
    EXPECT_GE(CountMeasurements(profile, 0), kCount / 2) << at;
    EXPECT_FALSE(notes_.empty()) << at;
  }
  // What is damaged is kept before anything is written.
  std::string damaged = whole;
  damaged[whole.size() / 2] ^= 1;
  std::ofstream(JournalPath(), std::ios::binary) << damaged;
  ASSERT_TRUE(Open()->Save().ok());
  EXPECT_EQ(Content(JournalPath() + ".damaged"), damaged);
}

TEST_F(ProfileFile, OneProcessWritesAtATime) {
  const auto store = Open();
  const auto second = ProfileStore::Open(Path(), *model_, &notes_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), ErrorCode::kIo);
  EXPECT_NE(second.status().message().find(JournalPath()), std::string::npos) << second.status().message();
  ASSERT_TRUE(Append(*store, 0).ok());
  EXPECT_EQ(CountMeasurements(Read(), 1), 1) << "reading is free";
}

TEST_F(ProfileFile, FullDiskIsToldAndMeasurementsAreWrittenWhenThereIsRoom) {
  const auto store = Open();
  int n = 0;
  {
    const FileSizeLimit limit(4096);
    Status status;
    while ((status = Append(*store, n)).ok()) {
      ++n;
      ASSERT_LT(n, 1000);
    }
    EXPECT_EQ(status.code(), ErrorCode::kIo);
    EXPECT_NE(status.message().find(JournalPath()), std::string::npos) << status.message();
    EXPECT_FALSE(Append(*store, n + 1).ok());
    EXPECT_EQ(CountMeasurements(store->profile(), n + 2), n + 2) << "in memory all the same";
    EXPECT_EQ(CountMeasurements(Read(), n), n);
    EXPECT_TRUE(notes_.empty()) << "no half record: " << notes_.front();
    EXPECT_FALSE(store->Save().ok());
    EXPECT_FALSE(std::filesystem::exists(Path()));
  }
  ASSERT_TRUE(Append(*store, n + 2).ok());
  EXPECT_EQ(CountMeasurements(Read(), n + 3), n + 3);
}

TEST_F(ProfileFile, RefusesProfileOfAnotherModelAndLeavesItAlone) {
  const auto other = SomeModel(128);
  {
    const auto store = Open();
    ASSERT_TRUE(Append(*store, 0).ok());
    ASSERT_TRUE(store->Save().ok());
    ASSERT_TRUE(Append(*store, 1).ok());
  }
  const auto expect_refusal = [&] {
    const std::string journal = Content(JournalPath());
    const bool has_profile = std::filesystem::exists(Path());
    const std::string content = has_profile ? Content(Path()) : "";
    const Status read = ReadProfile(Path(), *other, &notes_).status();
    const Status opened = ProfileStore::Open(Path(), *other, &notes_).status();
    for (const Status& status : {read, opened}) {
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
      for (const std::string& part :
           {std::string("'tiny 64'"), std::string("'tiny 128'"), *Fingerprint(*model_), *Fingerprint(*other)}) {
        EXPECT_NE(status.message().find(part), std::string::npos) << part << " in: " << status.message();
      }
    }
    EXPECT_EQ(Content(JournalPath()), journal);
    EXPECT_EQ(has_profile ? Content(Path()) : "", content);
  };
  expect_refusal();
  std::filesystem::remove(Path());
  expect_refusal();  // the journal alone says so too
}

TEST_F(ProfileFile, DamagedProfileIsKeptBesideAndMended) {
  {
    const auto store = Open();
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(Append(*store, i).ok());
    }
    ASSERT_TRUE(store->Save().ok());
  }
  const std::string whole = Content(Path());
  const auto damage = [&](size_t cut) {
    const std::string damaged = whole.substr(0, whole.size() - cut);
    EXPECT_TRUE(WriteWholeFile(Path(), damaged).ok());
    return damaged;
  };
  const std::string first = damage(2500);
  int kept = 0;
  {
    const auto store = Open();
    ASSERT_NE(store, nullptr);
    EXPECT_FALSE(notes_.empty());
    EXPECT_EQ(Content(Path() + ".damaged"), first);
    EXPECT_EQ(Content(Path()), first) << "until Save";
    kept = CountMeasurements(store->profile(), 0);
    EXPECT_GT(kept, 0);
    EXPECT_LT(kept, 50);
    ASSERT_TRUE(store->Save().ok());
  }
  EXPECT_EQ(CountMeasurements(Read(), 0), kept);
  EXPECT_TRUE(notes_.empty()) << notes_.front();
  // Another damage does not replace what is kept; the same one is kept once.
  const std::string second = damage(1);
  ASSERT_NE(Open(), nullptr);
  ASSERT_NE(Open(), nullptr);
  EXPECT_EQ(Content(Path() + ".damaged"), first);
  EXPECT_EQ(Content(Path() + ".damaged.2"), second);
  EXPECT_FALSE(std::filesystem::exists(Path() + ".damaged.3"));
}

TEST_F(ProfileFile, ProfileBeyondReadingIsBegunAnewAndItsJournalCounts) {
  {
    const auto store = Open();
    ASSERT_TRUE(Append(*store, 0).ok());
    ASSERT_TRUE(store->Save().ok());
    ASSERT_TRUE(Append(*store, 1).ok());
  }
  const std::string stump = Content(Path()).substr(0, 200);
  ASSERT_TRUE(WriteWholeFile(Path(), stump).ok());
  EXPECT_EQ(CountMeasurements(Read(), 0), 1);
  EXPECT_FALSE(notes_.empty());
  {
    const auto store = Open();
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(CountMeasurements(store->profile(), 0), 1);
    EXPECT_EQ(Content(Path() + ".damaged"), stump);
    ASSERT_TRUE(store->Save().ok());
  }
  EXPECT_EQ(CountMeasurements(Read(), 0), 1);
  EXPECT_TRUE(notes_.empty());
  std::filesystem::remove(JournalPath());
  ASSERT_TRUE(WriteWholeFile(Path(), stump).ok());
  EXPECT_EQ(ReadProfile(Path(), *model_, &notes_).status().code(), ErrorCode::kCorrupt);
}

TEST_F(ProfileFile, RefusesWhatIsNoProfileAndLeavesNothingBehind) {
  const auto expect_untouched = [&](const std::string& path, ErrorCode code) {
    const auto opened = ProfileStore::Open(path, *model_, &notes_);
    ASSERT_FALSE(opened.ok()) << path;
    EXPECT_EQ(opened.status().code(), code) << opened.status().message();
    EXPECT_NE(opened.status().message().find(path), std::string::npos) << opened.status().message();
    EXPECT_FALSE(std::filesystem::exists(JournalOf(path)));
    EXPECT_FALSE(ReadProfile(path, *model_, &notes_).ok());
  };
  ASSERT_TRUE(WriteWholeFile(Path("readme.md"), "# something dear\n").ok());
  expect_untouched(Path("readme.md"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Content(Path("readme.md")), "# something dear\n");
  // The model itself, or another one.
  ASSERT_TRUE(WriteWholeFile(Path("model.gguf"), TinyLlama().Build()).ok());
  expect_untouched(Path("model.gguf"), ErrorCode::kInvalidArgument);
  std::filesystem::create_directory(Path("folder"));
  expect_untouched(Path("folder"), ErrorCode::kIo);
  expect_untouched(Path("missing/p.profile"), ErrorCode::kIo);
  expect_untouched("/proc/p.profile", ErrorCode::kIo);
}

TEST_F(ProfileFile, SaysWhenThereIsNone) {
  const auto read = ReadProfile(Path(), *model_, &notes_);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.status().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(JournalPath()));
}

TEST_F(ProfileFile, FileWithoutBytesIsPlaceForProfile) {
  ASSERT_TRUE(WriteWholeFile(Path(), "").ok());
  {
    const auto store = Open();
    ASSERT_NE(store, nullptr);
    EXPECT_TRUE(notes_.empty());
    ASSERT_TRUE(Append(*store, 0).ok());
    ASSERT_TRUE(store->Save().ok());
  }
  EXPECT_EQ(CountMeasurements(Read(), 1), 1);
}

TEST_F(ProfileFile, NewerJournalIsRefusedNamingBothVersions) {
  Profile identity;
  identity.model_fingerprint = *Fingerprint(*model_);
  std::vector<std::byte> header = EncodeJournalHeader(identity);
  header[16] = std::byte{9};
  header.resize(header.size() - 8);
  const uint64_t checksum = Hash64(header);
  const auto bytes = std::as_bytes(std::span(&checksum, 1));
  header.insert(header.end(), bytes.begin(), bytes.end());
  ASSERT_TRUE(WriteWholeFile(JournalPath(), {reinterpret_cast<const char*>(header.data()), header.size()}).ok());
  const Status status = ProfileStore::Open(Path(), *model_, &notes_).status();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_NE(status.message().find("version 9"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("version 1"), std::string::npos) << status.message();
  EXPECT_EQ(std::filesystem::file_size(JournalPath()), header.size());
}

TEST_F(ProfileFile, StrangeFileInTheJournalsPlaceIsKept) {
  const std::string strange = "notes of mine\n";
  ASSERT_TRUE(WriteWholeFile(JournalPath(), strange).ok());
  const auto store = Open();
  ASSERT_NE(store, nullptr);
  EXPECT_FALSE(notes_.empty());
  EXPECT_EQ(Content(JournalPath() + ".damaged"), strange);
  ASSERT_TRUE(Append(*store, 0).ok());
  EXPECT_EQ(CountMeasurements(Read(), 1), 1);
  EXPECT_TRUE(notes_.empty());
}

TEST_F(ProfileFile, RecordsOfAnotherModelNeverCount) {
  {
    const auto store = Open();
    ASSERT_TRUE(Append(*store, 0).ok());
  }
  std::string journal = Content(JournalPath());
  journal[0] = 'X';  // the header is gone, and with it the model's fingerprint
  ASSERT_TRUE(WriteWholeFile(JournalPath(), journal).ok());
  EXPECT_EQ(CountMeasurements(Read(), 1), 1);
  EXPECT_FALSE(notes_.empty());
  const auto other = ReadProfile(Path(), *SomeModel(128), &notes_);
  ASSERT_TRUE(other.ok()) << other.status().message();
  EXPECT_TRUE(other->archives.empty());
}

TEST_F(ProfileFile, LongMeasurementsFitIntoTheJournal) {
  const std::vector<WindowLoss> losses = SomeLosses(0, 100000);
  {
    const auto store = Open();
    ASSERT_TRUE(store->Append(SomeSet("aa", 1 << 20), PlanOfMask(0), 0, losses).ok());
  }
  EXPECT_EQ(CountMeasurements(Read(), 0), 100000);
  EXPECT_TRUE(notes_.empty());
}

TEST_F(ProfileFile, RefusesWindowsThatDoNotFollow) {
  const auto store = Open();
  const Status status = store->Append(SomeSet(), PlanOfMask(1), 1, SomeLosses(1, 1));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(status.message().find("a0=0"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace espalier
